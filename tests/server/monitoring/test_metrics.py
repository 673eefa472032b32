"""Metrics, readiness and version."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from server.store.errors import StoreError
from server.store.responses import Store
from server.stream import replay
from tests.support.helpers import AMPLE, NAME, Client, PacedModel, encode, exchange, get, post, served

ANN = "ann-0123456789abcdef"


def samples(text: str) -> dict[str, float]:
    """Return the samples by name and labels, without buckets and the process's own."""
    return {
        "".join([sample.name, *(f" {key}={value}" for key, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("responsed_") and not sample.name.endswith(("_bucket", "_created"))
    }


async def test_metrics_count_requests_answers_and_tokens() -> None:
    async with served(metrics=True) as running:
        first = (await post(running, input="Hi")).json
        await get(running, "/v1/nothing")
        await get(running, "/v1/models/other")
        await running.app.wait_idle()
        answer = await get(running, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.body.decode())
    usage = first["usage"]
    counts = {name: value for name, value in found.items() if not name.endswith("_seconds_sum")}
    assert counts == {
        f"responsed_info model={NAME}": 1.0,
        "responsed_requests_total code=200 route=/v1/responses": 1.0,
        "responsed_requests_total code=404 route=other": 1.0,
        "responsed_requests_total code=404 route=/v1/models/{name...}": 1.0,
        "responsed_answers_total key= outcome=completed route=/v1/responses": 1.0,
        "responsed_prompt_tokens_total key=": usage["input_tokens"],
        "responsed_cached_prompt_tokens_total key=": usage["input_tokens_details"]["cached_tokens"],
        "responsed_generation_tokens_total key=": usage["output_tokens"],
        "responsed_queue_time_seconds_count": 1.0,
        "responsed_time_to_first_token_seconds_count": 1.0,
        "responsed_inter_token_latency_seconds_count": found["responsed_inter_token_latency_seconds_count"],
        "responsed_request_duration_seconds_count": 1.0,
        "responsed_slots": 2.0,
        "responsed_requests_running": 0.0,
        "responsed_requests_waiting": 0.0,
    }


async def test_metrics_show_running_and_waiting_requests_and_the_name_of_a_key() -> None:
    model = PacedModel()
    async with served(model, metrics=True, keys={"ann": ANN}) as running, trio.open_nursery() as nursery:
        header = f"Authorization: Bearer {ANN}"

        async def metrics() -> dict[str, float]:
            return samples((await exchange(running, "GET", "/metrics", None, header)).body.decode())

        assert (await get(running, "/metrics")).status == 401
        model.hold()
        for _ in range(3):
            nursery.start_soon(exchange, running, "POST", "/v1/responses", encode(input="Hi"), header)
        await model.wait_begun(1)
        model.allow(1)
        await model.wait_begun(2)
        found = await metrics()
        assert found["responsed_requests_running"] + found["responsed_requests_waiting"] == 3
        assert found["responsed_requests_waiting"] >= 1
        model.go()
        await running.app.wait_idle()
        assert (await metrics())["responsed_answers_total key=ann outcome=completed route=/v1/responses"] == 3


async def test_metrics_that_are_off_are_not_found() -> None:
    async with served() as running:
        assert (await get(running, "/metrics")).status == 404


def test_library_of_metrics_is_not_loaded_with_the_command() -> None:
    code = "import sys, server.cli.main; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_version_names_the_build_the_engine_and_the_model() -> None:
    async with served() as running:
        found = (await get(running, "/version")).json
    assert re.match(r"\d+\.\d+", found.pop("version"))
    assert found == {"engine": "scripted", "model": NAME}


class Flaky(Store):
    """Store whose disk fills up and gets space again."""

    full = False

    def check_writable(self) -> None:
        if self.full:
            raise StoreError("the disk is full")


async def test_ready_is_refused_while_the_store_cannot_be_written(tmp_path: Path) -> None:
    async with served(state=tmp_path, kind=Flaky) as running:
        statuses = []
        for Flaky.full in (False, True, False):
            statuses.append((await get(running, "/ready")).status)
    assert statuses == [200, 503, 200]


async def test_ready_is_refused_while_the_server_drains() -> None:
    async with served() as running, await Client.to(running) as client:
        running.app.stop_admitting()
        await client.request("GET", "/ready")
        answer = await client.answer()
        await client.request("GET", "/health")
        assert (answer.status, answer.headers["retry-after"], (await client.answer()).status) == (503, "1", 200)


@pytest.mark.parametrize("failing", [False, True])
def test_store_that_failed_is_tried_again(failing: bool, tmp_path: Path) -> None:
    store = Store(tmp_path / "responses.db", AMPLE, replay.interrupted_response, 0.0)
    database = store._database
    if failing:
        database.change("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="the disk is full"), database.transaction():
            database.change("CREATE TABLE more AS SELECT randomblob(100000) AS x")
        with pytest.raises(StoreError), database.transaction():
            database.change("CREATE TABLE more AS SELECT randomblob(100000) AS x")
        database.change("PRAGMA max_page_count = 1000000")
    store.check_writable()
    store.close()
