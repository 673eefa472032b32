"""The state machine of a stream: engine outputs and inputs -> exact events and bytes."""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.backends import scripted
from engine.job import EngineOutput, Finished, FinishReason, Progress, Started, Token
from server.postprocessing.output_processor import OutputProcessor
from server.protocol import sse
from server.protocol.errors import InvalidRequest
from server.protocol.events import (
    ContentPartAdded,
    ContentPartDone,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Error,
    ErrorPayload,
    Event,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    PromptProgress,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
)
from server.protocol.output_items import CustomToolCall, OutputMessage, OutputText, ReasoningItem, ReasoningText
from server.protocol.response import (
    ErrorInfo,
    Extensions,
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    Usage,
)
from server.stream.inputs import (
    ArgumentsAdded,
    Cancelled,
    Created,
    End,
    Failure,
    InProgress,
    NotStored,
    Queued,
    ReasoningAdded,
    StreamInput,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
    failure,
)
from server.stream.machine import Stream
from tests.support import wire

NOW = 1_700_000_009
PROMPT = 7
RESPONSE = Response(id="resp_x", created_at=1_700_000_000, model="m", temperature=0.8, top_p=0.95)
ITEM = "msg_x00"
VOCABULARY = scripted.vocabulary()

Numberless: TypeAlias = Callable[[int], Event]
"""Events without sequence numbers, which `play` and `numbered` assign."""


def tokens(text: str | bytes) -> list[EngineOutput]:
    """Return one token per byte."""
    return [Token(byte) for byte in (text.encode() if isinstance(text, str) else text)]


def usage(produced: int, cached: int = 0) -> Usage:
    details = InputTokensDetails(cached, PROMPT - cached)
    return Usage(PROMPT, details, produced, OutputTokensDetails(0), PROMPT + produced)


def play(pieces: Sequence[EngineOutput], stops: Sequence[str] = ()) -> list[Event]:
    answer = OutputProcessor(VOCABULARY, PROMPT, stops)
    return perform([Created(), InProgress(), *(cue for piece in pieces for cue in answer.process(piece, NOW))])


def perform(cues: Sequence[StreamInput], response: Response = RESPONSE) -> list[Event]:
    stream = Stream(response)
    return [event for cue in cues for event in stream.feed(cue)]


def numbered(*events: Numberless) -> list[Event]:
    return [event(number) for number, event in enumerate(events)]


def opened() -> list[Numberless]:
    return [
        lambda n: ResponseCreated(n, RESPONSE),
        lambda n: ResponseInProgress(n, RESPONSE),
    ]


def item(*deltas: str) -> list[Numberless]:
    """Return the events of the message up to its last delta."""

    def delta(text: str) -> Numberless:
        return lambda n: OutputTextDelta(n, ITEM, 0, 0, text)

    return [
        lambda n: OutputItemAdded(n, 0, OutputMessage(ITEM, "in_progress", ())),
        lambda n: ContentPartAdded(n, ITEM, 0, 0, OutputText("")),
        *map(delta, deltas),
    ]


def closed(message: OutputMessage) -> list[Numberless]:
    (part,) = message.content
    return [
        lambda n: OutputTextDone(n, ITEM, 0, 0, part.text),
        lambda n: ContentPartDone(n, ITEM, 0, 0, part),
        lambda n: OutputItemDone(n, 0, message),
    ]


def completed(text: str, usage: Usage) -> list[Numberless]:
    message = OutputMessage(ITEM, "completed", (OutputText(text),))
    response = replace(RESPONSE, status="completed", completed_at=NOW, usage=usage, output=(message,))
    return [*closed(message), lambda n: ResponseCompleted(n, response)]


def incomplete(text: str, usage: Usage) -> list[Numberless]:
    return _incomplete(text, replace(RESPONSE, incomplete_details=IncompleteDetails("max_output_tokens"), usage=usage))


def stopped(text: str, usage: Usage, stop: str) -> list[Numberless]:
    return _incomplete(text, replace(RESPONSE, usage=usage, responsed=Extensions(stop=stop)))


def _incomplete(text: str, response: Response) -> list[Numberless]:
    message = OutputMessage(ITEM, "incomplete", (OutputText(text),))
    response = replace(response, status="incomplete", output=(message,))
    return [*closed(message), lambda n: ResponseIncomplete(n, response)]


