"""Faults of an upstream: each ends the response by one terminal event with the cause, or is repeated in time."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
import trio

from server.upstream.transport.client import ClientTimeouts
from tests.server.upstream.scripted_upstream import (
    HEAD,
    LAST,
    TIMEOUTS,
    Play,
    call,
    chunked,
    delta,
    end,
    event,
    fronted,
    plays,
    says,
    status,
    token,
)
from tests.support.helpers import Answer, Client, exchange, post

SO = delta(content="So")
SO_TOKENS = token(*b"So")
END_TOKENS = token(256, finish="stop") + event(b"[DONE]") + LAST
SHORT = ClientTimeouts(connect=5, first_byte=0.1, idle=0.1)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
EMPTY = b"Content-Length: 2\r\n\r\n{}"
REFUSED_LENGTH = b'{"error":{"message":"This model\'s maximum context length is 10 tokens."}}'

# (name, answer of the upstream, code of the response, attempts)
BEFORE: list[tuple[str, Play, str | None, int]] = [
    ("500", status(500), "upstream_error", 3),
    ("502", status(502, b"<html>Bad gateway"), "upstream_error", 3),
    ("429", status(429, b"{}", "Retry-After: 0"), "upstream_busy", 3),
    ("503 for long", status(503, b"{}", "Retry-After: 30"), "upstream_busy", 1),
    ("503 until a date", status(503, b"{}", "Retry-After: Wed, 01 Jan 2200 00:00:00 GMT"), "upstream_busy", 1),
    ("503 with a strange wait", plays(b"HTTP/1.1 503 X\r\nRetry-After: \xb2\r\n" + EMPTY), "upstream_busy", 3),
    ("503 with a negative wait", status(503, b"{}", "Retry-After: -5"), "upstream_busy", 3),
    ("503 until a date without zone", status(503, b"{}", "Retry-After: Wed, 01 Jan 2200 00:00:00"), "upstream_busy", 1),
    ("400", status(400), None, 1),
    ("too long", status(400, REFUSED_LENGTH), "context_length_exceeded", 1),
    ("401", status(401), "upstream_error", 1),
    ("404", status(404), "upstream_error", 1),
    ("no answer", plays(close=True), "upstream_error", 3),
    ("no HTTP", plays(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", close=True), "upstream_error", 3),
    ("no stream", plays(PLAIN), "upstream_error", 3),
    ("empty stream", plays(HEAD, b"0\r\n\r\n"), "upstream_error", 3),
    ("garbage", plays(HEAD, event(b"{nonsense"), close=True), "upstream_error", 3),
    ("other JSON", plays(HEAD, event([1, 2]), close=True), "upstream_error", 3),
    ("wrong types", plays(HEAD, event({"choices": [{"delta": {"content": 7}}]}), close=True), "upstream_error", 3),
    (
        "an error event",
        plays(HEAD, event({"error": {"message": "CUDA", "code": 500}}), close=True),
        "upstream_error",
        3,
    ),
    ("only done", plays(HEAD, event(b"[DONE]"), b"0\r\n\r\n"), "upstream_error", 3),
]
ONLY: dict[bool, list[tuple[str, Play, str | None, int]]] = {
    False: [
        ("no such tool", plays(HEAD, call(0, "rm", "{}"), close=True), "output_mismatch", 2),
        ("call without a name", plays(HEAD, call(0), close=True), "upstream_error", 3),
    ],
    True: [
        ("no ids", plays(HEAD, event({"choices": [{"text": "So"}]}), close=True), "upstream_error", 3),
        ("unknown id", plays(HEAD, token(261), close=True), "upstream_error", 3),
        ("negative id", plays(HEAD, token(-1), close=True), "upstream_error", 3),
        ("huge id", plays(HEAD, token(1 << 70), close=True), "upstream_error", 3),
        ("text as an id", plays(HEAD, event({"choices": [{"token_ids": ["a"]}]}), close=True), "upstream_error", 3),
    ],
}
"""Answers that are faults in one form: chat completions, or tokens."""
# (name, rest of an answer whose first text has come, code of the response)
INSIDE: list[tuple[str, tuple[bytes, ...], bool, str]] = [
    ("cut", (), True, "upstream_error"),
    ("cut between events", (b"0\r\n\r\n",), False, "upstream_error"),
    ("garbage", (event(b"{nonsense"),), False, "upstream_error"),
    ("broken chunks", (b"xyz\r\n",), False, "upstream_error"),
    ("an error event", (event({"error": "out of memory"}),), False, "upstream_error"),
    ("busy", (event({"error": {"message": "preempted", "code": 503}}),), False, "upstream_busy"),
]
ONLY_INSIDE: dict[bool, list[tuple[str, tuple[bytes, ...], bool, str]]] = {
    False: [("no such tool", (call(0, "rm", "{}"),), False, "output_mismatch")],
    True: [("unknown id", (token(261),), False, "upstream_error")],
}


def both_forms(
    names: str, common: Sequence[tuple[Any, ...]], only: Mapping[bool, Sequence[tuple[Any, ...]]]
) -> pytest.MarkDecorator:
    """Parametrize by the cases of both forms, and by whether the form is that of tokens.

    Every third one of the common cases by tokens is fast, and all other cases.
    """
    cases = [
        pytest.param(
            *values,
            tokens,
            id=f"{'tokens' if tokens else 'chat'}: {name}",
            marks=[pytest.mark.slow] * (tokens and index < len(common) and index % 3 > 0),
        )
        for tokens, special in only.items()
        for index, (name, *values) in enumerate((*common, *special))
    ]
    return pytest.mark.parametrize((*names.split(", "), "tokens"), cases)


FORMS = pytest.mark.parametrize("tokens", [False, True], ids=["chat", "tokens"])


@both_forms("play, code, attempts", BEFORE, ONLY)
async def test_fault_before_the_first_delta_is_repeated_if_that_may_help(
    play: Play, code: str | None, attempts: int, tokens: bool
) -> None:
    fault = "upstream_refused" if code in (None, "context_length_exceeded") else code
    async with fronted(play, tokens=tokens) as front:
        response = (await post(front, model="m", input="Hi", stream=True)).events[-1]["response"]
        assert len(front.asked) == attempts
        whole = await post(front, model="m", input="Hi")
    assert (response["status"], response["responsed"]["fault"], response["output"]) == ("failed", fault, [])
    assert (whole.status >= 400, whole.json["error"]["code"]) == (True, code)
    assert len(front.asked) == 2 * attempts


@both_forms("rest, close, code", INSIDE, ONLY_INSIDE)
async def test_fault_after_the_first_delta_fails_the_response(
    rest: tuple[bytes, ...], close: bool, code: str, tokens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    play = plays(HEAD, SO_TOKENS if tokens else SO, *rest, close=close)
    async with fronted(play, tokens=tokens) as front:
        response = (await post(front, model="m", input="Hi", stream=True)).events[-1]["response"]
        whole = await post(front, model="m", input="Hi")
    assert (response["status"], response["responsed"]["fault"]) == ("failed", code)
    assert [item["status"] for item in response["output"]] == ["incomplete"]
    assert len(front.asked) == 2
    status, wait = (503, "1") if code == "upstream_busy" else (502, None)
    assert (whole.status, whole.json["error"]["code"], whole.headers.get("retry-after")) == (status, code, wait)
    assert [f" {mode} failed ({code}): " in caplog.text for mode in ("stream", "whole")] == [True, True]


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("before", [(), (HEAD,), (HEAD, b"so")], ids=["no head", "no text", "text"])
async def test_upstream_that_stalls_times_out(before: tuple[bytes, ...], tokens: bool) -> None:
    so = SO_TOKENS if tokens else SO
    play = plays(*(so if part == b"so" else part for part in before), math.inf)
    answers = dict[bool, Answer]()

    async def ask(stream: bool) -> None:
        answers[stream] = await post(front, model="m", input="Hi", stream=stream)

    async with fronted(play, timeouts=SHORT, tokens=tokens) as front, trio.open_nursery() as nursery:
        nursery.start_soon(ask, True)
        nursery.start_soon(ask, False)
    response, whole = answers[True].events[-1]["response"], answers[False]
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "upstream_timeout")
    assert (whole.status, whole.json["error"]["code"]) == (504, "upstream_timeout")
    assert len(front.asked) == 2


@pytest.mark.slow
@FORMS
async def test_answer_without_end_is_limited(tokens: bool) -> None:
    async def flood(stream: trio.SocketStream, asked: object) -> None:
        await stream.send_all(HEAD)
        while True:
            await stream.send_all(chunked(b"data: " + b"x" * 65_536))

    async with fronted(flood, tokens=tokens) as front:
        response = (await post(front, model="m", input="Hi", stream=True)).events[-1]["response"]
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "upstream_error")


@FORMS
async def test_repeated_end_is_one_end(tokens: bool) -> None:
    stop = token(256, finish="stop")
    twice = plays(HEAD, SO, delta("stop"), SO, delta("stop"), end())
    if tokens:
        twice = plays(HEAD, SO_TOKENS, stop, SO_TOKENS, stop, END_TOKENS)
    async with fronted(twice, tokens=tokens) as front:
        response = (await post(front, model="m", input="Hi", stream=True)).events[-1]["response"]
    assert (response["status"], response["output"][0]["content"][0]["text"]) == ("completed", "So")


@pytest.mark.slow
@FORMS
async def test_answer_is_complete_without_done(tokens: bool) -> None:
    """The usage is missing too: tokens are counted here, text is estimated."""
    parts = (SO_TOKENS, token(finish="stop")) if tokens else (SO, delta("stop"))
    async with fronted(plays(HEAD, *parts, b"0\r\n\r\n"), tokens=tokens) as front:
        response = (await post(front, model="m", input="Hi")).json
    assert (response["status"], response["usage"]["output_tokens"]) == ("completed", 3 if tokens else 1)


async def test_answer_with_too_many_tokens_is_cut() -> None:
    async with fronted(plays(HEAD, *[token(*b"abc")] * 9, END_TOKENS), tokens=True) as front:
        response = (await post(front, model="m", input="Hi", max_output_tokens=4)).json
    assert (response["status"], response["output"][0]["content"][0]["text"]) == ("incomplete", "abca")


async def test_client_that_leaves_ends_the_request_for_tokens() -> None:
    async with fronted(plays(HEAD, SO_TOKENS, math.inf), tokens=True) as front:
        async with await Client.to(front) as client:
            await client.create(model="m", input="Hi", stream=True)
            await client.head()
            await client.frame("response.output_text.delta")
        with trio.fail_after(5):
            await front.upstreams[0].left.wait()


async def test_grammar_that_the_upstream_refuses_is_enforced_here() -> None:
    format_ = {"format": {"type": "json_object"}}
    answers = [status(400), plays(HEAD, token(*b"}"), END_TOKENS)]
    async with fronted(*answers, tokens=True, has_grammars=True) as front:
        response = (await post(front, model="m", input="Hi", text=format_)).json
    assert (response["status"], response["output"][0]["content"][0]["text"]) == ("completed", "{}")
    grammars = [each.body.get("structured_outputs", {}).get("grammar", "")[:6] for each in front.asked]
    assert grammars == ["start:", ""]


async def test_complete_answer_is_not_continued_by_the_grammar() -> None:
    """A mask would lead a model that wants to end into another call."""
    tool = {"type": "function", "name": "go", "parameters": {"type": "object", "additionalProperties": False}}
    call_text = b'<tool_call>\n{"name": "go", "arguments": {}}\n</tool_call>'
    answers = [plays(HEAD, token(*call_text, *b"\n<tool_call>"), math.inf), plays(HEAD, token(*b"Well"), math.inf)]
    async with fronted(*answers, tokens=True, has_grammars=True) as front:
        response = (await post(front, model="m", input="Hi", tools=[tool], tool_choice="required")).json
    assert (response["status"], [item["name"] for item in response["output"]]) == ("completed", ["go"])
    assert len(front.asked) == 2


async def test_upstream_that_ignores_biases_breaks_the_grammar() -> None:
    format_ = {"format": {"type": "json_object"}}
    async with fronted(plays(HEAD, token(*b"Hi"), END_TOKENS), tokens=True) as front:
        response = (await post(front, model="m", input="Hi", text=format_, stream=True)).events[-1]["response"]
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "output_mismatch")
    assert len(front.asked) == 4, "each of two attempts asks for tokens, and for one among the allowed ones"


@pytest.mark.parametrize(
    ("play", "cause"),
    [
        (plays(close=True), "it closed the connection without an answer"),
        (plays(HEAD, close=True), "peer closed connection without sending complete message body"),
    ],
)
async def test_connection_that_closes_is_named(play: Play, cause: str) -> None:
    async with fronted(play) as front:
        message = (await post(front, model="m", input="Hi")).json["error"]["message"]
    began = f"The upstream {front.upstreams[0].url} ended its stream before the answer was complete ({cause}"
    assert message.startswith(began)


async def test_second_attempt_answers() -> None:
    async with fronted(status(500), plays(close=True), says("Hello")) as front:
        assert (await post(front, model="m", input="Hi", stream=True)).text == "Hello"
    assert len(front.asked) == 3


@pytest.mark.slow
async def test_other_upstream_answers_for_one_that_fails() -> None:
    async with fronted(status(502), others=[[says("Hello")]]) as front:
        texts = [(await post(front, model="m", input=f"Hi {n}")).text for n in range(8)]
    assert texts == ["Hello"] * 8
    assert [each.healthy for each in front.generator.replicas] == [not front.asked, True]


@pytest.mark.slow
async def test_refused_connection_goes_to_another_upstream() -> None:
    async with fronted(says("a"), others=[[says("b")]]) as front:
        gone = front.generator.replicas[0].client
        gone.address = msgspec.structs.replace(gone.address, port=1)
        texts = {(await post(front, model="m", input="Hi")).text for _ in range(8)}
    assert texts == {"b"}


async def test_closed_connection_is_replaced_without_an_attempt() -> None:
    closing = plays(HEAD, SO, end(), close=True)
    async with fronted(closing, closing, says("Hello")) as front:
        texts = [(await post(front, model="m", input="Hi")).text for _ in range(3)]
    assert (texts, sum(front.generator.replicas[0].errors.values())) == (["So", "So", "Hello"], 0)


async def test_busy_status_and_its_wait_reach_a_client_without_stream() -> None:
    async with fronted(status(429, b"{}", "Retry-After: 40")) as front:
        answer = await exchange(front, "POST", "/v1/responses", b'{"input":"Hi"}')
    assert (answer.status, answer.headers["retry-after"]) == (503, "40")


@pytest.mark.slow
async def test_jobs_beyond_the_slots_wait_for_one() -> None:
    async with fronted(plays(HEAD, SO, 0.02, end()), n_slots=1, timeouts=TIMEOUTS) as front:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: post(front, model="m", input="Hi"))
        assert (len(front.asked), front.upstreams[0].connections) == (3, 1)
