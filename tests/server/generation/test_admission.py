"""Admission beyond slots and queue: refusals with `Retry-After`, and places freed by clients that leave."""

import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from engine.job import Lane
from engine.scheduler.stats import Counters
from engine.wording import counted
from server.access import ANYBODY, ApiKey, Caller
from server.generation.admission import MAX_RETRY_SECONDS, AdmissionControl, Load, Pace, measured_pace
from server.protocol.errors import ServerBusy
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
    official_client,
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

INTERACTIVE, BATCH = Lane.INTERACTIVE, Lane.BATCH
ANN = Caller("ann", shares_queue=True)
PACE = Pace(prompt_token=0.01, output_token=0.1)


def load(tokens: int, limit: int, seconds: float = 0.0, key: str = "", lane: Lane = INTERACTIVE) -> Load:
    return Load(lane, key, output_tokens=tokens, max_tokens=limit, seconds=seconds)


def waiting(prompt: int = 0, limit: int = 100, key: str = "", lane: Lane = INTERACTIVE) -> Load:
    return Load(lane, key, started=False, prompt_tokens=prompt, max_tokens=limit)


# Slots, tokens of ended answers, loads -> seconds until a slot is free.
ESTIMATES: list[tuple[int, list[int], list[Load], int]] = [
    (1, [], [load(0, 100)], 10),
    (1, [], [load(40, 100)], 6),
    (1, [], [load(100, 100)], 1),
    (1, [], [load(0, 4096)], 26),  # TYPICAL_OUTPUT_TOKENS
    (1, [], [load(300, 4096)], 30),  # longer than usual: it may last as long again
    (1, [50], [load(0, 4096)], 22),
    (1, [50] * 12, [load(0, 4096)], 11),
    (1, [50], [load(0, 20)], 2),
    (1, [10, 90], [load(20, 4096)], 17),
    (1, [50] * 99 + [20] * 16, [load(0, 100)], 7),
    (2, [], [load(0, 100), load(0, 50)], 5),
    (2, [], [load(0, 100), load(0, 50), waiting(limit=20)], 7),
    (2, [], [load(0, 100), load(0, 50), waiting(limit=80)], 10),
    (1, [], [load(0, 100), waiting(500, 100), waiting(1000, 50)], 40),
    (1, [], [waiting(500, 100), load(0, 100)], 25),
    (1, [], [load(20, 100, seconds=20.0)], 80),  # its own pace
    (2, [], [load(20, 100, seconds=20.0), load(0, 30)], 30),  # the usual pace of those that run
    (1, [], [load(7, 100, seconds=70.0)], 10),
    (1, [], [load(0, 4096), *[waiting(limit=4096)] * 16], MAX_RETRY_SECONDS),
]


@pytest.mark.parametrize(("slots", "ended", "loads", "seconds"), ESTIMATES)
def test_retry_after_estimates_when_a_slot_is_free(
    slots: int, ended: list[int], loads: list[Load], seconds: int
) -> None:
    admission = AdmissionControl(slots, len(loads) - slots)
    for tokens in ended:
        admission.record_output(tokens)
    error = admission.refusal(ANYBODY, INTERACTIVE, loads, lambda: PACE)
    assert error is not None
    assert (error.status, error.code, error.reason, error.retry_after) == (503, "server_busy", "queue_full", seconds)
    assert error.message == (
        f"No slot is free ({counted(slots, 'slot')} in use, {counted(len(loads) - slots, 'request')} waiting); "
        f"try again in {seconds} s."
    )


def loads_of(text: str) -> list[Load]:
    """Return loads by the names of their keys: capitals run, and those in brackets have the batch lane."""
    lane, loads = INTERACTIVE, []
    for letter in text:
        if letter in "()":
            lane = BATCH if letter == "(" else INTERACTIVE
        else:
            key = {"a": "ann", "b": "bob", "-": ""}[letter.lower()]
            loads.append(load(0, 9, key=key, lane=lane) if letter.isupper() else waiting(key=key, lane=lane))
    return loads


@pytest.mark.parametrize(
    ("caller", "lane", "loads", "reason"),
    [
        (ANYBODY, INTERACTIVE, "-----", None),
        (ANYBODY, INTERACTIVE, "------", "queue_full"),
        (ANYBODY, INTERACTIVE, "(------)", None),
        (ANYBODY, BATCH, "(------)", "queue_full"),
        (ANYBODY, BATCH, "------(-----)", None),
        (ANN, INTERACTIVE, "AAa", None),
        (ANN, INTERACTIVE, "AAaa", "key_share"),
        (ANN, INTERACTIVE, "BBaa", "key_share"),
        (ANN, INTERACTIVE, "BBba", None),
        (ANN, INTERACTIVE, "aa", None),  # both could start at once
        (ANN, INTERACTIVE, "baa", None),
        (ANN, INTERACTIVE, "baaa", "key_share"),
        (ANN, INTERACTIVE, "AA(aa)", None),
        (ANN, BATCH, "(AAaa)", "key_share"),
        (ANN, BATCH, "AAaa(AAa)", None),
        (Caller("bob", shares_queue=True), INTERACTIVE, "AAaa", None),
        (Caller("bob", shares_queue=True), INTERACTIVE, "AAaaaa", "queue_full"),
        (Caller("ann"), INTERACTIVE, "AAaaa", None),
        (Caller("ann"), INTERACTIVE, "AAaaaa", "queue_full"),
        (Caller("ann", queue=0), INTERACTIVE, "A", None),
        (Caller("ann", queue=0), INTERACTIVE, "AA", "key_share"),
        (Caller("ann", queue=3, shares_queue=True), INTERACTIVE, "AAaa", None),
        (Caller("ann", queue=3, shares_queue=True), INTERACTIVE, "AAaaa", "key_share"),
    ],
)
def test_lane_and_key_have_places_of_their_own(caller: Caller, lane: Lane, loads: str, reason: str | None) -> None:
    error = AdmissionControl(2, 4).refusal(caller, lane, loads_of(loads), lambda: PACE)
    assert (None if error is None else error.reason) == reason


