"""The numbers of threads of a machine whose cores are taken and given back."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model import ThreadCounts
from engine.scheduler.thread_governor import MAX_PROBE_SECONDS, MIN_PROBE_SECONDS, SLOW_STEPS, ThreadGovernor

T = TypeVar("T")
AUTOMATIC = ThreadCounts(3, 4, decode_is_fixed=False, batch_is_fixed=False)
TWO_CORES = ThreadCounts(1, 2, decode_is_fixed=False, batch_is_fixed=False)


class Machine:
    """Plays steps: a step takes `work` seconds divided by its threads, times `STALL` if some thread lacks a core."""

    STALL = 10.0

    def __init__(self, counts: ThreadCounts, cores: int, work: float = 0.02) -> None:
        self.governor = ThreadGovernor(counts)
        self.free = cores
        self.now = 0.0
        self._work = work

    def step(self, rows: int) -> int:
        """Play a step and return its threads."""
        single, several = self.governor.choose(rows, self.now)
        threads = single if rows == 1 else several
        seconds = rows * self._work / threads * (self.STALL if threads > self.free else 1.0)
        self.now += seconds
        self.governor.record(rows, seconds, self.now)
        return threads

    def steps(self, rows: int, seconds: float) -> Iterator[tuple[float, int]]:
        """Play steps for that long; yield the begin and the threads of each."""
        end = self.now + seconds
        while self.now < end:
            yield self.now, self.step(rows)


@pytest.mark.parametrize(("rows", "most"), [(1, 3), (3, 4), (64, 4)])
def test_choose_at_first_returns_the_default(rows: int, most: int) -> None:
    single, several = ThreadGovernor(AUTOMATIC).choose(rows, 0.0)
    assert (single if rows == 1 else several) == most


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 64])
def test_choose_beside_a_new_process_gives_way_after_a_few_slow_steps(rows: int) -> None:
    machine = Machine(TWO_CORES, cores=2, work=0.001)
    list(machine.steps(rows, 10.0))
    machine.free = 1
    used = [machine.step(rows) for _ in range(SLOW_STEPS + 3)]
    assert used[-2:] == [1, 1]


def test_choose_with_waiting_tasks_gives_way_without_a_history() -> None:
    governor, now = ThreadGovernor(TWO_CORES), 0.0
    used = []
    for _ in range(SLOW_STEPS + 2):
        used.append(governor.choose(64, now)[1])
        governor.record(64, 0.02, now, waiting=0.9)
    assert used == [2] * SLOW_STEPS + [1, 1]


@settings(max_examples=30)
@given(rows=st.sampled_from([2, 5, 64]), busy_seconds=st.floats(5, 300))
@pytest.mark.slow
def test_choose_after_the_other_process_returns_to_all_cores(rows: int, busy_seconds: float) -> None:
    machine = Machine(TWO_CORES, cores=1, work=0.02 / rows)
    list(machine.steps(rows, busy_seconds))
    machine.free = 2
    used = [threads for _, threads in machine.steps(rows, MAX_PROBE_SECONDS + 5)]
    assert used[-10:].count(2) >= 9


@pytest.mark.slow
def test_probes_beside_a_busy_process_are_single_steps_that_become_rarer() -> None:
    machine = Machine(TWO_CORES, cores=1, work=0.001)
    steps = list(machine.steps(8, 400.0))
    begin = next(index for index, (_, threads) in enumerate(steps) if threads == 1) + 1
    probes = [at for at, threads in steps[begin:] if threads == 2]
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert [round(gap) for gap in gaps] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


@pytest.mark.slow
def test_probes_become_rarer_while_tasks_wait_but_all_cores_are_fastest() -> None:
    governor, now, probes = ThreadGovernor(TWO_CORES), 0.0, []
    while now < 200:
        threads = governor.choose(64, now)[1]
        probes += [now] if threads == 1 else []
        now += 0.02 / threads
        governor.record(64, 0.02 / threads, now, waiting=0.9)
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert [round(gap) for gap in gaps] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_choose_on_an_idle_machine_uses_all_cores_in_nearly_all_steps() -> None:
    machine = Machine(AUTOMATIC, cores=4, work=0.01)
    used = [threads for _, threads in machine.steps(64, 100.0)]
    assert used.count(4) >= 0.97 * len(used)


@pytest.mark.parametrize("cores", [1, 2, 3, 5, 8])
def test_choose_on_many_cores_settles_on_the_free_ones(cores: int) -> None:
    machine = Machine(ThreadCounts(7, 8, decode_is_fixed=False, batch_is_fixed=False), cores=cores, work=0.01)
    list(machine.steps(64, 60.0))
    used = [threads for _, threads in machine.steps(64, 60.0)]
    assert max(used, key=used.count) == cores


record = st.tuples(st.integers(1, 512), st.floats(1e-4, 10), st.floats(0, 100), st.floats(0, 1))
counts = st.builds(ThreadCounts, st.integers(1, 64), st.integers(1, 64), st.booleans(), st.booleans())


@pytest.mark.slow
@given(counts, st.lists(record, max_size=60))
def test_choose_after_any_times_stays_within_the_counts(
    counts: ThreadCounts, records: list[tuple[int, float, float, float]]
) -> None:
    for single, several in play(ThreadGovernor(counts), records, lambda rows, counts, now: counts):
        assert 1 <= single <= counts.decode
        assert 1 <= several <= counts.batch
        assert single == counts.decode or not counts.decode_is_fixed
        assert several == counts.batch or not counts.batch_is_fixed


@pytest.mark.slow
@given(st.lists(st.tuples(st.just(64), st.floats(1e-3, 1), st.floats(0, 0.1), st.floats(0, 1)), max_size=200))
def test_choose_after_any_times_changes_no_faster_than_the_least_back_off(
    records: list[tuple[int, float, float, float]],
) -> None:
    used = play(ThreadGovernor(TWO_CORES), records, lambda rows, counts, now: (now, counts[1]))
    changes = [now for (_, before), (now, after) in pairwise(used) if before != after]
    # A probe changes the count twice if it fails; the third change belongs to another probe.
    assert all(third - first >= MIN_PROBE_SECONDS / 2 for first, third in zip(changes, changes[2:], strict=False))


def play(
    governor: ThreadGovernor,
    records: list[tuple[int, float, float, float]],
    seen: Callable[[int, tuple[int, int], float], T],
) -> list[T]:
    now, outcomes = 0.0, []
    for rows, seconds, pause, waiting in records:
        outcomes.append(seen(rows, governor.choose(rows, now), now))
        now += seconds
        governor.record(rows, seconds, now, waiting)
        now += pause
    return outcomes


def test_idle_machine_probes_fewer_threads_once() -> None:
    machine = Machine(TWO_CORES, cores=2, work=0.004)
    assert [threads for _, threads in machine.steps(64, 300.0)].count(1) == 1