def failed(message: str, text: str = "", usage: Usage | None = None) -> list[Numberless]:
    payload = ErrorPayload("server_error", "server_error", message, None)
    messages = (OutputMessage(ITEM, "incomplete", (OutputText(text),)),) if text else ()
    response = replace(
        RESPONSE, status="failed", error=ErrorInfo("server_error", message), output=messages, usage=usage
    )
    return [
        *itertools.chain.from_iterable(map(closed, messages)),
        lambda n: Error(n, message, "server_error", None, payload),
        lambda n: ResponseFailed(n, response),
    ]


STOP, LENGTH = Finished(FinishReason.STOP), Finished(FinishReason.LENGTH)
BROKEN = Finished(FinishReason.FAILED, "the model broke")

CASES: dict[str, tuple[list[EngineOutput], Sequence[str], list[Numberless]]] = {
    "text": ([Started(3), *tokens("Hi"), STOP], (), [*item("H", "i"), *completed("Hi", usage(3, cached=3))]),
    "an empty answer has its message": ([Started(0), STOP], (), [*item(), *completed("", usage(1))]),
    "max tokens": ([Started(0), *tokens("Hi"), LENGTH], (), [*item("H", "i"), *incomplete("Hi", usage(2))]),
    "max tokens within a character": (
        [Started(0), *tokens(b"a\xc3"), LENGTH],
        (),
        [*item("a"), *incomplete("a", usage(2))],
    ),
    "max tokens before any text": ([Started(0), *tokens(b"\xc3"), LENGTH], (), [*item(), *incomplete("", usage(1))]),
    "a character over two tokens": ([Started(0), *tokens("é"), STOP], (), [*item("é"), *completed("é", usage(3))]),
    "a stop string, with a token too many": (
        [Started(0), *tokens("ab.c"), *tokens("de"), STOP],
        [".c"],
        [*item("a", "b"), *stopped("ab", usage(4), ".c")],
    ),
    "a stop string at once": ([Started(0), *tokens(".c")], [".c"], [*item(), *stopped("", usage(2), ".c")]),
    "a stop string in the same token as the limit": (
        [Started(0), *tokens("ab"), LENGTH],
        ["b"],
        [*item("a"), *stopped("a", usage(2), "b")],
    ),
    "a stop string that never comes": (
        [Started(0), *tokens("ab."), STOP],
        [".c"],
        [*item("a", "b", "."), *completed("ab.", usage(4))],
    ),
    "a failure before any text": ([BROKEN], (), failed("the model broke")),
    "a failure after some text": (
        [Started(0), *tokens("Hi"), BROKEN],
        (),
        [*item("H", "i"), *failed("the model broke", "Hi", usage(2))],
    ),
    "a failure behind a stop string": (
        [Started(0), *tokens("a."), BROKEN],
        ["."],
        [*item("a"), *stopped("a", usage(2), ".")],
    ),
}


@pytest.mark.parametrize(("pieces", "stops", "expected"), CASES.values(), ids=CASES)
def test_engine_outputs_become_exactly_these_events(
    pieces: list[EngineOutput], stops: Sequence[str], expected: list[Numberless]
) -> None:
    events = play(pieces, stops)
    assert events == numbered(*opened(), *expected)
    wire.check_stream(plain(events))


