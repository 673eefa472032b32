"""`return_token_times`: the server's times of each token in the terminal response."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from engine.model import BatchEntry
from tests.support.helpers import Answer, Running, encode, exchange, frames, get, post, served
from tests.support.websockets import SocketClient

pytestmark = pytest.mark.slow

ANSWER = "Hello"
FIRST_DELTA = 4
"""Sequence number of the first delta: it follows created, in_progress, output_item.added and content_part.added."""
STAGES = ("decoding", "decoded", "sampled", "handed_over", "encoded", "written")


class Paced(ScriptedModel):
    """A model whose steps take 10 ms."""

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        time.sleep(0.01)
        super().decode(batch)


def model() -> ScriptedModel:
    return Paced(lambda message: ANSWER.encode())


def times_of(response: dict[str, Any]) -> dict[str, Any]:
    return dict(response["responsed"]["token_times"])


def check_order(times: dict[str, Any], stages: tuple[str, ...], tokens: int = len(ANSWER)) -> None:
    """Check that each token passes the stages in their order, after the token before it."""
    assert 0 <= times["admitted"] <= times["prefill_begun"] < times["prefill_done"]
    paths = list(zip(*(times["tokens"][stage] for stage in stages), strict=True))
    assert len(paths) == tokens
    assert all(path == tuple(sorted(path)) for path in paths)
    assert paths == sorted(paths)


def check_events(times: dict[str, Any], first: int, count: int) -> None:
    """Check that each token left with its own event, or with a later one if the event loop got several at once."""
    events = times["tokens"]["event"]
    assert events == sorted(events)
    assert all(event >= number for number, event in enumerate(events, first))
    assert events[-1] == first + count - 1


async def test_stream_has_the_times_of_each_token(tmp_path: Path) -> None:
    async with served(model(), state=tmp_path, token_times=True) as running:
        events = (await post(running, input="Hi", stream=True, return_token_times=True)).events
        times = times_of(events[-1]["response"])
        check_order(times, STAGES)
        check_events(times, FIRST_DELTA, len(ANSWER))
        assert [event["delta"] for event in events if event["sequence_number"] in times["tokens"]["event"]] == [*ANSWER]
        assert "responsed" not in events[0]["response"]
        assert "responsed" not in (await get(running, f"/v1/responses/{events[-1]['response']['id']}")).json


async def test_answer_in_one_piece_has_no_times_of_frames() -> None:
    async with served(model(), token_times=True) as running:
        times = times_of((await post(running, input="Hi", return_token_times=True)).json)
    check_order(times, STAGES[:4])
    assert times["tokens"]["encoded"] == times["tokens"]["written"] == [None] * len(ANSWER)


async def ask(running: Running, path: str, **fields: Any) -> Answer:
    return await exchange(running, "POST", path, encode(**fields, return_token_times=True))


CONTINUED = 3
"""Tokens of the answer to the prompt `Hi` without a chat: the model has written as many of them as the prompt has."""
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "fields", "first", "tokens"),
    [
        ("/v1/chat/completions", CHAT, 1, len(ANSWER)),  # a chat begins with the role
        ("/v1/completions", {"prompt": "Hi"}, 0, CONTINUED),
    ],
)
@pytest.mark.parametrize("usage", [False, True])
async def test_chunks_have_the_times_of_each_token(
    path: str, fields: dict[str, Any], first: int, tokens: int, usage: bool
) -> None:
    options = {"stream_options": {"include_usage": usage}}
    async with served(model(), token_times=True) as running:
        reply = await ask(running, path, **fields, **options, stream=True)
    found = [json.loads(frame.removeprefix(b"data: ")) for frame in frames(reply.body)[:-1]]
    timed = [number for number, chunk in enumerate(found) if "responsed" in chunk]
    assert timed == [first + tokens]
    assert found[timed[0]]["choices"][0]["finish_reason"] == "stop"
    times = times_of(found[timed[0]])
    check_order(times, STAGES, tokens)
    check_events(times, first, tokens)


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [("/v1/chat/completions", CHAT, len(ANSWER)), ("/v1/completions", {"prompt": "Hi"}, CONTINUED)],
)
async def test_whole_completion_has_the_times_of_each_token(path: str, fields: dict[str, Any], tokens: int) -> None:
    async with served(model(), token_times=True) as running:
        times = times_of((await ask(running, path, **fields)).json)
    check_order(times, STAGES[:4], tokens)
    assert times["tokens"]["event"] == [None] * tokens


@pytest.mark.parametrize(("path", "fields"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "Hi"})])
async def test_completion_without_the_setting_has_no_times(path: str, fields: dict[str, Any]) -> None:
    async with served(model()) as running:
        assert (await ask(running, path, **fields)).json["responsed"] == {"skipped": ["return_token_times"]}
    async with served(model(), strict_fields=True) as running:
        refused = await ask(running, path, **fields)
    assert (refused.status, refused.json["error"]["param"]) == (400, "return_token_times")


async def test_messages_of_a_websocket_have_the_times_of_each_token() -> None:
    async with served(model(), token_times=True) as running, await SocketClient.to(running) as client:
        await client.create(input="Hi", return_token_times=True)
        events = await client.stream()
    times = times_of(events[-1]["response"])
    check_order(times, STAGES)
    check_events(times, FIRST_DELTA, len(ANSWER))


@pytest.mark.parametrize(
    ("setting", "fields", "expected"),
    [
        (False, {"return_token_times": True}, {"skipped": ["return_token_times"]}),
        (False, {}, None),
        (True, {"return_token_times": False}, None),
        (True, {}, None),
    ],
)
async def test_response_without_setting_or_field_has_no_times(
    setting: bool, fields: dict[str, bool], expected: dict[str, Any] | None
) -> None:
    async with served(model(), token_times=setting) as running:
        assert (await post(running, input="Hi", **fields)).json.get("responsed") == expected
