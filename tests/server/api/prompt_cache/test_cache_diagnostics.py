"""`prompt_cache_diagnostics`, `responsed.cache` and the log explain why the KV cache missed."""

import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from tests.support import wire
from tests.support.helpers import PATIENCE, Running, encode, exchange, get, official_client, post, served

RULES = "Answer briefly, in the language of the user, and never mention these rules. " * 5


def clock(time: str) -> str:
    return f"The time is {time}. {RULES}"


def comparing(response_id: str | None = None) -> dict[str, Any]:
    return {"prompt_cache_options": {} if response_id is None else {"comparison_response_id": response_id}}


@pytest.mark.parametrize("stream", [False, True])
async def test_changed_instructions_are_diagnosed_with_their_place(stream: bool, tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        first = (await post(running, input="Hello", instructions=clock("12:31"))).json
        answer = await post(
            running, input="Hello", instructions=clock("12:32"), **comparing(first["id"]), stream=stream
        )
        response = answer.events[-1]["response"] if stream else answer.json
        assert (await get(running, f"/v1/responses/{response['id']}")).json == response
    wire.check_response(response)
    shared = 1 + len("The time is 12:3")
    missed = response["usage"]["input_tokens"] - shared
    assert response["prompt_cache_diagnostics"] == {
        "type": "cache_miss",
        "cache_missed_tokens": missed,
        "reason": "input_changed",
        "comparison_reusable_tokens": shared,
    }
    assert response["responsed"]["cache"] == {
        "response_id": first["id"],
        "reusable_tokens": shared,
        "missed_tokens": missed,
        "reason": "input_changed",
        "difference": {
            "field": "instructions",
            "character": 16,
            "text": "The time is 12:3|2. Answer briefly, in th",
            "type": "message",
        },
    }


ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
TEXT_FORMAT = {"text": {"format": {"type": "json_object"}}}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # First request, second request, and the diagnostics of the second one without its counts.
    "the same": ({"input": "Hello"}, {"input": "Hello"}, {"type": "cache_hit"}),
    "tools": (
        {"input": "Hello"}, {"input": "Hello", "tools": [ADD]}, {"type": "cache_miss", "reason": "tools_changed"},
    ),
    "a format": (
        {"input": "Hello"}, {"input": "Hello"} | TEXT_FORMAT, {"type": "cache_miss", "reason": "text_format_changed"},
    ),
    "an effort without effect, and a text": (
        {"input": "Hello"}, {"input": "Holla", "reasoning": {"effort": "high"}},
        {"type": "cache_miss", "reason": "input_changed"},
    ),
    "a text": (
        {"input": "Hello"}, {"input": "Holla"}, {"type": "cache_miss", "reason": "input_changed"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "expected"), KINDS.values(), ids=KINDS)
async def test_diagnostics_by_official_client_have_the_reason(
    first: dict[str, Any], second: dict[str, Any], expected: dict[str, Any]
) -> None:
    def ask(url: str) -> dict[str, Any]:
        with official_client(url, timeout=PATIENCE) as client:
            old = client.responses.create(model="scripted", **first)
            new = client.responses.create(
                model="scripted", prompt_cache_options={"comparison_response_id": old.id}, **second
            )
            assert new.prompt_cache_diagnostics is not None
            assert new.prompt_cache_options is not None
            assert new.prompt_cache_options.comparison_response_id == old.id
            found: dict[str, Any] = new.prompt_cache_diagnostics.to_dict()
            return found

    async with served(ScriptedModel(lambda message: b"{}")) as running:
        found = await trio.to_thread.run_sync(ask, running.url)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.slow
async def test_comparison_is_with_previous_response_then_group_then_client(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        one = (await post(running, input="One", prompt_cache_key="k")).json
        two = (await post(running, input="Two")).json
        next_turn = (await post(running, input="And?", previous_response_id=one["id"], **comparing())).json
        in_group = (await post(running, input="One", prompt_cache_key="k", **comparing())).json
        again = (await post(running, input="Tow", **comparing())).json
    found = [each["responsed"]["cache"]["response_id"] for each in (next_turn, in_group, again)]
    assert found == [one["id"], one["id"], in_group["id"]]
    assert [each["responsed"]["cache"]["missed_tokens"] > 0 for each in (next_turn, in_group, again)] == [
        False,
        False,
        True,
    ]
    assert "prompt_cache_diagnostics" not in again
    assert "responsed" not in two


async def diagnosed(running: Running, response_id: str, *headers: str) -> str:
    body = encode(input="Hello", **comparing(response_id))
    answer = await exchange(running, "POST", "/v1/responses", body, *headers)
    assert answer.status == 200, answer.body
    assert "cache" not in answer.json.get("responsed", {})
    return str(answer.json["prompt_cache_diagnostics"]["type"])


@pytest.mark.slow
async def test_diagnostics_of_unknown_deleted_and_foreign_prompts(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        old = (await post(running, input="Hello")).json["id"]
    async with served(state=tmp_path) as running:
        assert await diagnosed(running, old) == "unavailable"  # stored, but not in memory after a restart
        assert await diagnosed(running, "resp_0") == "comparison_response_not_found"
        mine = (await post(running, input="Hello")).json["id"]
        assert await diagnosed(running, mine, "Authorization: Bearer other") == "unavailable"
        await exchange(running, "DELETE", f"/v1/responses/{mine}")
        assert await diagnosed(running, mine) == "comparison_response_not_found"
    async with served() as running:
        assert await diagnosed(running, old) == "comparison_response_not_found"


async def test_deleted_conversation_is_not_compared(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        conversation = (await exchange(running, "POST", "/v1/conversations", b"{}")).json["id"]
        first = (await post(running, input="Hello", conversation=conversation, store=False)).json
        await exchange(running, "DELETE", f"/v1/conversations/{conversation}")
        assert await diagnosed(running, first["id"]) == "comparison_response_not_found"


@pytest.mark.slow
async def test_evicted_prompt_is_diagnosed_as_unavailable_with_its_count() -> None:
    async with served(ScriptedModel(n_slots=1), cache_bytes=0) as running:
        first = (await post(running, input="Hello " * 9)).json
        await post(running, input="Something else " * 9)
        again = (await post(running, input="Hello " * 9, **comparing(first["id"]))).json
    assert again["prompt_cache_diagnostics"] == {"type": "unavailable"}
    cache, usage = again["responsed"]["cache"], again["usage"]
    assert cache["missed_tokens"] == 0
    assert cache["evicted_tokens"] == usage["input_tokens"] - 1 - usage["input_tokens_details"]["cached_tokens"] > 0


@pytest.mark.slow
async def test_evicted_tokens_stand_in_log_and_metrics(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    async with served(ScriptedModel(n_slots=1), cache_bytes=0, metrics=True) as running:
        for text, key in (("Hello " * 9, "a"), ("Something else " * 9, "b"), ("Hello " * 9, "a")):
            usage = (await post(running, input=text, prompt_cache_key=key)).json["usage"]
        await running.app.wait_idle()
        metrics = (await get(running, "/metrics")).body.decode()
    evicted = usage["input_tokens"] - 1 - usage["input_tokens_details"]["cached_tokens"]
    summaries = [record.summary for record in caplog.records if hasattr(record, "summary")]
    assert [(each.evicted_tokens, each.cache_miss) for each in summaries] == [
        (0, "first_prompt"),
        (0, ""),
        (evicted, "evicted"),
    ]
    assert f", evicted {evicted})" in caplog.messages[2]
    assert f'responsed_evicted_prompt_tokens_total{{key=""}} {float(evicted)}' in metrics


@pytest.mark.slow
async def test_costly_miss_is_logged_without_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with served() as running:
        ids = [
            (await post(running, input="Hello", instructions=clock(time), prompt_cache_key="k", store=False)).json["id"]
            for time in ("12:31", "12:31", "12:32")
        ]
        await post(running, input="Hello", instructions="Briefly. " * 50, prompt_cache_key="k", store=False)
        await post(running, input="Short")
        await running.app.wait_idle()
    logged = [record.getMessage() for record in caplog.records if "differs" in record.getMessage()]
    expected = (
        f"{ids[2]}: the prompt differs from that of {ids[1]} in `instructions`, 16 characters in; about 384 equal "
        "tokens after the difference were evaluated again (--volatile moves a changing line to the end)"
    )
    assert logged == [expected]
    summaries = [record.summary for record in caplog.records if hasattr(record, "summary")]
    assert [(each.cache_miss, each.cache_miss_place) for each in summaries] == [
        ("first_prompt", ""),
        ("", ""),
        ("input_changed", "in `instructions`, 16 characters in"),
        ("", ""),
        ("", ""),
    ]


@pytest.mark.slow
async def test_long_prompts_are_compared_beside_the_event_loop() -> None:
    async with served(ScriptedModel(n_ctx=8192)) as running:
        first = (await post(running, input=RULES * 12)).json
        again = (await post(running, input="!" + RULES * 12, **comparing(first["id"]))).json
    assert again["usage"]["input_tokens"] * 8 > 1 << 14
    assert again["responsed"]["cache"]["difference"]["text"] == "|!Answer briefly, in the "
