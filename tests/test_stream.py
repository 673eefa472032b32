"""Pieces of an answer become exactly these events, and these bytes."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import Finish, Piece, Reason, Started, Token, scripted
from server import sse
from server.answer import Answer
from server.errors import ApiError, InvalidRequest
from server.events import (
    ContentPartAdded,
    ContentPartDone,
    Error,
    ErrorInfo,
    ErrorPayload,
    Event,
    IncompleteDetails,
    InputTokensDetails,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    OutputTokensDetails,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    Usage,
)
from server.stream import Stream
from tests import wire

NOW = 1_700_000_009
PROMPT = 7
RESPONSE = Response(id="resp_x", created_at=1_700_000_000, model="m", temperature=0.8, top_p=0.95)
ITEM = "msg_x00"
VOCABULARY = scripted.vocabulary()

Numberless: TypeAlias = Callable[[int], Event]
"""An event that lacks its number: numbers are given in `play` and in `numbered`, once each."""


def tokens(text: str | bytes) -> list[Piece]:
    """A token a byte."""
    return [Token(byte) for byte in (text.encode() if isinstance(text, str) else text)]


def usage(produced: int, cached: int = 0) -> Usage:
    details = InputTokensDetails(cached, PROMPT - cached)
    return Usage(PROMPT, details, produced, OutputTokensDetails(0), PROMPT + produced)


def play(pieces: Sequence[Piece], stops: Sequence[str] = ()) -> list[Event]:
    stream = Stream(RESPONSE)
    answer = Answer(stream, VOCABULARY, PROMPT, stops)
    return [*stream.start(), *(event for piece in pieces for event in answer.take(piece, NOW))]


def numbered(*events: Numberless) -> list[Event]:
    return [event(number) for number, event in enumerate(events)]


def opened() -> list[Numberless]:
    return [
        lambda n: ResponseCreated(n, RESPONSE),
        lambda n: ResponseInProgress(n, RESPONSE),
    ]


def item(*deltas: str) -> list[Numberless]:
    """The message up to its last delta."""

    def delta(text: str) -> Numberless:
        return lambda n: OutputTextDelta(n, ITEM, 0, 0, text)

    return [
        lambda n: OutputItemAdded(n, 0, Message(ITEM, "in_progress", ())),
        lambda n: ContentPartAdded(n, ITEM, 0, 0, OutputText("")),
        *map(delta, deltas),
    ]


def closed(message: Message) -> list[Numberless]:
    (part,) = message.content
    return [
        lambda n: OutputTextDone(n, ITEM, 0, 0, part.text),
        lambda n: ContentPartDone(n, ITEM, 0, 0, part),
        lambda n: OutputItemDone(n, 0, message),
    ]


def completed(text: str, usage: Usage) -> list[Numberless]:
    message = Message(ITEM, "completed", (OutputText(text),))
    response = replace(RESPONSE, status="completed", completed_at=NOW, usage=usage, output=(message,))
    return [*closed(message), lambda n: ResponseCompleted(n, response)]


def incomplete(text: str, usage: Usage) -> list[Numberless]:
    message = Message(ITEM, "incomplete", (OutputText(text),))
    details = IncompleteDetails("max_output_tokens")
    response = replace(RESPONSE, status="incomplete", incomplete_details=details, usage=usage, output=(message,))
    return [*closed(message), lambda n: ResponseIncomplete(n, response)]


def failed(message: str) -> list[Numberless]:
    payload = ErrorPayload("server_error", "server_error", message, None)
    response = replace(RESPONSE, status="failed", error=ErrorInfo("server_error", message))
    return [
        lambda n: Error(n, message, "server_error", None, payload),
        lambda n: ResponseFailed(n, response),
    ]


STOP, LENGTH = Finish(Reason.STOP), Finish(Reason.LENGTH)
BROKEN = Finish(Reason.FAILED, "the model broke")

CASES: dict[str, tuple[list[Piece], Sequence[str], list[Numberless]]] = {
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
        [*item("a", "b"), *completed("ab", usage(4))],
    ),
    "a stop string at once": ([Started(0), *tokens(".c")], [".c"], [*item(), *completed("", usage(2))]),
    "a stop string that never comes": (
        [Started(0), *tokens("ab."), STOP],
        [".c"],
        [*item("a", "b", "."), *completed("ab.", usage(4))],
    ),
    "a failure before any text": ([BROKEN], (), failed("the model broke")),
    "a failure after some text": (
        [Started(0), *tokens("Hi"), BROKEN],
        (),
        [*item("H", "i"), *failed("the model broke")],
    ),
    "a failure behind a stop string": (
        [Started(0), *tokens("a."), BROKEN],
        ["."],
        [*item("a"), *completed("a", usage(2))],
    ),
}


@pytest.mark.parametrize(("pieces", "stops", "expected"), CASES.values(), ids=CASES)
def test_pieces_become_exactly_these_events(
    pieces: list[Piece], stops: Sequence[str], expected: list[Numberless]
) -> None:
    events = play(pieces, stops)
    assert events == numbered(*opened(), *expected)
    wire.check_stream(plain(events))


def plain(events: Sequence[Event]) -> list[dict[str, Any]]:
    """As a client sees them."""
    return [msgspec.json.decode(msgspec.json.encode(event)) for event in events]


USAGE = usage(1)
LEGAL = {"start", "start feed", "start feed feed", "start finish", "start fail", "start feed finish", "start feed fail"}
CALLS: dict[str, Callable[[Stream], object]] = {
    "start": lambda stream: stream.start(),
    "feed": lambda stream: stream.feed("x"),
    "finish": lambda stream: stream.finish(NOW, USAGE),
    "fail": lambda stream: stream.fail(ApiError("no")),
}
ORDERS = [calls for n in (1, 2, 3) for calls in itertools.product(CALLS, repeat=n)]


@pytest.mark.parametrize("calls", ORDERS, ids=" ".join)
def test_only_the_calls_of_the_table_are_legal(calls: Sequence[str]) -> None:
    """Every order of up to three calls; a prefix that is illegal was a case of its own."""
    stream = Stream(RESPONSE)
    for done, call in enumerate(calls):
        if " ".join(calls[: done + 1]) in LEGAL:
            CALLS[call](stream)
        else:
            with pytest.raises(AssertionError, match=rf"{call}\(\) is not legal in state"):
                CALLS[call](stream)
            return


def test_an_error_keeps_its_code_and_its_field_in_the_stream() -> None:
    stream = Stream(RESPONSE)
    stream.start()
    events = stream.fail(InvalidRequest("too long", param="input", code="context_length_exceeded"))
    payload = ErrorPayload("invalid_request_error", "context_length_exceeded", "too long", "input")
    info = ErrorInfo("context_length_exceeded", "too long")
    assert events == [
        Error(2, "too long", "context_length_exceeded", "input", payload),
        ResponseFailed(3, replace(RESPONSE, status="failed", error=info)),
    ]


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
            OutputItemDone(7, 0, Message(ITEM, "completed", (OutputText("a"),))),
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
def test_events_become_exactly_these_frames(events: list[Event], expected: bytes) -> None:
    assert sse.encode(events) == expected


def test_a_stream_ends_with_done() -> None:
    assert sse.DONE == b"data: [DONE]\n\n"


ANSWERS = st.one_of(st.text().map(str.encode), st.binary(max_size=40))
ENDS = st.sampled_from([STOP, LENGTH, BROKEN])
STOPS = st.lists(st.text(min_size=1, max_size=3), max_size=3)


@given(ANSWERS, ENDS, STOPS)
def test_any_pieces_give_a_legal_stream_whose_deltas_are_its_text(data: bytes, end: Finish, stops: list[str]) -> None:
    events = play([Started(0), *tokens(data), end], stops)
    seen = wire.events(sse.encode(events) + sse.DONE)
    deltas = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    last = seen[-1]["response"]
    whole = data.decode(errors="replace")
    if last["status"] == "failed":
        assert (end, last["output"]) == (BROKEN, [])
    else:
        assert last["output"][0]["content"][0]["text"] == deltas
    assert not any(stop in deltas for stop in stops)
    assert whole.startswith(deltas)


@given(ANSWERS, STOPS)
def test_the_same_pieces_give_the_same_bytes(data: bytes, stops: list[str]) -> None:
    pieces = [Started(0), *tokens(data), STOP]
    assert sse.encode(play(pieces, stops)) == sse.encode(play(pieces, stops))
