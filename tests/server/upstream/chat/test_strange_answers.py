"""Answers that no good upstream sends: each response has its one end with the cause, and the server goes on."""

import json
import logging
from typing import Any

import pytest

from tests.server.upstream.scripted_upstream import (
    HEAD,
    LAST,
    Play,
    call,
    chunked,
    delta,
    end,
    event,
    fronted,
    plays,
    token,
)
from tests.server.upstream.test_front import WEATHER
from tests.server.upstream.test_probe import answers, capable, found
from tests.support.helpers import post

DEEP = b"[" * 100_000 + b"]" * 100_000
SO = delta(content="So")
BROKEN = "does not answer as its API requires: "
CHUNK = BROKEN + "an event is not a chunk of a chat completion "
TOO_DEEP = "(it is nested deeper than 64 levels)"


def reads(*parts: bytes) -> Play:
    """Return an answer of these parts and the end of its body."""
    return plays(HEAD, *parts, LAST)


def plain(body: bytes) -> Play:
    return reads(chunked(body))


def lines(ends: bytes, *before: bytes) -> Play:
    """Return the answer "So" in lines that end with these bytes."""
    chunks = [json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}) for delta, finish in PARTS]
    return plain(b"".join([*before, *(b"data: %b%b%b" % (each.encode(), ends, ends) for each in chunks)]))


PARTS: list[tuple[dict[str, str], str | None]] = [({"content": "S"}, None), ({"content": "o"}, None), ({}, "stop")]


def counted(prompt: object, completion: object) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


def choice(**fields: Any) -> bytes:
    return event({"choices": [fields]})


def called(index: int, id_: str, arguments: str) -> bytes:
    function = {"name": "weather", "arguments": arguments}
    return delta(tool_calls=[{"index": index, "id": id_, "type": "function", "function": function}])


# (name, answer, output, tokens of the prompt and of the answer)
READ: list[tuple[str, Play, list[str], tuple[int, int]]] = [
    ("byte order mark", lines(b"\n", b"\xef\xbb\xbf"), ["So"], (33, 2)),
    ("CR", lines(b"\r"), ["So"], (33, 2)),
    ("CR LF", lines(b"\r\n"), ["So"], (33, 2)),
    ("other fields", lines(b"\n", b": hi\n\nretry: 5\n\nid: 4\nevent: foo\n"), ["So"], (33, 2)),
    ("events without data", lines(b"\n", b"data:\n\ndata\n\ndata: \n\n"), ["So"], (33, 2)),
    ("an unknown event", lines(b"\n", b'event: ping\ndata: {"type":"ping"}\n\n'), ["So"], (33, 2)),
    ("blanks around the mark of the end", reads(SO, delta("stop"), event(b" [DONE] ")), ["So"], (33, 1)),
    ("null everywhere", reads(event({"choices": None, "usage": None}), choice(delta=None), SO, end()), ["So"], (9, 3)),
    ("negative counts", reads(SO, counted(-5, -7), delta("stop")), ["So"], (33, 1)),
    ("huge counts", reads(SO, counted(1 << 100, 1 << 63), delta("stop")), ["So"], (33, 1)),
    ("counts of null", reads(SO, counted(None, None), delta("stop")), ["So"], (33, 1)),
    ("an empty finish_reason", reads(delta("", content="S"), delta("", content="o"), delta("stop")), ["So"], (33, 2)),
    ("an unknown finish_reason", reads(SO, delta("eos")), ["So"], (33, 1)),
    (
        "a second choice",
        reads(choice(index=1, delta={"content": "No"}, finish_reason="stop"), SO, end()),
        ["So"],
        (9, 3),
    ),
    ("a refusal", reads(delta(refusal="I will"), delta(refusal=" not."), end()), ["I will not."], (9, 3)),
    ("a field of 64 levels", reads(event(b'{"x":%b}' % (b"[" * 63 + b"]" * 63)), SO, end()), ["So"], (9, 3)),
    ("NUL", reads(delta(content="S\0o"), end()), ["S\0o"], (9, 3)),
    ("calls of one index", reads(called(0, "a", "{}"), called(0, "b", "[]"), end()), ["{}", "[]"], (9, 3)),
    ("calls in reverse", reads(called(1, "a", "{}"), called(0, "b", "[]"), end()), ["{}", "[]"], (9, 3)),
    ("a name in each part", reads(called(0, "a", "{"), called(0, "a", "}"), end()), ["{}"], (9, 3)),
    ("text after a call", reads(called(0, "a", "{}"), SO, call(0), end()), ["{}", "So"], (9, 3)),
]
# (name, answer, cause)
REFUSED: list[tuple[str, Play, str]] = [
    ("a deep error", reads(event(b'{"error":%b}' % DEEP)), CHUNK + TOO_DEEP),
    ("a deep unknown field", reads(event(b'{"x":%b}' % DEEP)), CHUNK + TOO_DEEP),
    ("a field of 65 levels", reads(event(b'{"x":%b}' % (b"[" * 64 + b"]" * 64))), CHUNK + TOO_DEEP),
    ("no UTF-8", reads(event(b'{"choices":[{"delta":{"content":"\xff"}}]}')), CHUNK + "('utf-8' codec can't decode"),
    ("half a surrogate", reads(event(b'{"choices":[{"delta":{"content":"\\ud83d"}}]}')), CHUNK),
    ("abort", reads(SO, delta("abort")), "ended its stream before the answer was complete (finish_reason 'abort')"),
    (
        "an error of vLLM",
        reads(event({"object": "error", "message": "no", "code": 500})),
        "answered with status 500: no",
    ),
    ("a huge code", reads(event({"error": {"message": "no", "code": 10**40}})), "answered with status 500: no"),
    ("a code of true", reads(event({"error": {"message": "no", "code": True}})), "answered with status 500: no"),
    ("a function_call", reads(delta(function_call={"name": "f"})), BROKEN + "it calls by `function_call`"),
    (
        "mixed calls",
        reads(called(0, "a", "{"), called(1, "b", "{}"), call(0, None, "}")),
        BROKEN + "it continues a call",
    ),
]


