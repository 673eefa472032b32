"""A client that hangs up ends its work within a step, whatever its request waits for, and however it leaves."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from _pytest.mark import ParameterSet

from tests.support.helpers import PATIENCE, Client, PacedModel, Running, encode, post, served

LEAVER = "z"
"""Letter of the texts of the client that leaves, so that its tokens can be counted."""
SLOW_CHARACTERS = 70_000
"""Characters of a prompt that is tokenized in a thread."""

WAYS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "FIN": lambda client: client.__aexit__(),
    "RST": Client.reset,
    "half-close": Client.half_close,
}

SAMPLED_WAYS = [way if way == "FIN" else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "stored stream": ("/v1/responses", {"stream": True}),
    "unstored stream": ("/v1/responses", {"stream": True, "store": False}),
    "stored": ("/v1/responses", {}),
    "unstored": ("/v1/responses", {"store": False}),
    "chat stream": ("/v1/chat/completions", {"stream": True}),
    "chat": ("/v1/chat/completions", {}),
    "text stream": ("/v1/completions", {"stream": True, "max_tokens": 1000}),
    "text": ("/v1/completions", {"max_tokens": 1000}),
    "compact": ("/v1/responses/compact", {}),
}

# state -> the characters of the prompt, and the decodes that are finished when the client leaves.
STATES = {
    "prompt begun": (300, 0),
    "prompt partly evaluated": (300, 1),
    "first token awaited": (1, 0),
    "some tokens read": (1, 5),
}


def repeated(message: bytes) -> bytes:
    """Reply to the leaving client without an end, and to others with their message."""
    return message * 500 if message.startswith(LEAVER.encode()) else message


def body(path: str, fields: dict[str, Any], characters: int) -> bytes:
    text = LEAVER * characters
    if path == "/v1/chat/completions":
        return encode(messages=[{"role": "user", "content": text}], **fields)
    if path == "/v1/completions":
        return encode(prompt=f"<|user|>{text}<|assistant|>", **fields)
    return encode(input=text, **fields)


def evaluated(model: PacedModel) -> int:
    """Return the number of decodes with tokens of the client that leaves."""
    return sum(ord(LEAVER) in entry.tokens for entry in model.decoded)


def stored_statuses(state: Path) -> list[str]:
    with closing(sqlite3.connect(state / "responses.db")) as database:
        return [status for (status,) in database.execute("SELECT status FROM responses")]


@asynccontextmanager
async def one_slot(state: Path, **options: Any) -> AsyncIterator[tuple[Running, PacedModel]]:
    model = PacedModel(repeated, n_slots=1, **options)
    async with served(model, state=state) as running:
        model.hold()
        yield running, model


def hang_ups() -> Iterator[ParameterSet]:
    """Yield all cases. The fast ones have each way and kind in one state, and each way and state with one kind."""
    for way, kind, state, batched in product(WAYS, KINDS, STATES, (False, True)):
        fast = not batched and (kind == "stored stream" or state == "some tokens read")
        marks = [] if fast else [pytest.mark.slow]
        yield pytest.param(way, kind, state, batched, marks=marks, id=f"{way}-{kind}-{state}{'-drafts' * batched}")


@pytest.mark.parametrize(("way", "kind", "state", "batched"), [*hang_ups()])
async def test_hang_up_ends_generation_within_a_step(
    tmp_path: Path, way: str, kind: str, state: str, batched: bool
) -> None:
    (path, fields), (characters, decodes) = KINDS[kind], STATES[state]
    async with one_slot(tmp_path, batched=batched) as (running, model), await Client.to(running) as client:
        await client.request("POST", path, body(path, fields, characters))
        model.allow(decodes)
        await model.wait_begun(decodes + 1)
        await WAYS[way](client)
        await running.app.wait_idle()
        model.go()
        assert (await post(running, input="b", store=False)).text == "b"
    assert evaluated(model) <= decodes + 1
    assert stored_statuses(tmp_path) == ["cancelled"] * (kind in ("stored stream", "stored"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", SAMPLED_WAYS)
async def test_hang_up_in_the_queue_evaluates_nothing(tmp_path: Path, way: str, kind: str) -> None:
    path, fields = KINDS[kind]
    async with one_slot(tmp_path) as (running, model), await Client.to(running) as first:
        await first.create(input="b", store=False)
        await model.wait_begun(1)
        async with await Client.to(running) as client:
            await client.request("POST", path, body(path, fields, 1))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await WAYS[way](client)
            await trio.testing.wait_all_tasks_blocked(0.01)
            model.go()
            assert (await first.answer()).text == "b"
            await running.app.wait_idle()
    assert evaluated(model) == 0
    assert stored_statuses(tmp_path) == ["cancelled"] * (kind in ("stored stream", "stored"))


@pytest.mark.parametrize("kind", [*KINDS, "input_tokens"])
@pytest.mark.parametrize("way", SAMPLED_WAYS)
async def test_hang_up_while_tokenizing_ends_request(tmp_path: Path, way: str, kind: str) -> None:
    """The request does not wait for a thread that would work for nobody."""
    path, fields = KINDS.get(kind, ("/v1/responses/input_tokens", {}))
    async with one_slot(tmp_path, n_ctx=SLOW_CHARACTERS + 1000) as (running, model):
        model.go()
        async with thread_busy(running.app.work.limiter) as let_pass, await Client.to(running) as client:
            await client.request("POST", path, body(path, fields, SLOW_CHARACTERS))
            for _ in ("clean", "decode"):
                await let_pass()
            await WAYS[way](client)
            await running.app.wait_idle()
        assert (await post(running, input="b", store=False)).text == "b"
    assert evaluated(model) == 0
    assert stored_statuses(tmp_path) == []


@asynccontextmanager
async def thread_busy(limiter: trio.CapacityLimiter) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Occupy the thread. Yield a function that lets one stage of a request pass, and waits for the next one."""
    busy = object()
    await limiter.acquire_on_behalf_of(busy)

    async def wait_for_stage() -> None:
        with trio.fail_after(PATIENCE):
            while not limiter.statistics().tasks_waiting:  # noqa: ASYNC110  # it has no event
                await trio.sleep(0.001)

    async def let_pass() -> None:
        await wait_for_stage()
        limiter.release_on_behalf_of(busy)
        await limiter.acquire_on_behalf_of(busy)
        await wait_for_stage()

    yield let_pass
    limiter.release_on_behalf_of(busy)


@pytest.mark.slow
async def test_hang_up_of_a_background_stream_changes_nothing(tmp_path: Path) -> None:
    async with one_slot(tmp_path) as (running, model):
        async with await Client.to(running) as client:
            await client.create(input="b" * 40, background=True, stream=True)
            await client.created()
            await model.wait_begun(1)
        model.go()
        await running.app.wait_idle()
    assert stored_statuses(tmp_path) == ["completed"]
