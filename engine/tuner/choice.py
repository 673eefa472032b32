"""Which threads and backend_options are best here: the decision, from what the stopwatch measured."""

from collections.abc import Sequence

from msgspec import Struct

from engine.model import BackendOptions

MAX_STALL_RATIO = 3.0
"""Beside a busy process 1 token in 100 may take so many times the usual one. A count of threads that has a core for
each stays under 3; one that lacks a core waits for whole turns of the system's scheduler: 10 and more."""
TIE_RATIO = 1.05
"""Times closer than that are the same: machines are noisy."""


class Trial(Struct, frozen=True):
    """What is tried."""

    threads: int
    backend_options: BackendOptions = BackendOptions()
    weights: str = "as it is"

    def __str__(self) -> str:
        plain = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return plain if self.backend_options.flash_attention else f"{plain} without flash attention"


class Measurement(Struct, frozen=True):
    """Medians of a trial's rounds."""

    trial: Trial
    prefill: float
    """Tokens a second."""
    decode_ms: float
    """Milliseconds a token, of one stream."""
    batch4_ms: float | None
    """Milliseconds a step of four streams; None where they don't go together."""
    busy_p99_ms: float
    """Milliseconds that all but 1 token in 100 stay under, while another process keeps a core busy."""


class TrialChoice(Struct, frozen=True):
    best: Measurement
    reason: str
    """A sentence."""


def choose(measurements: Sequence[Measurement]) -> TrialChoice:
    """The quickest token, of what stays steady; among equals, the quickest prompt."""
    steady = _without_stalls(measurements)
    quickest = min(steady, key=lambda each: each.decode_ms)
    near = [each for each in steady if each.decode_ms <= TIE_RATIO * quickest.decode_ms]
    best = max(near, key=lambda each: each.prefill)
    tempting = min(measurements, key=lambda each: each.decode_ms)
    beside = f"beside a busy process 1 token in 100 takes more than {best.busy_p99_ms:.1f} ms"
    if tempting not in steady and TIE_RATIO * tempting.decode_ms < best.decode_ms:
        other = f"{tempting.trial} would decode faster ({tempting.decode_ms:.1f} ms a token)"
        reason = f"{other}, but beside a busy process 1 token in 100 takes more than {tempting.busy_p99_ms:.0f} ms"
    elif best != quickest:
        reason = f"it decodes as fast as any ({best.decode_ms:.1f} ms a token), and prefills fastest; {beside}"
    else:
        reason = f"it decodes fastest ({best.decode_ms:.1f} ms a token); {beside}"
    return TrialChoice(best, reason)


def _without_stalls(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those whose count of threads doesn't stall; of a machine where all do, the count that does least.

    A count is judged by its calmest trial: what the backend_options change is not how threads wait for each other.
    """
    calmest: dict[int, float] = {}
    for each in measurements:
        ratio = each.busy_p99_ms / each.decode_ms
        calmest[each.trial.threads] = min(ratio, calmest.get(each.trial.threads, ratio))
    limit = max(MAX_STALL_RATIO, min(calmest.values()))
    return [each for each in measurements if calmest[each.trial.threads] <= limit]
