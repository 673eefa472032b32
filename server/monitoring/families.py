"""Families of samples for Prometheus, made from plain numbers."""

from collections.abc import Mapping
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from engine.scheduler import Times

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def counter(name: str, description: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Return a counter; of several values, each has its key as the label's value."""
    if not isinstance(value, Mapping):
        return CounterMetricFamily(f"responsed_{name}", description, value=value)
    family = CounterMetricFamily(f"responsed_{name}", description, labels=[label])
    for key, each in value.items():
        family.add_metric([key], each)
    return family


def gauge(name: str, description: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Return a gauge; of several values, each has its key as the label's value."""
    if not isinstance(value, Mapping):
        return GaugeMetricFamily(f"responsed_{name}", description, value=value)
    family = GaugeMetricFamily(f"responsed_{name}", description, labels=[label])
    for key, each in value.items():
        family.add_metric([key], each)
    return family


def histogram(name: str, description: str, label: str, times: Mapping[str, Times]) -> Family:
    family = HistogramMetricFamily(f"responsed_{name}", description, labels=[label])
    for key, each in times.items():
        bounds = [*map(floatToGoString, each.bounds), "+Inf"]
        family.add_metric([key], list(zip(bounds, accumulate(each.counts), strict=True)), each.seconds)
    return family
