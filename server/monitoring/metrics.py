"""Counters and histograms of the server, in Prometheus's text format.

Names follow Prometheus's conventions and vLLM's terms: base units, `_total` for counters, histograms for latencies.
"""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from server.generation import GenerationSummary

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds, from a cached prompt to a long one on a slow board."""
GAP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds between two tokens."""


class PrometheusMetrics:
    def __init__(self, info: Mapping[str, str]) -> None:
        """`info` describes the build and the model: labels of `responsed_info`."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Info("responsed", "Build and model", registry=self._registry).info(dict(info))
        self._requests = self._counter("requests", "HTTP requests", "route", "code")
        self._answers = self._counter("answers", "Responses that ended", "route", "outcome", "key")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens", "key")
        self._cached_tokens = self._counter("cached_prompt_tokens", "Prompt tokens found in the KV cache", "key")
        self._output_tokens = self._counter("generation_tokens", "Generated tokens", "key")
        self._queue = self._histogram("queue_time_seconds", "Time in the queue", LATENCY_BUCKETS)
        self._first_token = self._histogram("time_to_first_token_seconds", "Time to the first token", LATENCY_BUCKETS)
        self._gap = self._histogram("inter_token_latency_seconds", "Time between two arrivals of tokens", GAP_BUCKETS)
        self._duration = self._histogram("request_duration_seconds", "Time to the end of the response", LATENCY_BUCKETS)

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed when the metrics are read."""
        Gauge(f"responsed_{name}", description, registry=self._registry).set_function(value)

    def record_request(self, route: str, status: int) -> None:
        """Count a request. `route` is a path of the router, never the client's text."""
        self._requests.labels(route, str(status)).inc()

    def record_answer(self, summary: GenerationSummary) -> None:
        """Count a response that has ended."""
        key = summary.origin.key
        self._answers.labels(summary.origin.route, summary.outcome, key).inc()
        self._prompt_tokens.labels(key).inc(summary.input_tokens)
        self._cached_tokens.labels(key).inc(summary.cached_tokens)
        self._output_tokens.labels(key).inc(summary.output_tokens)
        self._queue.observe(summary.queue)
        self._duration.observe(summary.duration)
        if summary.first_token is not None:
            self._first_token.observe(summary.first_token)
        for gap in summary.gaps:
            self._gap.observe(gap)

    def render(self) -> bytes:
        """Return all metrics in the text format 0.0.4."""
        return generate_latest(self._registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"responsed_{name}", description, labels, registry=self._registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"responsed_{name}", description, registry=self._registry, buckets=buckets)
