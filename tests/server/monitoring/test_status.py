"""`GET /status`: the state of the server at this moment."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from server.monitoring.status import ANSWERS, _memory
from server.monitoring.status_body import MemoryStatus
from tests.support.helpers import Client, PacedModel, encode, exchange, get, post, served

ANN = "ann-0123456789abcdef"
SECRET = "a secret word"


async def status(running: Any, *headers: str) -> dict[str, Any]:
    found: dict[str, Any] = (await exchange(running, "GET", "/status", None, *headers)).json
    return found


async def status_after(running: Any, tokens: int, *headers: str) -> dict[str, Any]:
    """Return the status once that many tokens are generated."""
    while (found := await status(running, *headers))["generated_tokens"] < tokens:
        await trio.lowlevel.checkpoint()
    return found


async def test_status_of_an_idle_server_has_no_streams() -> None:
    async with served() as running:
        answer = await get(running, "/status")
    found = answer.json
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")
    memory, uptime = found.pop("memory"), found.pop("uptime")
    assert (memory["rss"] > memory["file"] > 0, memory["model"], 0 < uptime < 60) == (True, 0, True)
    nothing = {"n": 0, "p50": None, "p95": None, "p99": None, "max": None}
    del found["cache"]["limit_bytes"]
    del found["cache"]["bytes"]  # the warm-up's tokens
    assert found == {
        "version": version("responsed"),
        "model": {"name": "scripted", "engine": "scripted", "n_ctx": 4096, "fallback": ""},
        "slots": 2,
        "running": 0,
        "waiting": 0,
        "queue_limit": 16,
        "generated_tokens": 0,
        "streams": [],
        "latency": {"seconds": 300, "bucket_seconds": 5, "ttft": nothing, "itl": nothing, "buckets": []},
        "cache": {
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "evicted_tokens": 0,
            "misses": {},
            "evictions": 0,
        },
        "store": None,
        "answers": [],
    }


@pytest.mark.slow
async def test_status_shows_a_stream_from_queue_to_end() -> None:
    model = PacedModel(n_slots=1)
    async with served(model, keys={"ann": ANN}) as running:
        key = f"Authorization: Bearer {ANN}"
        model.hold()
        async with await Client.to(running) as first, await Client.to(running) as second:
            for client, text in ((first, SECRET), (second, "x")):
                await client.request("POST", "/v1/responses", encode(input=text, stream=True), key)
                await client.created()
            await model.wait_begun(1)
            before = await status(running, key)
            for tokens in range(1, 5):  # one by one, so that each is an arrival
                model.allow(1)
                during = await status_after(running, tokens, key)
            model.go()
            await first.rest_of_stream()
            await second.rest_of_stream()
        await running.app.wait_idle()
        after = await status(running, key)
    assert [(each["state"], each["output_tokens"]) for each in before["streams"]] == [("prefill", 0), ("queued", 0)]
    one, two = during["streams"]
    assert (one["client"], one["route"], one["mode"], one["lane"]) == ("ann", "/v1/responses", "stream", "interactive")
    assert (one["state"], one["output_tokens"], len(one["gaps"])) == ("decode", 4, 3)
    assert (one["evaluated_tokens"], one["cached_tokens"]) == (one["prompt_tokens"], 0)
    assert 0 < one["ttft"] < one["seconds"]
    assert one["tokens_per_second"] > 0
    assert (two["state"], two["evaluated_tokens"], two["ttft"]) == ("queued", 0, None)
    assert (during["running"], during["waiting"], during["generated_tokens"]) == (1, 1, 4)
    assert (during["latency"]["ttft"]["n"], during["latency"]["itl"]["n"]) == (1, 3)
    answers = [(each["outcome"], each["output_tokens"], each["client"]) for each in after["answers"]]
    assert sorted(answers) == [("completed", 2, "ann"), ("completed", len(SECRET) + 1, "ann")]
    assert after["latency"]["itl"]["n"] >= 3
    assert (after["streams"], after["latency"]["ttft"]["n"]) == ([], 2)
    assert SECRET.encode() not in repr((before, during, after)).encode()


@pytest.mark.slow
async def test_status_names_why_the_cache_missed() -> None:
    async with served(ScriptedModel(n_slots=1), cache_bytes=0) as running:
        for text, key in (("Hello " * 9, "a"), ("Something else " * 9, "b"), ("Hello " * 9, "a")):
            await post(running, input=text, prompt_cache_key=key)
        await running.app.wait_idle()
        found = await status(running)
    assert [answer["cache_miss"] for answer in found["answers"]] == ["evicted", "", "first_prompt"]
    cache, answers = found["cache"], found["answers"]
    assert cache["misses"] == {"first_prompt": 1, "evicted": 1}
    assert cache["evicted_tokens"] == answers[0]["evicted_tokens"] > 0
    for name in ("prompt_tokens", "cached_tokens"):
        assert cache[name] == sum(answer[name] for answer in answers)


async def test_status_shows_no_id_that_opens_a_stored_response(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        response_id = (await post(running, input="Hi")).json["id"]
        await running.app.wait_idle()
        found = await status(running)
        assert (await get(running, f"/v1/responses/{found['answers'][0]['id']}")).status == 404
    assert response_id.startswith(found["answers"][0]["id"])
    assert found["store"] == {"entries": 1, "bytes": found["store"]["bytes"], "evictions": 0, "servers": 1}
    assert response_id not in repr(found)


@pytest.mark.slow
async def test_status_has_the_latest_answers_only() -> None:
    async with served() as running:
        for number in range(ANSWERS + 1):
            await post(running, input=f"{number}")
        await running.app.wait_idle()
        found = await status(running)
    assert len(found["answers"]) == ANSWERS
    assert [answer["age"] for answer in found["answers"]] == sorted(answer["age"] for answer in found["answers"])


async def test_status_needs_the_key_and_an_origin_of_its_own() -> None:
    async with served(keys={"ann": ANN}) as running:
        assert (await get(running, "/status")).status == 401
        key = f"Authorization: Bearer {ANN}"
        assert (await exchange(running, "GET", "/status", None, key, "Origin: http://evil.example")).status == 403


def test_memory_without_figures_of_the_kernel_is_zero(tmp_path: Path) -> None:
    assert _memory(7, tmp_path / "missing") == MemoryStatus(0, 0, 7)
