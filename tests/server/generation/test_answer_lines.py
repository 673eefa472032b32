"""Lines of the log: exactly one for each answer and each refusal, whatever its outcome."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing

from engine.backends.scripted import echo
from engine.model import ModelError
from tests.support.helpers import Client, PacedModel, Running, encode, exchange, post, served

Play: TypeAlias = Callable[[Running, PacedModel], Awaitable[Any]]

RESPONSES = "127.0.0.1 /v1/responses"
SCHEMA = {"type": "object", "properties": {"key": {"const": "value"}}, "required": ["key"]}


async def completed(running: Running, model: PacedModel) -> None:
    await post(running, input="Hi")
    await post(running, input="Hi", stream=True)
    await post(running, input="Hi", service_tier="flex")


async def incomplete(running: Running, model: PacedModel) -> None:
    await post(running, input="Hi!", max_output_tokens=1)


async def failed(running: Running, model: PacedModel) -> None:
    await post(running, input="fail")
    await post(running, input="fail", stream=True)


async def background(running: Running, model: PacedModel) -> None:
    await post(running, input="Hi", background=True)


async def cancelled(running: Running, model: PacedModel) -> None:
    model.hold()
    response = (await post(running, input="Hi", background=True)).json
    await model.wait_begun(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange, running, "POST", f"/v1/responses/{response['id']}/cancel", b"{}")
        await trio.testing.wait_all_tasks_blocked(0.01)
        model.go()


async def deleted(running: Running, model: PacedModel) -> None:
    model.hold()
    response = (await post(running, input="Hi", background=True)).json
    await model.wait_begun(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange, running, "DELETE", f"/v1/responses/{response['id']}")
        await trio.testing.wait_all_tasks_blocked(0.01)
        model.go()


async def hang_up(running: Running, model: PacedModel) -> None:
    await leave(running, model, stream=False)


async def stream_hang_up(running: Running, model: PacedModel) -> None:
    await leave(running, model, stream=True)


async def leave(running: Running, model: PacedModel, stream: bool) -> None:
    """Hang up during the first step."""
    model.hold()
    async with await Client.to(running) as client:
        await client.create(input="Hi", stream=stream)
        await model.wait_begun(1)
    await trio.testing.wait_all_tasks_blocked(0.02)
    model.go()


async def queued_hang_up(running: Running, model: PacedModel) -> None:
    model.hold()
    async with await Client.to(running) as client:
        await client.create(input="Hi")
        await model.wait_begun(1)
        async with await Client.to(running) as leaving:
            await leaving.create(input="Hi", stream=True)
            await trio.testing.wait_all_tasks_blocked(0.02)
        await trio.testing.wait_all_tasks_blocked(0.02)
        model.go()
        await client.answer()


async def refused(running: Running, model: PacedModel) -> None:
    model.hold()
    async with await Client.to(running) as client, await Client.to(running) as second:
        await client.create(input="Hi")
        await model.wait_begun(1)
        await second.create(input="Hi")
        await trio.testing.wait_all_tasks_blocked(0.02)
        await post(running, input="Hi")
        model.go()
        await client.answer()
        await second.answer()


async def wrong(running: Running, model: PacedModel) -> None:
    await post(running, input="Hi", temperature="hot")
    await exchange(running, "POST", "/v1/responses", b"{")
    await exchange(running, "PUT", "/v1/responses", b"{}")
    await exchange(running, "GET", "/health")
    await exchange(running, "GET", "/v1/models/other")


async def shut_down(running: Running, model: PacedModel) -> None:
    model.hold()
    async with await Client.to(running) as client, await Client.to(running) as second:
        await client.create(input="Hi", stream=True)
        await model.wait_begun(1)
        await second.create(input="Hi")
        await trio.testing.wait_all_tasks_blocked(0.02)
        running.app.stop_admitting()
        await second.answer()
        running.app.stop()
        await client.head()
        await client.rest_of_stream()
        model.go()
        await post(running, input="Hi")


NONE, ALL = "first token none, in 0 (cached C), out 0", "first token T, in 4 (cached C), out"
LINES: list[tuple[Play, list[str]]] = [
    (
        completed,
        [
            f"{RESPONSES} stream completed: queue T, {ALL} 3",
            f"{RESPONSES} whole batch completed: queue T, {ALL} 3",
            f"{RESPONSES} whole completed: queue T, {ALL} 3",
        ],
    ),
    (incomplete, [f"{RESPONSES} whole incomplete (max_output_tokens): queue T, {ALL.replace('4', '5')} 1"]),
    (
        failed,
        [
            f"{RESPONSES} {mode} failed (server_error): queue T, first token none, in 0 (cached C), out 0"
            for mode in ("stream", "whole")
        ],
    ),
    (background, [f"{RESPONSES} background batch completed: queue T, {ALL} 3"]),
    (
        cancelled,
        [
            "127.0.0.1 POST /v1/responses/ID/cancel 200",
            f"{RESPONSES} background batch cancelled (requested): queue T, {NONE}",
        ],
    ),
    (
        deleted,
        [
            "127.0.0.1 DELETE /v1/responses/ID 200",
            f"{RESPONSES} background batch cancelled (deleted): queue T, {NONE}",
        ],
    ),
    (hang_up, [f"{RESPONSES} whole cancelled (client disconnected): queue T, {NONE}"]),
    (stream_hang_up, [f"{RESPONSES} stream cancelled (client disconnected): queue T, {NONE}"]),
    (
        queued_hang_up,
        [
            f"{RESPONSES} stream cancelled (client disconnected): queue T, {NONE}",
            f"{RESPONSES} whole completed: queue T, {ALL} 3",
        ],
    ),
    (
        refused,
        ["127.0.0.1 POST /v1/responses 503 queue_full", *[f"{RESPONSES} whole completed: queue T, {ALL} 3"] * 2],
    ),
    (
        wrong,
        [
            "127.0.0.1 GET /v1/models/other 404 model_not_found ('model')",
            "127.0.0.1 POST /v1/responses 400 invalid_request_error",
            "127.0.0.1 POST /v1/responses 400 invalid_request_error ('temperature')",
            "127.0.0.1 PUT /v1/responses 405 method_not_allowed",
        ],
    ),
    (
        shut_down,
        [
            "127.0.0.1 POST /v1/responses 503 shutting_down",
            f"{RESPONSES} stream failed (shutting_down): queue T, {NONE}",
            f"{RESPONSES} whole failed (shutting_down): queue T, {NONE}",
        ],
    ),
]


def reply(message: bytes) -> bytes:
    if message == b"fail":
        raise ModelError("the script says so")
    return echo(message)


def normal(line: str) -> str:
    """Return a line without its identifiers and figures of time."""
    line = re.sub(r"^(resp_\w+ )?req_\w+ ", "", line)
    line = re.sub(r"resp_\w+", "ID", line)
    line = re.sub(r"(queue|first token) \d+ ms", r"\1 T", line)
    return re.sub(r"(, \d+\.\d tokens/s)?,? \d+(\.\d)? ms$", "", re.sub(r"cached \d+", "cached C", line))


@pytest.mark.parametrize(("play", "lines"), LINES, ids=[play.__name__ for play, _ in LINES])
async def test_answer_or_refusal_has_one_line(
    play: Play, lines: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "responsed.http")
    model = PacedModel(reply, n_slots=1)
    async with served(model, state=tmp_path, queue=1) as running:
        await play(running, model)
        await running.app.wait_idle()
    found = [normal(record.getMessage()) for record in caplog.records if record.name == "responsed.http"]
    assert sorted(found) == sorted(lines)


SECRETS = ("What is my PIN?", "Tell nobody", "4711", "ann-0123456789abcdef")
"""Input, instructions, output and key."""


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_content_is_logged_only_if_the_operator_wants_it(
    stored: bool, stream: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    question, instructions, output, key = SECRETS
    fields = {"input": question, "instructions": instructions, "store": stored, "stream": stream}
    found = []
    for wanted in (False, True):
        caplog.clear()
        model = PacedModel(lambda prompt: output.encode())
        async with served(model, state=tmp_path, keys={"ann": key}, log_content=wanted) as running:
            await exchange(running, "POST", "/v1/responses", encode(**fields), f"Authorization: Bearer {key}")
            await running.app.wait_idle()
        found.append([secret in caplog.text for secret in SECRETS])
    assert found == [[False] * 4, [True, True, True, False]]
    (line,) = [record.getMessage() for record in caplog.records if " content: " in record.getMessage()]
    content = json.loads(line.partition(" content: ")[2])
    assert content["instructions"] == instructions
    assert content["input"][0]["content"][0]["text"] == question
    assert content["output"][0]["content"][0]["text"] == output
