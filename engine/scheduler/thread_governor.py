"""Choose the number of threads for each step, and give way to other processes. Pure.

llama.cpp's threads wait for each other dozens of times a step: if another process uses one of their cores, all wait for
the one that lacks a core, and fewer threads may be faster. Therefore counts are compared by the times of real steps. A
probe is one step with another count, so a wrong guess costs one step. Probes become rarer while they fail, and one with
fewer threads follows at once if steps become slow.
"""

from collections.abc import Sequence

from engine.model import ThreadCounts

MIN_PROBE_SECONDS = 0.5
"""Minimum seconds between two probes. The time doubles whenever all other counts were probed and have failed."""
MAX_PROBE_SECONDS = 60.0
"""Maximum seconds between two probes."""
SLOW_RATIO = 1.5
"""Smallest ratio of a slow step's time to the usual time with as many threads."""
SLOW_STEPS = 3
"""Number of slow steps in a row that lead to a probe of fewer threads."""
WAITING_SHARE = 0.5
"""Smallest share of time in which some task waited for a core that makes a step count as slow."""
MIN_GAIN = 0.85
"""Largest ratio of times at which more threads are worth their cores. Fewer threads only have to be no slower."""
RECENT_WEIGHT = 0.5
"""Weight of a step in the recent time."""
USUAL_WEIGHT = 0.02
"""Weight of a step in the usual time, which rises slowly with the length of the context, and falls at once."""
MANY_ROWS = 16
"""Smallest number of tokens of a large step. Threads wait as often in a small step, for less work between."""


class ThreadGovernor:
    """Learns from `record`; answers by `choose`. The loop calls both for each step. Counts of the user are fixed."""

    def __init__(self, counts: ThreadCounts) -> None:
        single = _ladder(counts.decode, counts.decode_is_fixed)
        several = _ladder(counts.batch, counts.batch_is_fixed)
        self._single, self._few, self._many = _StepKind(single), _StepKind(several), _StepKind(several)

    def choose(self, rows: int, now: float) -> tuple[int, int]:
        """Return the counts for the next step, which has `rows` tokens: for one token, and for several."""
        kind = self._kind(rows)
        count = kind.choose(rows, now)
        return (count, self._many.count) if kind is self._single else (self._single.count, count)

    def record(self, rows: int, seconds: float, now: float, waiting: float = 0.0) -> None:
        """Record the step for which `choose` was called last. `waiting` is the share of time in which some task of the
        machine waited for a core."""
        self._kind(rows).record(rows, seconds, now, waiting)

    def _kind(self, rows: int) -> "_StepKind":
        if rows <= 1:
            return self._single
        return self._few if rows < MANY_ROWS else self._many


class _StepKind:
    """The count for steps of about one size."""

    def __init__(self, counts: Sequence[int]) -> None:
        """`counts` are those to choose from; the first is the default."""
        self._counts = counts
        self._chosen = self._tried = 0
        """Index of the count in use, and of the last step's, which differs in a probe."""
        self._recent: dict[tuple[int, int], float] = {}
        """Seconds per token of the last steps, by index of the count and size of the step."""
        self._usual: dict[tuple[int, int], float] = {}
        self._slow_steps = 0
        self._slow_probes = 0
        """Number of probes that slow steps have led to since the last usual step or change of the count."""
        self._failures = 0
        """Number of probes since the count in use was chosen."""
        self._last_probe = -MAX_PROBE_SECONDS
        self._next_probe: float | None = None

    @property
    def count(self) -> int:
        return self._counts[self._chosen]

    def choose(self, rows: int, now: float) -> int:
        self._tried = self._chosen
        if self._next_probe is None:
            self._next_probe = now + MIN_PROBE_SECONDS
        slow = self._slow_steps >= SLOW_STEPS and now >= self._last_probe + self._back_off(self._slow_probes)
        size = rows.bit_length()
        if (slow or now >= self._next_probe) and (self._chosen, size) in self._recent:
            candidate = self._candidate(fewer=slow)
            if slow or not self._is_known_slower(candidate, size):
                self._tried = candidate
                self._slow_probes += slow
        return self._counts[self._tried]

    def record(self, rows: int, seconds: float, now: float, waiting: float) -> None:
        size, time = rows.bit_length(), seconds / rows
        if self._tried != self._chosen:
            self._judge(time / self._recent[self._chosen, size], now)
            self._slow_steps = 0
        else:
            slow = time > SLOW_RATIO * self._usual.get((self._tried, size), time) or waiting > WAITING_SHARE
            self._slow_steps = self._slow_steps + 1 if slow else 0
            self._slow_probes = self._slow_probes if slow else 0
        self._remember((self._tried, size), time)
        self._tried = self._chosen

    def _is_known_slower(self, candidate: int, size: int) -> bool:
        """Return True for fewer threads whose usual time is longer than the present time of the count in use."""
        usual = self._usual.get((candidate, size), 0.0)
        return candidate > self._chosen and usual > self._recent[self._chosen, size]

    def _candidate(self, *, fewer: bool) -> int:
        """Return the index of the count to probe: the nearest first, and the others in turn while probes fail."""
        others = [index for index in range(len(self._counts)) if index != self._chosen]
        smaller = [index for index in others if index > self._chosen]
        if fewer and smaller:
            others = smaller
        others.sort(key=lambda index: abs(index - self._chosen))
        return others[self._failures % len(others)] if others else self._chosen

    def _judge(self, ratio: float, now: float) -> None:
        """End a probe whose time had this ratio to the recent time of the count in use."""
        if ratio < MIN_GAIN if self._tried < self._chosen else ratio <= 1.0:
            self._chosen, self._failures, self._slow_probes = self._tried, 0, 0
        else:
            self._failures += 1
        self._last_probe, self._next_probe = now, now + self._back_off(self._failures)

    def _back_off(self, probes: int) -> float:
        """Return the seconds until the next probe, after that many without success."""
        rounds = probes // max(len(self._counts) - 1, 1)
        return min(MIN_PROBE_SECONDS * 2.0 ** min(rounds, 30), MAX_PROBE_SECONDS)

    def _remember(self, key: tuple[int, int], time: float) -> None:
        recent, usual = self._recent.get(key, time), self._usual.get(key, time)
        self._recent[key] = recent + RECENT_WEIGHT * (time - recent)
        self._usual[key] = min(time, usual + USUAL_WEIGHT * (time - usual))


def _ladder(most: int, fixed: bool) -> list[int]:
    """Return the counts to choose from: down to one in steps of a quarter; only `most` if it is fixed."""
    counts = [most]
    while counts[-1] > 1 and not fixed:
        counts.append(counts[-1] - max(1, counts[-1] // 4))
    return counts
