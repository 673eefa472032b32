"""Choose the fastest threads and backend options from the stopwatch's measurements."""

from collections.abc import Sequence

from msgspec import Struct

from engine.model import BackendOptions
from engine.wording import counted

MAX_STALL_RATIO = 3.0
"""Largest acceptable ratio of the busy 99th percentile to the usual token time.

A thread count with a core for each thread stays under 3. A larger count waits for whole time slices of the
system's scheduler: 10 and more.
"""
TIE_RATIO = 1.05
"""Ratio of two times up to which they count as equal: machines are noisy."""


class Trial(Struct, frozen=True):
    """One combination of settings to measure."""

    threads: int
    backend_options: BackendOptions = BackendOptions()
    weights: str = "as it is"

    def __str__(self) -> str:
        plain = counted(self.threads, "thread")
        return plain if self.backend_options.flash_attention else f"{plain} without flash attention"


class Measurement(Struct, frozen=True):
    """Medians over a trial's rounds."""

    trial: Trial
    prefill: float
    """Prompt tokens a second."""
    decode_ms: float
    """Milliseconds a token of a single stream."""
    batch4_ms: float | None
    """Milliseconds a step of four streams; None if the model cannot batch."""
    busy_p99_ms: float
    """99th percentile of a token's milliseconds while another process uses a core."""


class TrialChoice(Struct, frozen=True):
    """The chosen trial and the reason."""

    best: Measurement
    reason: str
    """One sentence."""


def choose(measurements: Sequence[Measurement]) -> TrialChoice:
    """Return the trial with the fastest token among those without stalls; among equals, the one with the fastest
    prompt."""
    without_stalls = _without_stalls(measurements)
    fastest = min(without_stalls, key=lambda each: each.decode_ms)
    ties = [each for each in without_stalls if each.decode_ms <= TIE_RATIO * fastest.decode_ms]
    best = max(ties, key=lambda each: each.prefill)
    fastest_of_all = min(measurements, key=lambda each: each.decode_ms)
    beside = f"beside a busy process 1 token in 100 takes more than {best.busy_p99_ms:.1f} ms"
    if fastest_of_all not in without_stalls and TIE_RATIO * fastest_of_all.decode_ms < best.decode_ms:
        other = f"{fastest_of_all.trial} would decode faster ({fastest_of_all.decode_ms:.1f} ms a token)"
        reason = (
            f"{other}, but beside a busy process 1 token in 100 takes more than {fastest_of_all.busy_p99_ms:.0f} ms"
        )
    elif best != fastest:
        reason = f"it decodes as fast as any ({best.decode_ms:.1f} ms a token), and prefills fastest; {beside}"
    else:
        rest = "" if best == fastest_of_all else " of those without stalls"
        reason = f"it decodes fastest{rest} ({best.decode_ms:.1f} ms a token); {beside}"
    return TrialChoice(best, reason)


def choose_batch_threads(measurements: Sequence[Measurement], backend_options: BackendOptions) -> Measurement:
    """Return the trial of these options with the fastest prompt; among equals, the one with the fewest threads.

    Stalls don't count here: while the number is automatic, the engine gives way to other processes.
    """
    trials = [each for each in measurements if each.trial.backend_options == backend_options]
    fastest = max(each.prefill for each in trials)
    return min((each for each in trials if TIE_RATIO * each.prefill >= fastest), key=lambda each: each.trial.threads)


def _without_stalls(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Return the measurements whose thread count does not stall; if every count stalls, those of the steadiest one.

    A count is judged by its steadiest trial: backend options do not change how threads wait for each other.
    """
    stall_ratios: dict[int, float] = {}
    for each in measurements:
        ratio = each.busy_p99_ms / each.decode_ms
        stall_ratios[each.trial.threads] = min(ratio, stall_ratios.get(each.trial.threads, ratio))
    limit = max(MAX_STALL_RATIO, min(stall_ratios.values()))
    return [each for each in measurements if stall_ratios[each.trial.threads] <= limit]