def test_refused_batch_job_waits_for_interactive_ones_too() -> None:
    admission = AdmissionControl(1, 0)
    loads = [load(0, 100, lane=BATCH), load(0, 50)]
    seconds = {lane: refused(admission, lane, loads).retry_after for lane in Lane}
    assert seconds == {INTERACTIVE: 5, BATCH: 15}


def refused(admission: AdmissionControl, lane: Lane, loads: list[Load]) -> ServerBusy:
    error = admission.refusal(ANYBODY, lane, loads, lambda: PACE)
    assert error is not None
    return error


def test_measured_pace_is_the_engines_mean() -> None:
    counters = Counters()
    assert measured_pace(counters.snapshot()) == Pace(0.0, 0.0)
    counters.record_prefill(10, 1.0)
    counters.record_prefill(30, 1.0)
    counters.record_decode(0.25)
    counters.record_decode(0.75)
    assert measured_pace(counters.snapshot()) == Pace(0.05, 0.5)


def busy(waiting: int) -> dict[str, Any]:
    message = f"No slot is free (1 slot in use, {counted(waiting, 'request')} waiting); try again in 1 s."
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


@pytest.mark.slow
async def test_request_beyond_the_queue_is_refused_before_evaluation(tmp_path: Path) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, queue=2) as running:
        clients = await fill(running, model, waiting=2)
        for kind in CREATES.keys() - {"background"}:
            answer = await create(running, kind)
            assert (kind, answer.status, answer.headers["retry-after"]) == (kind, 503, "1")
            assert answer.json == busy(2)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
async def test_retry_after_of_the_first_answer_is_the_time_until_a_slot_is_free() -> None:
    model = ScriptedModel(lambda message: b"x" * 1000, n_slots=1, seconds_per_token=0.01)
    async with served(model, queue=0) as running:
        began = trio.current_time()
        async with await Client.to(running) as client:
            await client.create(input="Hi", max_output_tokens=200)
            await trio.sleep(0.5)
            answer, asked = await post(running, input="no"), trio.current_time()
            await client.answer()
        left = trio.current_time() - asked
        assert 1.0 < left < 4.0, f"the machine is too busy: {trio.current_time() - began:.1f} s"
        assert left - 1.0 < int(answer.headers["retry-after"]) < 2 * left + 1.0
        assert (await post(running, input="Hi", max_output_tokens=1)).status == 200


@pytest.mark.slow
async def test_answer_cut_by_its_limit_does_not_shorten_the_estimate() -> None:
    model = PacedModel(lambda message: b"x" * 500, n_slots=1)
    async with served(model, queue=0) as running:
        before = running.app._services.admission._tokens_left(load(0, 4096))
        for _ in range(3):
            assert (await post(running, input="Hi", max_output_tokens=1)).json["status"] == "incomplete"
            await running.app.wait_idle()
        assert running.app._services.admission._tokens_left(load(0, 4096)) == before
        await post(running, input="Hi")
        await running.app.wait_idle()
        assert running.app._services.admission._tokens_left(load(0, 4096)) == (4 * before + 501) / 5


@pytest.mark.slow
async def test_batch_job_takes_no_place_from_interactive_ones(tmp_path: Path) -> None:
    model = PacedModel(n_slots=1)
    async with served(model, state=tmp_path, queue=1) as running:
        model.hold()
        for _ in range(2):
            begun = (await post(running, input="no", background=True)).json
            assert (begun["status"], begun["service_tier"]) == ("queued", "flex")
            await model.wait_begun(1)
        assert (await post(running, input="no", background=True)).status == 503
        assert (await post(running, input="no", service_tier="flex")).status == 503
        clients = []
        for _ in range(2):
            clients.append(await Client.to(running))
            await clients[-1].create(input="yes", service_tier="priority")
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await post(running, input="no")).status == 503
        model.go()
        for client in clients:
            async with client:
                assert (await client.answer()).json["service_tier"] == "default"
        await running.app.wait_idle()


@pytest.mark.slow
async def test_key_that_waits_leaves_places_to_others() -> None:
    model = PacedModel(n_slots=1)
    keys = {"ann": ApiKey("ann-0123456789abcdef"), "bob": ApiKey("bob-0123456789abcdef", is_batch=True)}
    headers = {name: f"Authorization: Bearer {key.key}" for name, key in keys.items()}
    statuses: list[int] = []

    async def ask(running: Running, name: str) -> None:
        answer = await exchange(running, "POST", "/v1/responses", encode(input="Hi"), headers[name])
        statuses.append(answer.status)
        if answer.status == 200:
            assert answer.json["service_tier"] == ("flex" if name == "bob" else "default")
        else:
            assert "its share of the queue" in answer.json["error"]["message"]

    async with served(model, queue=4, keys=keys) as running, trio.open_nursery() as nursery:
        model.hold()
        for name in ("ann", "ann", "ann", "ann", "bob", "bob"):
            nursery.start_soon(ask, running, name)
            await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.sleep(0.05)
        assert statuses == [503]
        model.go()
    assert sorted(statuses) == [200] * 5 + [503]


@pytest.mark.slow
async def test_official_client_retries_after_a_503() -> None:
    model = PacedModel(n_slots=1)
    counted: list[str | None] = []

    def use(url: str) -> str:
        with official_client(url, timeout=PATIENCE, max_retries=2) as client:
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
