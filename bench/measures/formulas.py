"""The measures of one request, each with its formula: tools share names, not formulas.

`start` in a formula is the planned start in an open loop: the time for which a request waited for the server, or for
the bench, counts. https://www.scylladb.com/2021/04/22/on-coordinated-omission/ explains it.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

from record import Record

PER_REQUEST = 90
"""Percent of a request's gaps that an objective for `itl` is compared with."""


def _since_start(record: Record, *times: float | None) -> list[float]:
    return [time + record.delay() for time in times if time is not None]


def _gaps(record: Record) -> list[float]:
    return [later - earlier for earlier, later in pairwise(record.deltas)]


def _tpot(record: Record) -> list[float]:
    if not record.deltas or record.end is None or record.output_tokens < 2:
        return []
    return [(record.end - record.deltas[0]) / (record.output_tokens - 1)]


def _normalised(record: Record) -> list[float]:
    return [each / record.output_tokens for each in _since_start(record, record.end) if record.output_tokens]


MEASURES: dict[str, tuple[str, Callable[[Record], Iterable[float]]]] = {
    "delay": (
        "start of the request - planned start (open loop)",
        lambda r: [r.delay()] if r.planned is not None else [],
    ),
    "ready": (
        "/health and /v1/models answer - start of the process",
        lambda r: _since_start(r, r.end) if r.status == "ready" else [],
    ),
    "first_byte": ("read with the first byte of the status line - start", lambda r: _since_start(r, r.first_byte)),
    "ttft": ("read with the first non-empty delta - start", lambda r: _since_start(r, *r.deltas[:1])),
    "itl": ("delta - delta before it, all gaps of all requests; in one read: 0", _gaps),
    "tpot": ("(e2e - ttft) / (n - 1), n = usage.output_tokens", _tpot),
    "e2e": ("read with the terminal event - start", lambda r: _since_start(r, r.end)),
    "normalised": ("e2e / n", _normalised),
}
"""Name -> the formula in words, and the samples of one record in seconds."""

USUAL = tuple(name for name in MEASURES if name != "ready")
"""Measures of requests."""


def samples(name: str, records: Iterable[Record]) -> list[float]:
    """Return all samples of a measure in milliseconds."""
    _, formula = MEASURES[name]
    return [1000 * value for record in records for value in formula(record)]
