"""Admission beyond slots and queue: refusals with `Retry-After`, and places freed by clients that leave."""

import math
import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest
import trio
import trio.testing

from server.generation.admission import MAX_RETRY_SECONDS, AdmissionControl
from server.store.responses import Store
from tests.support.helpers import (
    NAME,
    PATIENCE,
    Answer,
    Client,
    PacedModel,
    Running,
    encode,
    exchange,
    get,
    post,
    served,
)

CREATES: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": ("/v1/responses", {"input": "no"}),
    "streamed": ("/v1/responses", {"input": "no", "stream": True}),
    "background": ("/v1/responses", {"input": "no", "background": True}),
    "compact": ("/v1/responses/compact", {"input": "no"}),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "no"}]}),
    "streamed chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "no"}], "stream": True}),
}

# Slots, queue, seconds that answers durations, how many are active -> the seconds to wait; None: there is room.
ESTIMATES: list[tuple[int, int, list[float], int, int | None]] = [
    (2, 16, [], 17, None),
    (2, 16, [], 18, 1),
    (2, 0, [], 1, None),
    (2, 0, [], 2, 1),
    (2, 0, [3.0], 2, 2),
    (1, 3, [4.0, 6.0], 4, 20),
    (4, 3, [4.0, 6.0], 7, 5),
    (2, 16, [0.01] * 99, 18, 1),
    (2, 16, [0.01] * 99 + [4.0] * 16, 18, 34),
    (1, 16, [60.0], 17, MAX_RETRY_SECONDS),
]


@pytest.mark.parametrize(("slots", "queue", "durations", "active", "seconds"), ESTIMATES)
def test_admission_refusal_estimates_the_wait_of_all_waiting_requests(
    slots: int, queue: int, durations: list[float], active: int, seconds: int | None
) -> None:
    gate = AdmissionControl(slots, queue)
    for each in durations:
        gate.record_duration(each)
    assert gate.full(active) is (seconds is not None)
    if seconds is not None:
        refused = gate.refusal(active)
        assert (refused.status, refused.code, refused.retry_after) == (503, "server_busy", seconds)
        waiting = active - slots
        assert refused.message == (
            f"All {slots} slots are in use, and {waiting} requests wait for one; try again in {seconds} s."
        )


def busy(waiting: int) -> dict[str, Any]:
    message = f"All 1 slots are in use, and {waiting} requests wait for one; try again in 1 s."
    return {"error": {"message": message, "type": "server_error", "param": None, "code": "server_busy"}}


async def fill(running: Running, model: PacedModel, waiting: int) -> list[Client]:
    """Occupy the slot with one request, and let others wait."""
    model.hold()
    clients = [await Client.to(running) for _ in range(1 + waiting)]
    for client in clients:
        await client.create(input="yes")
        await model.wait_begun(1)
        await trio.testing.wait_all_tasks_blocked(0.01)
    return clients


async def answers(clients: list[Client]) -> list[str]:
    texts = []
    for client in clients:
        async with client:
            texts.append((await client.answer()).text)
    return texts


async def create(running: Running, kind: str) -> Answer:
    path, body = CREATES[kind]
    return await exchange(running, "POST", path, encode(**body))


async def test_request_beyond_the_queue_is_refused_before_evaluation(tmp_path: Path) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, queue=2) as running:
        clients = await fill(running, model, waiting=2)
        for kind in CREATES:
            refused = await create(running, kind)
            assert (kind, refused.status, refused.headers["retry-after"]) == (kind, 503, "1")
            assert refused.json == busy(2)
        assert (await get(running, "/health")).status == 200
        counted = await exchange(running, "POST", "/v1/responses/input_tokens", encode(input="no"))
        assert counted.status == 200  # it needs no slot
        model.go()
        assert await answers(clients) == ["yes"] * 3
        await running.app.wait_idle()
        assert not any(ord("n") in chunk.tokens for chunk in model.decoded)
        for kind in CREATES:
            assert (await create(running, kind)).status == 200
            await running.app.wait_idle()


async def test_concurrent_requests_are_admitted_up_to_the_limit() -> None:
    model = PacedModel(n_slots=2)
    found: list[int] = []
    seen, observed = trio.open_memory_channel[int](math.inf)

    async def ask(running: Running, stream: bool) -> None:
        found.append((await post(running, input="Hi", stream=stream)).status)
        seen.send_nowait(found[-1])

    async with served(model, queue=3) as running:
        model.hold()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, running, bool(number % 2))
                assert [await observed.receive() for _ in range(15)] == [503] * 15
                model.go()
    assert found == [503] * 15 + [200] * 5


