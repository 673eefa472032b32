"""`prompt_cache_options.prewarm` evaluates a prompt and generates nothing."""

from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from tests.support import wire
from tests.support.helpers import PATIENCE, Answer, encode, exchange, get, official_client, post, served

PREWARM = {"prompt_cache_options": {"prewarm": True}}
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}


def usage(response: dict[str, Any]) -> tuple[int, int, int]:
    """Return the input tokens, cached tokens and output tokens."""
    numbers = response["usage"]
    return numbers["input_tokens"], numbers["input_tokens_details"]["cached_tokens"], numbers["output_tokens"]


@pytest.mark.parametrize("stream", [False, True])
async def test_prewarm_completes_without_output_and_next_request_finds_its_prompt(stream: bool, tmp_path: Path) -> None:
    body = {"input": "Hello", "instructions": "Be brief. " * 5}
    async with served(state=tmp_path) as running:
        answer = await post(running, **body, **PREWARM, stream=stream, max_output_tokens=5)
        warmed = answer.events[-1]["response"] if stream else answer.json
        wire.check_response(warmed)
        if stream:
            assert [event["type"] for event in answer.events] == [
                "response.created",
                "response.in_progress",
                "response.completed",
            ]
        assert (await get(running, f"/v1/responses/{warmed['id']}")).json == warmed
        asked = (await post(running, **body)).json
        n = asked["usage"]["input_tokens"]
    assert (warmed["status"], warmed["output"], warmed["incomplete_details"]) == ("completed", [], None)
    assert warmed["prompt_cache_options"] == {"mode": "implicit", "ttl": "30m"}
    assert usage(warmed) == (n, 0, 0)
    assert usage(asked) == (n, n - 1, len("Hello") + 1)


BEGINNINGS: dict[str, dict[str, Any]] = {
    "instructions": {"instructions": "Be brief. " * 5},
    "tools": {"tools": [ADD]},
    "a format": {"instructions": "Be brief.", "text": {"format": {"type": "json_object"}}},
}


@pytest.mark.parametrize("body", BEGINNINGS.values(), ids=BEGINNINGS)
async def test_prewarm_without_input_evaluates_everything_before_the_user(body: dict[str, Any]) -> None:
    """All of it is in the prompt of any first message."""
    async with served(ScriptedModel(lambda message: b"{}")) as running:
        warmed = (await post(running, **body, **PREWARM, input=None)).json
        asked = (await post(running, **body, input="Hello")).json
    n = warmed["usage"]["input_tokens"]
    assert usage(warmed) == (n, 0, 0)
    assert usage(asked)[:2] == (n + len("Hello") + 1, n)


@pytest.mark.slow
async def test_prewarm_of_a_chain_evaluates_its_end(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        first = (await post(running, input="Hello")).json
        warmed = (await post(running, **PREWARM, input=None, previous_response_id=first["id"])).json
        asked = (await post(running, input="And?", previous_response_id=warmed["id"])).json
    assert (warmed["status"], warmed["output"]) == ("completed", [])
    assert usage(asked)[1] >= usage(warmed)[0] - 1  # all but the marker of the reply


async def test_prewarm_with_a_demanded_call_generates_none() -> None:
    async with served(ScriptedModel(lambda message: b"no call")) as running:
        warmed = (await post(running, input="Hello", tools=[ADD], tool_choice="required", **PREWARM)).json
    assert (warmed["status"], warmed["output"], usage(warmed)[2]) == ("completed", [], 0)


@pytest.mark.slow
async def test_prewarm_by_official_client_has_no_output() -> None:
    def ask(url: str) -> tuple[list[str], str, dict[str, Any]]:
        with official_client(url, timeout=PATIENCE) as client:
            with client.responses.stream(
                model="scripted", input="Hello", prompt_cache_options={"prewarm": True, "ttl": "30m"}
            ) as stream:
                types: list[str] = [event.type for event in stream]
                response = stream.get_final_response()
            assert response.usage is not None
            assert response.prompt_cache_options is not None
            return types, response.output_text, response.prompt_cache_options.to_dict()

    async with served() as running:
        types, text, options = await trio.to_thread.run_sync(ask, running.url)
    assert types == ["response.created", "response.in_progress", "response.completed"]
    assert (text, options) == ("", {"mode": "implicit", "ttl": "30m"})


CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    # Path, body, `param` of the 400 and a part of its message.
    "nothing to prewarm": ("responses", PREWARM, "input", "`input` is missing"),
    "another member": (
        "responses", {"input": "Hello", "prompt_cache_options": {"depth": 1}}, "prompt_cache_options", "`depth`",
    ),
    "another mode": (
        "responses", {"input": "Hello", "prompt_cache_options": {"mode": "off"}}, "prompt_cache_options.mode", "'off'",
    ),
    "another retention": (
        "responses", {"input": "Hello", "prompt_cache_retention": "1h"}, "prompt_cache_retention", "'1h'",
    ),
    "chat": ("chat/completions", CHAT | PREWARM, "prompt_cache_options", "`prewarm`"),
    "compact": (
        "responses/compact",
        {"model": "scripted", "input": "Hello"} | PREWARM,
        "prompt_cache_options.prewarm",
        "send it to /v1/responses",
    ),
    "compact: a comparison": (
        "responses/compact",
        {"model": "scripted", "input": "Hello", "prompt_cache_options": {"comparison_response_id": "resp_1"}},
        "prompt_cache_options.comparison_response_id",
        "send it to /v1/responses",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "part"), REFUSED.values(), ids=REFUSED)
async def test_unsupported_cache_option_is_refused_by_its_name(
    path: str, body: dict[str, Any], param: str, part: str
) -> None:
    async with served() as running:
        answer = await exchange(running, "POST", f"/v1/{path}", encode(**body))
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert part in error["message"]


async def test_explicit_mode_is_reported_as_without_effect() -> None:
    fields = {"prompt_cache_options": {"mode": "explicit"}}
    async with served() as running:
        answer: Answer = await post(running, input="Hello", **fields)
        chat = await exchange(running, "POST", "/v1/chat/completions", encode(**CHAT, **fields))
    assert answer.json["responsed"]["skipped"] == ["prompt_cache_options.mode"]
    assert chat.status == 200


KEEPING: dict[str, dict[str, Any]] = {
    "none": {},
    "ttl": {"prompt_cache_options": {"ttl": "30m"}},
    "retention": {"prompt_cache_retention": "24h"},
}


@pytest.mark.slow
@pytest.mark.parametrize("fields", KEEPING.values(), ids=KEEPING)
@pytest.mark.parametrize("chat", [False, True], ids=["responses", "chat"])
async def test_prompt_with_a_lifetime_outlives_others_in_the_cache(fields: dict[str, Any], chat: bool) -> None:
    async def ask(text: str, **more: Any) -> int:
        """Return the number of cached tokens."""
        if chat:
            body = encode(messages=[{"role": "user", "content": text}], **more)
            answer = await exchange(running, "POST", "/v1/chat/completions", body)
            return int(answer.json["usage"]["prompt_tokens_details"]["cached_tokens"])
        answer = await post(running, input=text, **more)
        assert answer.json.get("responsed", {}).get("skipped") is None
        return int(answer.json["usage"]["input_tokens_details"]["cached_tokens"])

    async with served(ScriptedModel(lambda message: b"ok", n_slots=1), cache_bytes=4000) as running:
        await ask("kept " * 40, **fields)
        for number in range(12):
            await ask(f"{number} others " * 20)
        cached = await ask("kept " * 40 + "?")
    assert (cached >= 200) is bool(fields)
