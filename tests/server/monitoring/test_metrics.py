"""Metrics, readiness and version."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from engine.runtime.engine import DEFAULT_CACHE_BYTES
from server.access.refusals import Refusal
from server.store.errors import StoreError
from server.store.locations import open_database
from server.store.responses import Store
from server.stream import replay
from tests.server.store.entries import AMPLE
from tests.support.helpers import NAME, Client, PacedModel, encode, exchange, get, post, served

ANN = "ann-0123456789abcdef"


PROCESS = "process_virtual_memory_bytes process_resident_memory_bytes process_start_time_seconds \
process_cpu_seconds_total process_open_fds process_max_fds"
"""Names of the library's own metrics of a process on Linux."""
PAGE = Path(__file__).parents[3] / "server/docs/metrics.md"


def samples(text: str) -> dict[str, float]:
    """Return the samples by name and labels, without buckets and the process's own."""
    return {
        "".join([sample.name, *(f" {key}={value}" for key, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("responsed_") and not sample.name.endswith("_bucket")
    }


def named(name: str, **values: float) -> dict[str, float]:
    """Return samples of one name by the value of their only label."""
    label = {
        "requests_refused_total": "reason",
        "connections_refused_total": "reason",
        "step_time_seconds_count": "kind",
    }.get(name, "lane")
    return {f"responsed_{name} {label}={key}": value for key, value in values.items()}


async def test_metrics_count_requests_answers_and_tokens(tmp_path: Path) -> None:
    async with served(metrics=True, state=tmp_path) as running:
        first = (await post(running, input="Hi", service_tier="flex")).json
        await get(running, "/v1/nothing")
        await get(running, "/v1/models/other")
        await post(running, input="x" * 5000)
        await running.app.wait_idle()
        answer = await get(running, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.body.decode())
    usage = first["usage"]
    counts = {name: value for name, value in found.items() if "_seconds_sum" not in name}
    assert counts == {
        "responsed_build_info version=1.2": 1.0,
        f"responsed_model_info engine=scripted model={NAME}": 1.0,
        "responsed_requests_total code=200 route=/v1/responses": 1.0,
        "responsed_requests_total code=400 route=/v1/responses": 1.0,
        "responsed_requests_total code=404 route=other": 1.0,
        "responsed_requests_total code=404 route=/v1/models/{name...}": 1.0,
        **named("requests_refused_total", not_found=1, model_not_found=1, context_length_exceeded=1),
        **named("connections_refused_total", **dict.fromkeys(Refusal, 0)),
        "responsed_answers_total key= lane=batch outcome=completed route=/v1/responses": 1.0,
        "responsed_prompt_tokens_total key=": usage["input_tokens"],
        "responsed_cached_prompt_tokens_total key=": usage["input_tokens_details"]["cached_tokens"],
        "responsed_evicted_prompt_tokens_total key=": 0.0,
        "responsed_generation_tokens_total key=": usage["output_tokens"],
        **named("queue_time_seconds_count", interactive=0, batch=1),
        **named("time_to_first_token_seconds_count", interactive=0, batch=1),
        **named(
            "inter_token_latency_seconds_count",
            interactive=0,
            batch=found["responsed_inter_token_latency_seconds_count lane=batch"],
        ),
        **named("request_duration_seconds_count", interactive=0, batch=1),
        "responsed_slots": 2.0,
        "responsed_queue_limit": 16.0,
        **named("requests_running", interactive=0, batch=0),
        **named("requests_waiting", interactive=0, batch=0),
        # the warm-up evaluates 16 tokens in one step; the first token of an answer comes from its prompt's step
        **named("step_time_seconds_count", prefill=2, decode=usage["output_tokens"] - 1),
        "responsed_evaluated_prompt_tokens_total": 16 + usage["input_tokens"],
        "responsed_forced_tokens_total": 0.0,
        "responsed_draft_tokens_total": 0.0,
        "responsed_accepted_draft_tokens_total": 0.0,
        "responsed_preemptions_total": 0.0,
        "responsed_prefix_cache_bytes": found["responsed_prefix_cache_bytes"],
        "responsed_prefix_cache_limit_bytes": DEFAULT_CACHE_BYTES,
        "responsed_prefix_cache_evictions_total": 0.0,
        "responsed_store_entries": 1.0,
        "responsed_store_bytes": found["responsed_store_bytes"],
        "responsed_store_evictions_total": 0.0,
        "responsed_store_servers": 1.0,
    }
    assert found["responsed_store_bytes"] > 0


@pytest.mark.slow
async def test_metrics_show_lanes_running_and_waiting_and_the_name_of_a_key() -> None:
    model = PacedModel(n_slots=1)
    async with served(model, metrics=True, keys={"ann": ANN}) as running, trio.open_nursery() as nursery:
        header = f"Authorization: Bearer {ANN}"

        async def metrics() -> dict[str, float]:
            return samples((await exchange(running, "GET", "/metrics", None, header)).body.decode())

        assert (await get(running, "/metrics")).status == 401
        model.hold()
        for tier in ("default", "default", "flex"):
            body = encode(input="Hi", service_tier=tier)
            nursery.start_soon(exchange, running, "POST", "/v1/responses", body, header)
            await trio.testing.wait_all_tasks_blocked(0.01)
        await model.wait_begun(1)
        model.allow(1)
        await model.wait_begun(2)
        found = await metrics()
        states = named("requests_running", interactive=1, batch=0) | named("requests_waiting", interactive=1, batch=1)
        assert states.items() <= found.items()
        assert found["responsed_requests_refused_total reason=invalid_api_key"] == 1
        model.go()
        await running.app.wait_idle()
        found = await metrics()
        assert found["responsed_answers_total key=ann lane=interactive outcome=completed route=/v1/responses"] == 2
        assert found["responsed_answers_total key=ann lane=batch outcome=completed route=/v1/responses"] == 1


async def page_of_a_busy_server(state: Path) -> str:
    """Return the metrics of a server that has answered, refused and evicted."""
    schema = {"type": "object", "properties": {"key": {"const": "value"}}, "required": ["key"]}
    async with served(metrics=True, state=state, store_responses=1, keys={"ann": ANN}) as running:
        for body in (
            {"input": "Hi"},
            {"input": "ab" * 40, "stream": True},
            {
                "input": "Hi",
                "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}},
                "max_output_tokens": 50,
            },
            {"input": "x" * 5000},
        ):
            await exchange(running, "POST", "/v1/responses", encode(**body), f"Authorization: Bearer {ANN}")
        await get(running, "/v1/models")
        await running.app.wait_idle()
        answer = await exchange(running, "GET", "/metrics", None, f"Authorization: Bearer {ANN}")
        return answer.body.decode()


@pytest.mark.slow
async def test_metrics_are_those_of_the_page(tmp_path: Path) -> None:
    families = list(text_string_to_metric_families(await page_of_a_busy_server(tmp_path)))
    rows = re.findall(r"^\| `([a-z_]+)(?:\{([a-z,]+)\})?` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert rows == sorted(rows)
    documented = {name: (kind, set(filter(None, labels.split(",")))) for name, labels, kind in rows}
    found = {
        family.name + "_total" * (family.type == "counter"): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in families
    }
    for name in ("responsed_build_info", "responsed_model_info"):
        assert found[name][0] == "gauge"
    assert found == documented
    assert set(PROCESS.split()) <= found.keys()


@pytest.mark.slow
async def test_metrics_follow_the_rules_of_promtool(tmp_path: Path) -> None:
    """The rules of `promtool check metrics` (prometheus/client_golang, promlint) and of the text format."""
    text = await page_of_a_busy_server(tmp_path)
    for family in text_string_to_metric_families(text):
        name = family.name
        assert family.documentation, f"{name} has no help"
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"{name} is not in snake case"
        assert family.type in ("counter", "gauge", "histogram"), f"{name} has no type"
        assert family.type not in name.split("_"), f"{name} contains its type"
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|kilobytes|megabytes|percent)(_|$)", name), "base units"
        if family.type != "counter":
            assert not name.endswith("_total")
        if family.type == "gauge":
            assert not name.endswith(("_count", "_sum", "_bucket"))
        labels = {label for sample in family.samples for label in sample.labels}
        assert ("le" in labels) == (family.type == "histogram")
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in labels)
        assert len({(sample.name, *sorted(sample.labels.items())) for sample in family.samples}) == len(family.samples)
        if family.type == "histogram":
            check_histogram(family.samples)
    helps = re.findall(r"^# (HELP|TYPE) (\S+)", text, re.MULTILINE)
    assert len(helps) == len(set(helps)), "one family stands in one place"


def check_histogram(found: list[Sample]) -> None:
    """Fail unless buckets rise to infinity, whose count is the histogram's."""
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in found:
        labels = tuple(item for item in sorted(sample.labels.items()) if item[0] != "le")
        series.setdefault(labels, []).append(sample)
    for each in series.values():
        buckets = [(float(sample.labels["le"]), sample.value) for sample in each if sample.name.endswith("_bucket")]
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        others = {sample.name.rpartition("_")[2]: sample.value for sample in each if "le" not in sample.labels}
        assert buckets[-1][0] == float("inf")
        assert set(others) == {"sum", "count"}
        assert others["count"] == buckets[-1][1]


@pytest.mark.slow
async def test_metrics_count_a_client_that_left_before_the_answer() -> None:
    model = PacedModel()
    async with served(model, metrics=True) as running:
        model.hold()
        async with await Client.to(running) as client:
            await client.create(input="Hi")
            await model.wait_begun(1)
        await trio.testing.wait_all_tasks_blocked(0.02)
        model.go()
        await running.app.wait_idle()
        found = samples((await get(running, "/metrics")).body.decode())
    assert found["responsed_requests_total code=499 route=/v1/responses"] == 1


async def test_metrics_that_are_off_are_not_found() -> None:
    async with served() as running:
        assert (await get(running, "/metrics")).status == 404


@pytest.mark.slow
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


async def test_ready_is_refused_while_the_store_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(state=tmp_path, kind=Flaky) as running:
        statuses = []
        for Flaky.full in (False, True, True, False, True):
            statuses.append((await get(running, "/ready")).status)
    assert statuses == [200, 503, 503, 200, 503]
    lines = [each.getMessage() for each in caplog.records if each.name == "responsed.store"]
    assert lines == ["not ready: the disk is full"] * 2, "one for each time that it happened"


async def test_ready_is_refused_while_the_server_drains() -> None:
    async with served() as running, await Client.to(running) as client:
        running.app.stop_admitting()
        await client.request("GET", "/ready")
        answer = await client.answer()
        await client.request("GET", "/health")
        assert (answer.status, answer.headers["retry-after"], (await client.answer()).status) == (503, "1", 200)


@pytest.mark.parametrize("failing", [False, True])
def test_store_that_failed_is_tried_again(failing: bool, tmp_path: Path) -> None:
    store = Store(open_database(tmp_path / "responses.db"), AMPLE, replay.interrupted_response, 0.0)
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