def plain(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the events in the form that clients receive."""
    return [msgspec.json.decode(msgspec.json.encode(event)) for event in events]


QUEUED = replace(RESPONSE, status="queued")
BEGUN: list[StreamInput] = [Created(), InProgress()]
PROGRESS = PromptProgress(total=9, cache=2, processed=5)


def cancelled(message: OutputMessage | None = None, usage: Usage | None = None) -> Numberless:
    output = () if message is None else (message,)
    response = replace(RESPONSE, status="cancelled", usage=usage, output=output)
    return lambda n: ResponseIncomplete(n, response)


CUES: dict[str, tuple[Response, list[StreamInput], list[Numberless]]] = {
    "it waits, and has its turn": (
        QUEUED,
        [Created(), Queued(), InProgress(), TextAdded("Hi"), End(NOW, usage(3))],
        [
            lambda n: ResponseCreated(n, QUEUED),
            lambda n: ResponseQueued(n, QUEUED),
            lambda n: ResponseInProgress(n, RESPONSE),
            *item("Hi"),
            *completed("Hi", usage(3)),
        ],
    ),
    "heartbeats": (
        RESPONSE,
        [*BEGUN, InProgress(), InProgress(PROGRESS), End(NOW, usage(1))],
        [
            *opened(),
            lambda n: ResponseInProgress(n, RESPONSE),
            lambda n: ResponseInProgress(n, RESPONSE, PROGRESS),
            *item(),
            *completed("", usage(1)),
        ],
    ),
    "cancelled while it waits": (
        QUEUED,
        [Created(), Queued(), Cancelled()],
        [lambda n: ResponseCreated(n, QUEUED), lambda n: ResponseQueued(n, QUEUED), cancelled()],
    ),
    "cancelled before any text": (RESPONSE, [*BEGUN, Cancelled(usage(0))], [*opened(), cancelled(usage=usage(0))]),
    "cancelled after some text": (
        RESPONSE,
        [*BEGUN, TextAdded("Hi"), Cancelled(usage(2))],
        [
            *opened(),
            *item("Hi"),
            *closed(OutputMessage(ITEM, "incomplete", (OutputText("Hi"),))),
            cancelled(OutputMessage(ITEM, "incomplete", (OutputText("Hi"),)), usage(2)),
        ],
    ),
    "not kept after all": (
        replace(RESPONSE, store=True),
        [*BEGUN, NotStored(), Cancelled()],
        [
            lambda n: ResponseCreated(n, replace(RESPONSE, store=True)),
            lambda n: ResponseInProgress(n, replace(RESPONSE, store=True)),
            cancelled(),
        ],
    ),
}


def thought(text: str, status: Literal["completed", "incomplete"]) -> tuple[ReasoningItem, list[Numberless]]:
    """Return a reasoning item and its events."""
    part = ReasoningText(text)
    done = ReasoningItem("rs_x00", status, (part,))
    return done, [
        lambda n: OutputItemAdded(n, 0, ReasoningItem("rs_x00", "in_progress", ())),
        lambda n: ContentPartAdded(n, "rs_x00", 0, 0, ReasoningText("")),
        lambda n: ReasoningTextDelta(n, "rs_x00", 0, 0, text),
        lambda n: ReasoningTextDone(n, "rs_x00", 0, 0, text),
        lambda n: ContentPartDone(n, "rs_x00", 0, 0, part),
        lambda n: OutputItemDone(n, 0, done),
    ]


SO, SO_EVENTS = thought("So.", "completed")
CUT, CUT_EVENTS = thought("So", "incomplete")
YES = OutputMessage("msg_x01", "completed", (OutputText("Yes"),))
BOTH = replace(RESPONSE, status="completed", completed_at=NOW, usage=usage(3), output=(SO, YES))
ONLY_CUT = replace(
    RESPONSE,
    status="incomplete",
    incomplete_details=IncompleteDetails("max_output_tokens"),
    usage=usage(3),
    output=(CUT,),
)
CUES |= {
    "reasoning, then text": (
        RESPONSE,
        [*BEGUN, ReasoningAdded("So."), TextAdded("Yes"), End(NOW, usage(3))],
        [
            *(*opened(), *SO_EVENTS),
            lambda n: OutputItemAdded(n, 1, OutputMessage("msg_x01", "in_progress", ())),
            lambda n: ContentPartAdded(n, "msg_x01", 1, 0, OutputText("")),
            lambda n: OutputTextDelta(n, "msg_x01", 1, 0, "Yes"),
            lambda n: OutputTextDone(n, "msg_x01", 1, 0, "Yes"),
            lambda n: ContentPartDone(n, "msg_x01", 1, 0, OutputText("Yes")),
            lambda n: OutputItemDone(n, 1, YES),
            lambda n: ResponseCompleted(n, BOTH),
        ],
    ),
    "reasoning, cut": (
        RESPONSE,
        [*BEGUN, ReasoningAdded("So"), End(NOW, usage(3), "max_output_tokens")],
        [*opened(), *CUT_EVENTS, lambda n: ResponseIncomplete(n, ONLY_CUT)],
    ),
}


PATCH = CustomToolCall("ctc_x00", "call_x00", "apply_patch", "", "in_progress")
PATCHED = replace(PATCH, input='é"b', status="completed")
WRAPPED: list[StreamInput] = [
    ArgumentsAdded('{"input": "\\u'),
    ArgumentsAdded("00e9"),
    ArgumentsAdded('\\"b"'),
    ArgumentsAdded("}"),
    ToolCallEnded(),
]
PATCHED_EVENTS: list[Numberless] = [
    lambda n: CustomToolCallInputDone(n, "ctc_x00", 0, 'é"b'),
    lambda n: OutputItemDone(n, 0, PATCHED),
    lambda n: ResponseCompleted(
        n, replace(RESPONSE, status="completed", completed_at=NOW, output=(PATCHED,), usage=usage(1))
    ),
]
CUES |= {
    "a custom tool's text": (
        RESPONSE,
        [*BEGUN, ToolCallStarted("apply_patch", None, True, streams=True), *WRAPPED, End(NOW, usage(1))],
        [
            *opened(),
            lambda n: OutputItemAdded(n, 0, PATCH),
            lambda n: CustomToolCallInputDelta(n, "ctc_x00", 0, "é"),
            lambda n: CustomToolCallInputDelta(n, "ctc_x00", 0, '"b'),
            *PATCHED_EVENTS,
        ],
    ),
    "a custom tool's text that was kept before such texts streamed": (
        RESPONSE,
        [
            *BEGUN,
            ToolCallStarted("apply_patch", None, True),
            *WRAPPED,
            End(NOW, usage(1)),
        ],
        [
            *opened(),
            lambda n: OutputItemAdded(n, 0, PATCH),
            lambda n: CustomToolCallInputDelta(n, "ctc_x00", 0, 'é"b'),
            *PATCHED_EVENTS,
        ],
    ),
}


@pytest.mark.parametrize(("response", "cues", "expected"), CUES.values(), ids=CUES)
def test_stream_inputs_become_exactly_these_events(
    response: Response, cues: list[StreamInput], expected: list[Numberless]
) -> None:
    events = perform(cues, response)
    assert events == numbered(*expected)
    wire.check_stream(plain(events))


@pytest.mark.parametrize(("response", "cues", "expected"), CUES.values(), ids=CUES)
def test_stored_stream_is_replayed_identically(
    response: Response, cues: list[StreamInput], expected: list[Numberless]
) -> None:
    first = msgspec.json.decode(msgspec.json.encode(response), type=Response)
    again = msgspec.json.decode(msgspec.json.encode(cues), type=list[StreamInput])
    assert (first, again) == (response, cues)
    assert sse.encode(perform(again, first)) == sse.encode(perform(cues, response))


def test_stored_call_of_an_older_version_is_replayed() -> None:
    kept = b'[["b","apply_patch",null,true]]'
    assert msgspec.json.decode(kept, type=list[StreamInput]) == [
        ToolCallStarted("apply_patch", None, True, streams=False)
    ]


LETTERS: dict[str, StreamInput] = {
    "c": Created(),
    "q": Queued(),
    "r": InProgress(),
    "u": NotStored(),
    "t": TextAdded("x"),
    "n": ReasoningAdded("y"),
    "b": ToolCallStarted("f"),
    "a": ArgumentsAdded("{}"),
    "d": ToolCallEnded(),
    "e": End(NOW, usage(1)),
    "x": Cancelled(),
    "f": Failure(ErrorPayload("server_error", None, "no", None)),
}
LEGAL = re.compile("c?|cqu*[xf]?|c(qu*)?r[ru]*(([tn]|b[au]*d)u*)*(b[au]*)?[exf]?")


@pytest.mark.parametrize("length", range(1, 6))
def test_stream_accepts_only_inputs_of_the_table(length: int) -> None:
    """Feed every order of this length."""
    for letters in map("".join, itertools.product(LETTERS, repeat=length)):
        if not LEGAL.fullmatch(letters[:-1]):
            continue
        cues = [LETTERS[letter] for letter in letters]
        if LEGAL.fullmatch(letters):
            perform(cues)
        else:
            with pytest.raises(AssertionError, match=f"{type(cues[-1]).__name__} is not legal in state"):
                perform(cues)


def test_failure_has_code_and_param_in_the_stream() -> None:
    error = InvalidRequest("too long", param="input", code="context_length_exceeded")
    payload = ErrorPayload("invalid_request_error", "context_length_exceeded", "too long", "input")
    info = ErrorInfo("context_length_exceeded", "too long")
    assert perform([*BEGUN, failure(error)])[2:] == [
        Error(2, "too long", "context_length_exceeded", "input", payload),
        ResponseFailed(3, replace(RESPONSE, status="failed", error=info)),
    ]


def test_output_processor_reports_prompt_progress() -> None:
    answer = OutputProcessor(VOCABULARY, PROMPT, ())
    seen = []
    for piece in (None, Started(2), Progress(4), Progress(6), Token(65)):
        assert piece is None or answer.process(piece, NOW) == ([TextAdded("A")] if isinstance(piece, Token) else [])
        seen.append(answer.progress)
    assert seen == [None, *(PromptProgress(PROMPT, 2, n) for n in (2, 4, 6, 6))]


FRAMES: list[tuple[list[Event], bytes]] = [
    ([], b""),
    (
        [OutputTextDelta(4, ITEM, 0, 0, 'é\n"\u2028')],
        (
            b"event: response.output_text.delta\n"
            b'data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_x00","output_index":0,'
            b'"content_index":0,"delta":"\xc3\xa9\\n\\"\xe2\x80\xa8","logprobs":[]}\n\n'
        ),
    ),
    (
        [
            OutputItemDone(7, 0, OutputMessage(ITEM, "completed", (OutputText("a"),))),
            Error(8, "no", None, None, ErrorPayload("server_error", None, "no", None)),
        ],
        (
            b"event: response.output_item.done\n"
            b'data: {"type":"response.output_item.done","sequence_number":7,"output_index":0,"item":{"type":"message",'
            b'"id":"msg_x00","status":"completed","content":[{"type":"output_text","text":"a","annotations":[],'
            b'"logprobs":[]}],"role":"assistant"}}\n\n'
            b"event: error\n"
            b'data: {"type":"error","sequence_number":8,"message":"no","code":null,"param":null,'
            b'"error":{"type":"server_error","code":null,"message":"no","param":null}}\n\n'
        ),
    ),
    (
        [ResponseCreated(0, RESPONSE)],
        (
            b"event: response.created\n"
            b'data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_x","object":"response",'
            b'"created_at":1700000000,"status":"in_progress","background":false,"completed_at":null,"error":null,'
            b'"frequency_penalty":0.0,"incomplete_details":null,"instructions":null,"max_output_tokens":null,'
            b'"max_tool_calls":null,"metadata":{},"model":"m","output":[],"parallel_tool_calls":true,'
            b'"presence_penalty":0.0,"previous_response_id":null,"prompt_cache_key":null,'
            b'"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default",'
            b'"store":false,"temperature":0.8,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],'
            b'"top_logprobs":0,"top_p":0.95,"truncation":"disabled","usage":null}}\n\n'
        ),
    ),
]


@pytest.mark.parametrize(("events", "expected"), FRAMES, ids=["none", "delta", "two", "created"])
def test_sse_encodes_events_to_exactly_these_frames(events: list[Event], expected: bytes) -> None:
    assert sse.encode(events) == expected


def test_sse_stream_ends_with_done() -> None:
    assert sse.DONE == b"data: [DONE]\n\n"


ANSWERS = st.one_of(st.text().map(str.encode), st.binary(max_size=40))
ENDS = st.sampled_from([STOP, LENGTH, BROKEN])
STOPS = st.lists(st.text(min_size=1, max_size=3), max_size=3)


@pytest.mark.slow
@given(ANSWERS, ENDS, STOPS)
def test_any_outputs_give_a_legal_stream_whose_deltas_are_its_text(
    data: bytes, end: Finished, stops: list[str]
) -> None:
    events = play([Started(0), *tokens(data), end], stops)
    seen = wire.events(sse.encode(events) + sse.DONE)
    deltas = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    last = seen[-1]["response"]
    whole = data.decode(errors="replace")
    if last["status"] == "failed":
        assert end == BROKEN
    if last["status"] != "failed" or deltas:
        assert "".join(item["content"][0]["text"] for item in last["output"]) == deltas
    assert not any(stop in deltas for stop in stops)
    assert whole.startswith(deltas)


@given(ANSWERS, STOPS)
def test_equal_outputs_give_equal_bytes(data: bytes, stops: list[str]) -> None:
    pieces = [Started(0), *tokens(data), STOP]
    assert sse.encode(play(pieces, stops)) == sse.encode(play(pieces, stops))
