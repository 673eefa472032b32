"""`server.stream.completions.chunk_times`: which chunk carries which token."""

import json
from typing import Any

import pytest

from server.protocol.events import (
    Event,
    OutputItemAdded,
    OutputTextDelta,
    PromptProgress,
    ReasoningTextDelta,
    ResponseCompleted,
    ResponseCreated,
    ResponseInProgress,
)
from server.protocol.output_items import OutputMessage
from server.protocol.response import (
    Extensions,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    TokenColumns,
    TokenTimes,
    Usage,
)
from server.stream.completions import ChatChunkEncoder, TextChunkEncoder, completion, text_completion

STAGES = (0.1, 0.2, 0.3, 0.4, 0.5)
EVENTS = (3, 4, 8, 8, None)
"""Last event that left with each of five tokens. The first one has none with text, the fifth left with the end."""
TIMES = TokenTimes(9.0, 0.1, 0.2, 0.3, TokenColumns(STAGES, STAGES, STAGES, STAGES, STAGES, STAGES, EVENTS))
BEGUN = Response(id="resp_1", created_at=1700000000, model="tiny", temperature=1.0, top_p=1.0)
WHOLE = Response(
    id="resp_1",
    created_at=1700000000,
    model="tiny",
    temperature=1.0,
    top_p=1.0,
    status="completed",
    usage=Usage(9, InputTokensDetails(4, 5), 5, OutputTokensDetails(1), 14),
    responsed=Extensions(token_times=TIMES),
)
STREAM: list[Event] = [
    ResponseCreated(0, BEGUN),
    ResponseInProgress(1, BEGUN),
    ResponseInProgress(2, BEGUN, PromptProgress(9, 2, 5, 70)),
    OutputItemAdded(3, 0, OutputMessage("msg_1", "in_progress", ())),
    ReasoningTextDelta(4, "rs_1", 0, 0, "Hm"),
    OutputTextDelta(7, "msg_1", 0, 0, "Hel"),
    OutputTextDelta(8, "msg_1", 0, 0, "lo"),
    ResponseCompleted(11, WHOLE),
]


def chunks(frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames.split(b"\n\n") if frame]


@pytest.mark.parametrize(
    ("encoder", "last", "expected"),
    [
        (ChatChunkEncoder, -2, [None, 2, 4, 4, None]),  # 0: role, 1: progress, 2: reasoning
        (TextChunkEncoder, -2, [None, None, 1, 1, None]),  # neither progress nor reasoning
    ],
)
@pytest.mark.parametrize("pieces", [[STREAM], [[event] for event in STREAM]])
def test_times_have_the_chunks_of_their_tokens(
    encoder: Any, last: int, expected: list[int | None], pieces: list[list[Event]]
) -> None:
    encode = encoder(BEGUN, include_usage=True).encode
    found = chunks(b"".join(encode(piece) for piece in pieces))
    assert [number for number, chunk in enumerate(found) if "responsed" in chunk] == [len(found) + last]
    times = found[last]["responsed"]["token_times"]
    assert times["tokens"].pop("event") == expected
    assert {name: tuple(column) for name, column in times["tokens"].items()} == dict.fromkeys(
        ("decoding", "decoded", "sampled", "handed_over", "encoded", "written"), STAGES
    )


@pytest.mark.parametrize("answer", [completion(WHOLE), text_completion(WHOLE)])
def test_times_of_a_whole_answer_have_no_chunks(answer: Any) -> None:
    assert answer.responsed.token_times.tokens.event == (None,) * 5
    assert answer.responsed.token_times.tokens.decoded == STAGES
