"""Families of samples for Prometheus, made from plain numbers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from engine.scheduler import Times
from server.generation import GeneratingServer

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def counter(name: str, description: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Return a counter; of several values, each has its key as the label's value."""
    return _family(CounterMetricFamily, name, description, value, label)


def gauge(name: str, description: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Return a gauge; of several values, each has its key as the label's value."""
    return _family(GaugeMetricFamily, name, description, value, label)


def _family(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    description: str,
    value: float | Mapping[str, float],
    label: str,
) -> Family:
    if not isinstance(value, Mapping):
        return kind(f"responsed_{name}", description, value=value)
    family = kind(f"responsed_{name}", description, labels=[label])
    for key, each in value.items():
        family.add_metric([key], each)
    return family


def histogram(name: str, description: str, label: str, times: Mapping[str, Times]) -> Family:
    family = HistogramMetricFamily(f"responsed_{name}", description, labels=[label])
    for key, each in times.items():
        bounds = [*map(floatToGoString, each.bounds), "+Inf"]
        family.add_metric([key], list(zip(bounds, accumulate(each.counts), strict=True)), each.seconds)
    return family


def server_families(servers: Sequence[GeneratingServer]) -> Iterator[Family]:
    """Yield the families of other servers that generate."""
    yield gauge("upstream_healthy", "1 if requests go there.", {each.url: each.healthy for each in servers}, "upstream")
    running = {each.url: each.running for each in servers}
    yield gauge("upstream_requests_running", "Requests in progress.", running, "upstream")
    answers = {each.url: each.answers for each in servers}
    yield counter("upstream_answers", "Requests that were answered in full.", answers, "upstream")
    errors = CounterMetricFamily("responsed_upstream_errors", "Failed attempts.", labels=["upstream", "kind"])
    for each in servers:
        for kind, count in each.errors.items():
            errors.add_metric([each.url, kind], count)
    yield errors
    times = {each.url: each.first_delta for each in servers}
    yield histogram("upstream_first_delta_seconds", "Time from a request to its first delta.", "upstream", times)
