"""Counters and histograms of the server, in Prometheus's text format.

Names follow Prometheus's conventions and vLLM's terms: base units, `_total` for counters, histograms for latencies.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from engine.job import Lane
from engine.scheduler import Histogram
from server.generation import GenerationSummary
from server.monitoring.families import Family, counter, gauge, histogram, server_families
from server.monitoring.metrics_state import MetricsState

LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds, from a cached prompt to a long one on a slow board."""
GAP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds between two tokens."""


class PrometheusMetrics:
    def __init__(self, version: str, model: Mapping[str, str], refused: Mapping[str, int]) -> None:
        """`version` is of the build; `model` describes the model: the labels of `responsed_model_info`. `refused`:
        counts of the listener, which go on."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the counters, and nothing reads them
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Info("responsed_build", "Build of the server.", registry=self._registry).info({"version": version})
        Info("responsed_model", "Model that is served.", registry=self._registry).info(dict(model))
        self._requests = self._counter("requests", "HTTP requests.", "route", "code")
        self._refusals = self._counter("requests_refused", "Requests that no model was asked about.", "reason")
        self._answers = self._counter("answers", "Responses that ended.", "route", "outcome", "key", "lane")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens.", "key")
        self._cached_tokens = self._counter("cached_prompt_tokens", "Prompt tokens found in the KV cache.", "key")
        self._evicted_tokens = self._counter("evicted_prompt_tokens", "Prompt tokens that the cache had lost.", "key")
        self._output_tokens = self._counter("generation_tokens", "Generated tokens.", "key")
        self._latencies = _Latencies()
        self._registry.register(self._latencies)
        self._state = _State(refused)
        self._registry.register(self._state)

    def record_request(self, route: str, status: int) -> None:
        """Count a request. `route` is a path of the router, never the client's text."""
        self._requests.labels(route, str(status)).inc()

    def record_refusal(self, reason: str) -> None:
        """Count a request that was refused. `reason` is one of the server's own names."""
        self._refusals.labels(reason).inc()

    def record_answer(self, summary: GenerationSummary) -> None:
        """Count a response that has ended."""
        key = summary.origin.key
        self._answers.labels(summary.origin.route, summary.outcome, key, summary.lane.value).inc()
        self._prompt_tokens.labels(key).inc(summary.input_tokens)
        self._cached_tokens.labels(key).inc(summary.cached_tokens)
        self._evicted_tokens.labels(key).inc(summary.evicted_tokens)
        self._output_tokens.labels(key).inc(summary.output_tokens)
        self._latencies.record(summary)

    def render(self, state: MetricsState) -> bytes:
        """Return all metrics in the text format 0.0.4."""
        self._state.present = state
        return generate_latest(self._registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"responsed_{name}", description, labels, registry=self._registry)


class _Latencies:
    """Histograms of the responses that ended, by lane. A response has thousands of gaps, so that each must be cheap."""

    def __init__(self) -> None:
        self._queue = {lane.value: Histogram(LATENCY_SECONDS) for lane in Lane}
        self._first_token = {lane.value: Histogram(LATENCY_SECONDS) for lane in Lane}
        self._gap = {lane.value: Histogram(GAP_SECONDS) for lane in Lane}
        self._duration = {lane.value: Histogram(LATENCY_SECONDS) for lane in Lane}

    def record(self, summary: GenerationSummary) -> None:
        lane = summary.lane.value
        self._queue[lane].record(summary.queue)
        self._duration[lane].record(summary.duration)
        if summary.first_token is not None:
            self._first_token[lane].record(summary.first_token)
        for gap in summary.gaps:
            self._gap[lane].record(gap)

    def collect(self) -> Iterator[Family]:
        for name, description, histograms in (
            ("queue_time_seconds", "Time in the queue.", self._queue),
            ("time_to_first_token_seconds", "Time to the first token.", self._first_token),
            ("inter_token_latency_seconds", "Time between two arrivals of tokens.", self._gap),
            ("request_duration_seconds", "Time to the end of the response.", self._duration),
        ):
            yield histogram(name, description, "lane", {lane: each.snapshot() for lane, each in histograms.items()})


class _State:
    """Metrics that are read when they are asked for."""

    def __init__(self, refused: Mapping[str, int]) -> None:
        self.present = MetricsState()
        self._refused = refused

    def collect(self) -> Iterator[Family]:
        state, engine, store = self.present, self.present.engine, self.present.store
        refused = {str(reason): count for reason, count in self._refused.items()}
        yield counter("connections_refused", "Connections that the listener refused or closed.", refused, "reason")
        yield gauge("slots", "Slots of the KV cache.", state.slots)
        yield gauge("queue_limit", "Requests of each lane that may wait for a slot.", state.queue)
        yield gauge("requests_running", "Responses that have a slot.", state.running, "lane")
        yield gauge("requests_waiting", "Responses that wait for a slot.", state.waiting, "lane")
        steps = {"decode": engine.decode_steps, "prefill": engine.prefill_steps}
        yield histogram("step_time_seconds", "Time of a step of the model.", "kind", steps)
        yield counter("evaluated_prompt_tokens", "Prompt tokens that were not cached.", engine.evaluated_prompt_tokens)
        yield counter("forced_tokens", "Generated tokens that a grammar made certain.", engine.forced_tokens)
        yield counter("draft_tokens", "Draft tokens that were verified.", engine.draft_tokens)
        yield counter("accepted_draft_tokens", "Draft tokens that were right.", engine.accepted_draft_tokens)
        yield counter("preemptions", "Batch jobs that left their slot to an interactive one.", engine.preemptions)
        yield gauge("prefix_cache_bytes", "Bytes of the prefix cache in memory.", engine.cache_bytes)
        yield gauge("prefix_cache_limit_bytes", "Bytes that the prefix cache may have.", engine.cache_limit_bytes)
        yield counter("prefix_cache_evictions", "Runs of tokens that the cache dropped.", engine.cache_evictions)
        if state.servers:
            yield from server_families(state.servers)
        if store is not None:
            yield gauge("store_entries", "Stored responses and conversations.", store.entries)
            yield gauge("store_bytes", "Bytes of stored responses and conversations.", store.bytes)
            yield counter("store_evictions", "Responses and conversations that the store dropped.", store.evictions)
            yield gauge("store_servers", "Living servers that share the store.", store.servers)
