"""Lanes: interactive jobs go before batch jobs, and every batch job ends."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.job import EngineOutput, Job, Lane, Progress, Started, Token
from engine.scheduler import lanes
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.slots import Slot, TokenSequence
from engine.scheduler.stats import Counters
from tests.engine.scheduler.test_batching import GREEDY, Naive, expected, forced_tokens, info, sampled, tree_of

LANES = {"i": Lane.INTERACTIVE, "b": Lane.BATCH}


def job(lane: Lane, *prompt: int, n: int = 5, client: str = "") -> Job:
    return Job(prompt, n, GREEDY, client, lane=lane)


def sequence(key: int, lane: Lane) -> TokenSequence:
    return TokenSequence(key, job(lane, 1))


class LanePlay:
    """A scheduler with the naive model."""

    def __init__(
        self, n_slots: int, *, caching: bool = True, cuts: bool = True, forcing: bool = False, seconds: float = 1.0
    ) -> None:
        """`seconds`: time of every step."""
        self.seconds = seconds
        about = info(n_slots, rewinds=cuts)
        tree = tree_of(about) if caching else None
        self.counters = Counters()
        self.scheduler = Scheduler(about, [9], tree=tree, counters=self.counters)
        self.model = Naive(about, tree, forcing)
        self.jobs: dict[int, Job] = {}
        self.outputs: dict[int, list[EngineOutput]] = {}
        self.steps: list[set[int]] = []
        """Keys of the jobs in each step."""

    def add(self, *jobs: Job) -> None:
        for each in jobs:
            key = len(self.jobs)
            self.jobs[key] = each
            self.outputs[key] = []
            self.scheduler.add(key, each)

    def step(self) -> None:
        plan = self.scheduler.plan()
        self.steps.append({self.scheduler.key(entry.slot) for entry in plan.entries})
        for key, output in self.scheduler.update(plan, self.model.run(plan), self.seconds, self.model.forced):
            self.outputs[key].append(output)

    def run(self) -> None:
        for _ in range(10_000):
            if self.scheduler.idle:
                return
            self.step()
        raise AssertionError("it never ends")

    def ended(self, key: int) -> bool:
        return bool(self.outputs[key]) and not isinstance(self.outputs[key][-1], Started | Progress | Token)

    def answer(self, key: int) -> list[EngineOutput]:
        return [sampled(output) for output in self.outputs[key] if not isinstance(output, Started | Progress)]

    @property
    def lanes(self) -> Iterator[set[Lane]]:
        return ({self.jobs[key].lane for key in keys} for keys in self.steps)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.sampled_from("ib"), st.lists(st.integers(10, 15), min_size=1, max_size=90), st.integers(0, 30)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_answers_of_both_lanes_equal_those_of_jobs_alone(
    arrivals: list[tuple[str, list[int], int]], n_slots: int, caching: bool, cuts: bool, forcing: bool
) -> None:
    play = LanePlay(n_slots, caching=caching, cuts=cuts, forcing=forcing)
    for lane, prompt, steps in arrivals:
        play.add(job(LANES[lane], *prompt, n=25))
        for _ in range(steps):
            if not play.scheduler.idle:
                play.step()
    play.run()
    for key, each in play.jobs.items():
        assert play.answer(key) == expected(each, 1000)
        assert [type(output) for output in play.outputs[key]].count(Started) == 1
        counts = [output.evaluated_tokens for output in play.outputs[key] if isinstance(output, Progress)]
        assert counts == sorted(set(counts))
        assert all(count <= len(each.prompt) for count in counts)
    tokens = [output for outputs in play.outputs.values() for output in outputs if isinstance(output, Token)]
    stats = play.counters.snapshot()
    assert (stats.output_tokens, stats.forced_tokens) == (len(tokens), sum(token.forced for token in tokens))
    assert stats.decode_steps.count + stats.prefill_steps.count == len(play.steps)
    assert stats.accepted_draft_tokens <= stats.draft_tokens


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 40)), min_size=1, max_size=6),
    st.integers(1, 3),
    st.booleans(),
)
def test_batch_jobs_get_no_row_beside_an_interactive_job(
    arrivals: list[tuple[int, int]], n_slots: int, caching: bool
) -> None:
    play = LanePlay(n_slots, caching=caching, seconds=lanes.MAX_DEBT_SECONDS / 1000)
    play.add(*(job(Lane.BATCH, *range(10, 40), key, n=40) for key in range(3)))
    for n_prompt, steps in arrivals:
        play.step()
        play.add(job(Lane.INTERACTIVE, *([10] * n_prompt)))
        for _ in range(steps):
            if any(not play.ended(key) and each.lane is Lane.INTERACTIVE for key, each in play.jobs.items()):
                play.step()
                assert {play.jobs[key].lane for key in play.steps[-1]} == {Lane.INTERACTIVE}
    play.run()


@pytest.mark.slow
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 60), st.booleans())
def test_batch_job_ends_beside_endless_interactive_jobs(
    n_slots: int, n_batch: int, n_prompt: int, caching: bool
) -> None:
    play = LanePlay(n_slots, caching=caching)
    play.add(*(job(Lane.BATCH, *([10] * n_prompt), key, client="batch") for key in range(n_batch)))
    bound = n_batch * (lanes.MAX_DEBT_SECONDS + 100 * n_slots)
    while not all(play.ended(key) for key in range(n_batch)):
        while sum(not play.ended(key) for key in play.jobs if key >= n_batch) < n_slots + 1:
            play.add(job(Lane.INTERACTIVE, 11, 12, len(play.jobs), client="person"))
        play.step()
        assert len(play.steps) < bound


def test_batch_job_leaves_its_slot_and_continues_from_the_cache() -> None:
    play = LanePlay(1)
    play.add(job(Lane.BATCH, *range(10, 40), n=20))
    while len(_ids(play, 0)) < 3:
        play.step()
    n_steps = len(play.steps)
    play.add(job(Lane.INTERACTIVE, 50, 51))
    play.run()
    order = [next(iter(keys)) for keys in play.steps]
    assert order == [0] * n_steps + [1] * order.count(1) + [0] * (order.count(0) - n_steps)
    assert play.model.restored >= 30, "the batch job's tokens come from the tree"
    assert play.answer(0) == expected(play.jobs[0], 1000)


def test_batch_job_that_left_its_slot_too_often_stays() -> None:
    play = LanePlay(1, caching=False)
    play.add(job(Lane.BATCH, 10, n=100))
    for key in range(1, lanes.MAX_PREEMPTIONS + 2):
        play.step()
        play.add(job(Lane.INTERACTIVE, 50, n=1))
        play.step()
        assert play.ended(key) is (key <= lanes.MAX_PREEMPTIONS)
    play.run()
    assert all(play.answer(key) == expected(each, 1000) for key, each in play.jobs.items())


@pytest.mark.parametrize(
    ("steps", "promoted"),
    [
        ([("i", 59.0)], False),
        ([("i", 60.0)], True),
        ([("i", 30.0), ("b", 10.0), ("i", 30.0)], False),
        ([("i", 30.0), ("b", 10.0), ("i", 40.0)], True),
        ([("b", 100.0), ("i", 59.0)], False),
    ],
)
def test_debt_to_the_batch_lane_promotes_one_job(steps: Sequence[tuple[str, float]], promoted: bool) -> None:
    queue = lanes.Lanes([])
    queue.add(sequence(1, Lane.BATCH))
    queue.add(sequence(2, Lane.BATCH))
    for lane, seconds in steps:
        queue.record(lane == "b", seconds)
        queue.promote()
    assert queue.next_lane is (Lane.INTERACTIVE if promoted else Lane.BATCH)
    assert queue.next(queue.next_lane).key == 1
    assert queue.next_lane is Lane.BATCH


def test_running_batch_job_is_promoted_before_a_waiting_one() -> None:
    slot = Slot(0)
    slot.running = sequence(1, Lane.BATCH)
    queue = lanes.Lanes([slot])
    queue.add(sequence(2, Lane.BATCH))
    queue.record(False, lanes.MAX_DEBT_SECONDS)
    queue.promote()
    assert not slot.running.is_batch
    assert queue.next_lane is Lane.BATCH


def test_forced_tokens_of_a_batch_job_survive_its_preemption() -> None:
    play = LanePlay(1, forcing=True)
    play.add(job(Lane.BATCH, *range(10, 40), n=30))
    while not (forced := forced_tokens([*play.jobs[0].prompt, *_ids(play, 0)])):
        play.step()
    play.step()
    assert not play.ended(0)
    play.add(job(Lane.INTERACTIVE, 50))
    play.run()
    assert forced
    assert play.answer(0) == expected(play.jobs[0], 1000)


def _ids(play: LanePlay, key: int) -> list[int]:
    return [output.id for output in play.outputs[key] if isinstance(output, Token)]