@pytest.mark.parametrize(("play", "output", "tokens"), [pytest.param(*case, id=name) for name, *case in READ])
async def test_strange_answer_is_read(play: Play, output: list[str], tokens: tuple[int, int]) -> None:
    async with fronted(play, metrics=True) as front:
        response = (await post(front, model="m", input="Hi", tools=[WEATHER], stream=True)).events[-1]["response"]
        whole = (await post(front, model="m", input="Hi", tools=[WEATHER])).json
    found = [item.get("arguments") or item["content"][0]["text"] for item in response["output"]]
    assert (response["status"], found) == ("completed", output)
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == tokens


@pytest.mark.parametrize(("play", "cause"), [pytest.param(*case, id=name) for name, *case in REFUSED])
async def test_broken_answer_ends_with_its_cause(play: Play, cause: str, caplog: pytest.LogCaptureFixture) -> None:
    async with fronted(play) as front:
        response = (await post(front, model="m", input="Hi", tools=[WEATHER], stream=True)).events[-1]["response"]
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "upstream_error")
    assert cause in response["error"]["message"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_answer_is_limited_by_the_text_that_its_tokens_can_have() -> None:
    """Otherwise 64 MB of each answer would be kept."""
    async with fronted(reads(delta(content="x" * 40_000), delta(content="x" * 40_000), end())) as front:
        answer = await post(front, model="m", input="Hi", max_output_tokens=2)
    assert answer.json["error"]["message"].endswith(f"{BROKEN}2 tokens have no 80000 characters.")


NEGATIVE = event({"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": -5}}})
SECOND = event({"choices": [{"index": 1, "token_ids": [65], "finish_reason": "stop"}]})
DEEP_PART = event(b'{"x":%b}' % DEEP)


@pytest.mark.parametrize(
    ("parts", "ends"),
    [
        ((token(*b"So"), NEGATIVE, token(256, finish="stop")), ("completed", None)),
        ((token(*b"So"), DEEP_PART), ("failed", "upstream_error")),
        ((token(*b"So"), token(finish="abort")), ("failed", "upstream_error")),
        ((token(*b"So"), SECOND, token(256, finish="stop")), ("completed", None)),
    ],
)
async def test_strange_tokens_have_one_end(parts: tuple[bytes, ...], ends: tuple[str, str | None]) -> None:
    async with fronted(reads(*parts), tokens=True, metrics=True) as front:
        response = (await post(front, model="m", input="Hi", stream=True)).events[-1]["response"]
    assert (response["status"], response.get("responsed", {}).get("fault")) == ends
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert response["output"][0]["content"][0]["text"] == "So"


NO_LIST = "does not list its models as OpenAI's API does"
# (list of models, context, error)
LISTS: list[tuple[bytes, int, str]] = [
    (b'{"data":[{"id":"m","created":null,"owned_by":null,"max_model_len":9}]}', 9, ""),
    (b'{"data":[{"id":"m","max_model_len":-5,"context_length":7}]}', 7, ""),
    (b'{"data":[{"id":"m","max_model_len":%d}]}' % (1 << 70), 0, ""),
    (b'{"data":[{"id":"m","x":%b}]}' % DEEP, 0, NO_LIST),
    (b'{"data":[{"id":"\xff"}]}', 0, NO_LIST),
    (b'{"data":null}', 0, NO_LIST),
    (b'{"data":[]}', 0, "has no model."),
    (b'{"data":[{"id":""},{"id":"a\\n\\u001b[31m"},{"id":"%b"}]}' % (b"m" * 1000), 0, "has no model."),
]


@pytest.mark.parametrize(("models", "n_ctx", "error"), LISTS, ids=range(len(LISTS)))
async def test_strange_list_of_models_ends_neither_the_start_nor_the_server(
    models: bytes, n_ctx: int, error: str
) -> None:
    one = await found(answers(capable), models)
    assert (one.n_ctx, error in one.error, bool(one.error)) == (n_ctx, True, bool(error))