async def test_admission_without_a_queue_refuses_waiting_requests() -> None:
    model = PacedModel(n_slots=1)
    async with served(model, queue=0) as running:
        clients = await fill(running, model, waiting=0)
        assert (await post(running, input="no")).json == busy(0)
        model.go()
        assert await answers(clients) == ["yes"]


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_the_queue_frees_its_place(stream: bool) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, queue=1) as running:
        clients = await fill(running, model, waiting=0)
        async with await Client.to(running) as leaves:
            await leaves.create(input="no", stream=stream)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await post(running, input="no")).status == 503
        await trio.testing.wait_all_tasks_blocked(0.01)
        clients.append(await Client.to(running))
        await clients[-1].create(input="later")
        await trio.testing.wait_all_tasks_blocked(0.01)
        model.go()
        assert await answers(clients) == ["yes", "later"]
    assert not any(ord("n") in chunk.tokens for chunk in model.decoded)


async def test_queued_stream_without_client_yields_its_place(tmp_path: Path) -> None:
    """A stored stream without a client yields to a connected client."""
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, queue=1, resume_window_seconds=60.0) as running:
        clients = await fill(running, model, waiting=0)
        async with await Client.to(running) as leaves:
            await leaves.create(input="no", stream=True)
            response_id, _ = await leaves.created()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await get(running, f"/v1/responses/{response_id}")).json["status"] == "queued"
        clients.append(await Client.to(running))
        await clients[-1].create(input="later")
        with trio.fail_after(PATIENCE):
            while (await get(running, f"/v1/responses/{response_id}")).json["status"] != "cancelled":  # noqa: ASYNC110  # the status is on the wire only
                await trio.sleep(0.01)
        assert (await post(running, input="no")).status == 503
        model.go()
        assert await answers(clients) == ["yes", "later"]


async def test_queued_request_without_client_yields_its_place_while_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk that records its end delays no connected client."""
    model, storing, release = PacedModel(n_slots=1), threading.Event(), threading.Event()

    def finish(*_: object) -> None:
        storing.set()
        assert release.wait(PATIENCE)

    monkeypatch.setattr(Store, "finish", finish)
    async with served(model, state=tmp_path, queue=1) as running:
        clients = await fill(running, model, waiting=0)
        async with await Client.to(running) as leaves:
            await leaves.create(input="no", stream=True)
            await leaves.created()
        assert await trio.to_thread.run_sync(storing.wait, PATIENCE)
        clients.append(await Client.to(running))
        await clients[-1].create(input="later", stream=True)
        await clients[-1].created()
        release.set()
        model.go()
        assert await answers(clients[:1]) == ["yes"]
        async with clients[-1] as later:
            assert (await later.rest_of_stream()).endswith(b"data: [DONE]\n\n")


async def test_compaction_that_has_begun_is_not_refused() -> None:
    """A compaction runs several generations and keeps its place between them."""

    def slowly(message: bytes) -> bytes:
        time.sleep(0.02 if message == b"x" else 0)
        return b"ok"

    model = PacedModel(slowly, n_ctx=1500, n_slots=1)
    long = [{"role": "user", "content": letter * 300} for letter in "abcdefgh"]
    refused = trio.Event()

    async def crowd() -> None:
        while True:
            if (await post(running, input="x", max_output_tokens=1)).status == 503:
                refused.set()

    async with served(model, queue=1) as running, await Client.to(running) as client:
        model.hold()
        await client.request("POST", "/v1/responses/compact", encode(input=long))
        await model.wait_begun(1)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(crowd)
            await refused.wait()
            model.go()
            assert (await client.answer()).status == 200
            nursery.cancel_scope.cancel()


async def test_refused_request_occupies_no_place(tmp_path: Path) -> None:
    async with served(state=tmp_path, queue=0) as running:
        for _ in range(5):
            assert (await post(running, input="x" * 5000)).status == 400
            assert (await post(running, input="Hi", background=True, store=False)).status == 400
        assert (await post(running, input="Hi")).text == "Hi"


async def test_retry_estimate_counts_the_time_in_slots(mock_clock: trio.testing.MockClock) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, queue=0) as running:
        model.hold()
        async with await Client.to(running) as client:
            await client.create(input="yes")
            await model.wait_begun(1)
            mock_clock.jump(1.01)
            model.go()
            await client.answer()
        clients = await fill(running, model, waiting=0)
        assert (await post(running, input="no")).headers["retry-after"] == "2"
        model.go()
        assert await answers(clients) == ["yes"]


async def test_official_client_retries_after_a_503() -> None:
    model = PacedModel(n_slots=1)
    counted: list[str | None] = []

    def use(url: str) -> str:
        with openai.OpenAI(base_url=url, api_key="none", timeout=PATIENCE, max_retries=2) as client:
            return client.responses.create(model=NAME, input="again").output_text

    async def ask(running: Running) -> None:
        counted.append(await trio.to_thread.run_sync(use, running.url))

    async with served(model, queue=0) as running:
        clients = await fill(running, model, waiting=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, running)
            await trio.sleep(0.3)  # its first try
            model.go()
            assert await answers(clients) == ["yes"]
    assert counted == ["again"]
