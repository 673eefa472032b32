"""Bodies: lone surrogates, byte order marks, and their memory."""

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from server.http.bodies import Bodies, clean
from server.protocol.errors import InvalidRequest
from server.work_thread.work_thread import WorkThread
from tests.support.helpers import Client, encode, exchange, post, request, served

SURROGATES = [
    (rb"log: \ud83d", "log: \ufffd"),
    (rb"\ud83d\ude00", "\U0001f600"),
    (rb"\uD83D\uDE00", "\U0001f600"),
    (rb"\ude00", "\ufffd"),
    (rb"\ude00\ud83d", "\ufffd\ufffd"),
    (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    (rb"\ud83dx\ude00", "\ufffdx\ufffd"),
    (rb"\ud83d\n\ude00", "\ufffd\n\ufffd"),
    (rb"\\ud83d", "\\ud83d"),
    (rb"\\\ud83d", "\\\ufffd"),
    (rb"\\\\ud83d", "\\\\ud83d"),
    (rb"\ud83d\\ude00", "\ufffd\\ude00"),
    (rb"\ud7ff\ue000", "\ud7ff\ue000"),
]


@pytest.mark.parametrize(("escaped", "text"), SURROGATES)
def test_body_with_a_lone_surrogate_is_read_as_a_replacement_character(escaped: bytes, text: str) -> None:
    body = b'{"' + escaped + b'": ["' + escaped + b'"]}'
    assert json.loads(clean(body)) == {text: [text]}


@given(st.text(st.sampled_from('\ud83d\ude00\\a\n\U0001f600"')))
def test_body_with_any_surrogates_reads_as_utf_16_with_replacements(text: str) -> None:
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert json.loads(clean(json.dumps([text]).encode())) == [expected]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_server_with_a_lone_surrogate_anywhere_answers(path: str) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    body = (
        b'{"model": "scripted", "\\udfff": "\\ud800", "' + field.encode() + b'": [{"role": "user", "content": '
        b'[{"type": "' + (b"input_text" if field == "input" else b"text") + b'", "text": "a\\ud83d"}]}]}'
    )
    async with served() as running:
        answer = await exchange(running, "POST", path, body)
    assert answer.status == 200
    assert "a\ufffd" in json.dumps(answer.json, ensure_ascii=False)


async def test_bodies_together_are_bounded_and_their_memory_comes_back() -> None:
    async with served(max_body_megabytes=0.01) as running:
        async with await Client.to(running) as first, await Client.to(running) as second:
            for client in (first, second):
                await client.send(request("POST", "/v1/responses", None, "Content-Length: 9000") + b" " * 8999)
            await trio.testing.wait_all_tasks_blocked(0.01)
            refused = await exchange(running, "POST", "/v1/responses", b" " * 9000)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        await running.app.wait_idle()
        assert (await post(running, input="Hi")).text == "Hi"
        assert (await exchange(running, "POST", "/v1/responses", b" " * 9000)).status == 400


async def test_bodies_that_are_only_announced_are_in_nobodys_way() -> None:
    async with served(max_body_megabytes=0.01) as running, AsyncExitStack() as stack:
        for _ in range(5):
            client = await stack.enter_async_context(await Client.to(running))
            await client.send(request("POST", "/v1/responses", None, "Content-Length: 10000") + b"{")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await post(running, input="Hi")).text == "Hi"


PATHS = ["/v1/responses", "/v1/chat/completions", "/v1/completions", "/v1/responses/compact", "/v1/conversations"]


@pytest.mark.parametrize("path", PATHS)
async def test_body_that_is_nested_too_deeply_gets_an_error_of_its_own(path: str) -> None:
    async with served(max_json_depth=8) as running:
        bodies = [b'{"metadata": ' + b"[" * depth + b"]" * depth + b"}" for depth in (7, 8, 500_000)]
        found = [(await exchange(running, "POST", path, body)).json["error"] for body in bodies]
    assert [each["code"] == "json_too_deep" for each in found] == [False, True, True]
    assert found[1]["message"] == (
        "The body is nested deeper than 8 levels; flatten it, or raise the limit with --max-json-depth."
    )


NESTED: list[dict[str, Any]] = [
    {"chat_template_kwargs": {"x": "DEEP"}},
    {"metadata": {"x": "DEEP"}},
    {"unknown": "DEEP"},
    {"tools": [{"type": "function", "name": "f", "parameters": "DEEP"}]},
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": "DEEP"}}},
    {"input": [{"role": "user", "content": "DEEP"}]},
    {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "DEEP"}]},
    {"input": [{"type": "web_search_call", "id": "w", "status": "completed", "action": "DEEP"}]},
    {"prompt": "DEEP"},
    {"tool_choice": "DEEP"},
]


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"properties":{"a":'])
@pytest.mark.parametrize("fields", NESTED)
async def test_body_at_the_largest_depth_is_answered_or_refused(fields: dict[str, Any], opening: str) -> None:
    levels = 248 // opening.count("{") if "{" in opening else 248
    deep = (
        opening * levels
        + "0"
        + opening.replace('"a":', "").replace('"properties":', "").translate(str.maketrans("[{", "]}")) * levels
    )
    body = encode(**{"input": "Hi", "max_output_tokens": 16, **fields}).replace(b'"DEEP"', deep.encode())
    async with served(max_json_depth=256) as running:
        answer = await exchange(running, "POST", "/v1/responses", body)
    assert answer.status in (200, 400), answer.body
    assert b"json_too_deep" not in answer.body


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 300_000, '{"a":' * 100_000, '{"a":' * 100_000 + "0" + "}" * 100_000])
async def test_json_inside_a_text_may_be_nested_at_will(text: str) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": text}
    output = {"type": "function_call_output", "call_id": "c", "output": text}
    items = [{"role": "user", "content": text}, call, output]
    async with served() as running:
        answers = [await post(running, input=items[:n], truncation="auto") for n in (1, 2, 3)]
    assert [answer.status in (200, 400) for answer in answers] == [True] * 3, [answer.body[:200] for answer in answers]


async def test_message_of_a_websocket_has_the_limit_of_nesting() -> None:
    bodies = Bodies(1000, 1.0, WorkThread(), max_depth=8)
    assert await bodies.cleaned(b"[" * 8 + b"]" * 8) == b"[" * 8 + b"]" * 8
    with pytest.raises(InvalidRequest, match="nested deeper than 8 levels"):
        await bodies.cleaned(b"[" * 9 + b"]" * 9)
