"""`engine.scheduler.scheduler` with tables of steps, and with random steps against a naive model of a KV cache."""

from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.job import EngineOutput, Finished, FinishReason, Job, Progress, SamplingParams, Started, Token
from engine.model import BatchEntry, ModelInfo
from engine.scheduler.scheduler import PREFILL_CHUNK, Scheduler
from engine.scheduler.slots import Key
from engine.scheduler.step import Step

END = 0
GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
STOP, LENGTH = Finished(FinishReason.STOP), Finished(FinishReason.LENGTH)


def job(*prompt: int, max_tokens: int = 100, client: str = "", affinity: str = "") -> Job:
    return Job(prompt, max_tokens, GREEDY, client, affinity)


def without_progress(outputs: Sequence[EngineOutput], n_prompt: int) -> list[EngineOutput]:
    """Return the outputs without `Progress`, which must come before the first token and rise."""
    counts = [output.evaluated_tokens for output in outputs if isinstance(output, Progress)]
    assert counts == sorted(set(counts)), counts
    assert all(0 < evaluated < n_prompt for evaluated in counts)
    kinds = [type(output) for output in outputs]
    assert kinds[1 : 1 + len(counts)] == [Progress] * len(counts)
    return [output for output in outputs if not isinstance(output, Progress)]


def next_token(tokens: list[int]) -> int:
    """Return the naive model's next token: a function of all tokens before it, sometimes an end token."""
    return sum((n + 1) * token for n, token in enumerate(tokens)) % 7


class Play:
    """A scheduler, and a model that stores its tokens and answers with `next_token`."""

    def __init__(self, n_slots: int = 2, n_ctx: int = 100, answer: list[int] | None = None) -> None:
        capable = {
            "batched": False,
            "copies_prefixes": False,
            "multi_row_logits": False,
            "saves_state": False,
            "cuts_state": False,
            "truncates": True,
        }
        info = ModelInfo("naive", n_ctx, n_slots, n_vocab=7, max_batch_tokens=n_ctx, **capable)
        self.scheduler = Scheduler(info, {END})
        self.cached: list[list[int]] = [[] for _ in range(n_slots)]
        self.answer = answer
        self.steps: list[BatchEntry] = []
        self.outputs: list[tuple[Key, EngineOutput]] = []

    def add(self, key: Key, *prompt: int, max_tokens: int = 100) -> "Play":
        self.scheduler.add(key, job(*prompt, max_tokens=max_tokens))
        return self

    def step(self, error: str = "") -> list[tuple[Key, EngineOutput]]:
        plan = self.scheduler.plan()
        self.steps += plan.entries
        assert len(plan.entries) <= 1, "the slots take turns"
        if error:
            for entry in plan.entries:
                del self.cached[entry.slot][entry.position :]
            outputs = self.scheduler.fail(plan, error)
        else:
            outputs = self.scheduler.update(plan, self._evaluate(plan.entries), seconds=0.01)
        self.outputs += outputs
        return outputs

    def run(self) -> "Play":
        while not self.scheduler.idle:
            self.step()
        return self

    def of(self, key: Key) -> list[EngineOutput]:
        return [output for whose, output in self.outputs if whose == key]

    @property
    def slots(self) -> list[int]:
        return [entry.slot for entry in self.steps]

    def _evaluate(self, entries: Sequence[BatchEntry]) -> dict[int, list[Token]]:
        sampled = {}
        for entry in entries:
            cached = self.cached[entry.slot]
            assert entry.position <= len(cached), "no gap between what is cached and what comes"
            assert 1 <= len(entry.tokens) <= PREFILL_CHUNK
            cached[entry.position :] = entry.tokens
            if entry.logits:
                sampled[entry.slot] = [Token(next_token(cached) if self.answer is None else self.answer.pop(0))]
        return sampled


def test_update_returns_started_tokens_finished() -> None:
    play = Play(answer=[4, 5, END]).add(1, 1, 2, 3).run()
    assert play.outputs == [(1, Started(0)), (1, Token(4)), (1, Token(5)), (1, STOP)]
    assert play.steps == [BatchEntry(0, 0, [1, 2, 3], True), BatchEntry(0, 3, [4], True), BatchEntry(0, 4, [5], True)]


@pytest.mark.parametrize(
    ("n_prompt", "sizes"),
    [(1, [1]), (15, [15]), (16, [16]), (17, [16, 1]), (32, [16, 16]), (40, [16, 16, 8])],
)
def test_plan_splits_a_prompt_and_samples_once(n_prompt: int, sizes: list[int]) -> None:
    assert PREFILL_CHUNK == 16
    play = Play(answer=[END]).add(1, *range(1, n_prompt + 1)).run()
    assert [len(entry.tokens) for entry in play.steps] == sizes
    assert [entry.position for entry in play.steps] == list(range(0, n_prompt, 16))
    assert [entry.logits for entry in play.steps] == [False] * (len(sizes) - 1) + [True]
    counts = [(1, Progress(16 * (part + 1))) for part in range(len(sizes) - 1)]
    assert play.outputs == [(1, Started(0)), *counts, (1, STOP)]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "n_ctx", "answer", "expected"),
    [
        ([1], 3, 100, [2, 3, 4], [Token(2), Token(3), Token(4), LENGTH]),
        ([1], 1, 100, [2], [Token(2), LENGTH]),
        ([1], 1, 100, [END], [STOP]),
        ([1, 2], 0, 100, [3], [LENGTH]),  # the prompt is evaluated, and nothing is generated
        ([1], 2, 100, [2, END], [Token(2), STOP]),  # an end token right at the limit is an end
        ([1, 2], 100, 4, [3, 4], [Token(3), Token(4), LENGTH]),  # the context is full
        ([1, 2, 3], 100, 3, [4], [Token(4), LENGTH]),  # the last token needs no cell of the KV cache
    ],
)
def test_update_ends_a_generation_with_its_reason(
    prompt: list[int], max_tokens: int, n_ctx: int, answer: list[int], expected: list[EngineOutput]
) -> None:
    play = Play(n_ctx=n_ctx, answer=answer).add(1, *prompt, max_tokens=max_tokens).run()
    assert play.of(1) == [Started(0), *expected]
    assert play.answer == []


def test_add_of_one_client_gets_slots_in_order() -> None:
    play = Play(n_slots=2, answer=[END] * 4)
    for key in range(4):
        play.add(key, 5, key)
    play.run()
    assert [key for key, output in play.outputs if isinstance(output, Started)] == [0, 1, 2, 3]


def test_add_of_several_clients_gets_slots_in_turn() -> None:
    play = Play(n_slots=1, answer=[END] * 7)
    for key, client in enumerate("AAAABBC"):
        play.scheduler.add(key, job(5, key, client=client))
    play.run()
    assert [key for key, output in play.outputs if isinstance(output, Started)] == [0, 4, 6, 1, 5, 2, 3]


def test_cancel_of_a_waiting_job_preserves_its_clients_turn() -> None:
    play = Play(n_slots=1, answer=[END] * 3)
    for key, client in enumerate("AABB"):
        play.scheduler.add(key, job(5, key, client=client))
    play.scheduler.cancel(0)
    play.run()
    assert [key for key, output in play.outputs if isinstance(output, Started)] == [1, 2, 3]


def test_plan_without_batching_alternates_slots() -> None:
    play = Play(n_slots=3, answer=[1] * 9)
    for key in range(3):
        play.add(key, key + 1, max_tokens=3)
    play.run()
    assert play.slots == [0, 1, 2] * 3


def test_plan_without_batching_alternates_a_prompt_with_an_answer() -> None:
    play = Play(answer=[1] * 6).add(1, 1, max_tokens=5)
    play.step()
    play.add(2, *range(40), max_tokens=1)
    play.run()
    assert play.slots == [0, 0, 1, 0, 1, 0, 1, 0]
    assert [len(entry.tokens) for entry in play.steps] == [1, 1, 16, 1, 16, 1, 8, 1]


# After [1, 2, 3, 4] in slot 0 and [5, 6, 7, 8] in slot 1: the slot that one more prompt gets, and what it reuses.
@pytest.mark.parametrize(
    ("prompt", "slot", "cached"),
    [
        ([1, 2, 3, 4, 5], 0, 4),
        ([1, 2, 9], 0, 2),
        ([5, 6, 7, 8, 9], 1, 4),
        ([5, 9], 1, 1),
        ([1, 2, 3, 4], 0, 3),  # the last token is always evaluated, for its logits
        ([5, 6], 1, 1),
        ([5], 0, 0),  # so of one token nothing is reused
        ([9, 9], 0, 0),  # nothing in common: the slot that was idle longest
    ],
)
def test_plan_reuses_the_longest_prefix_of_any_slot(prompt: list[int], slot: int, cached: int) -> None:
    play = Play(answer=[END] * 3).add(1, 1, 2, 3, 4).add(2, 5, 6, 7, 8).run()
    play.steps.clear()
    play.add(3, *prompt).run()
    assert play.of(3) == [Started(cached), STOP]
    assert play.steps == [BatchEntry(slot, cached, prompt[cached:], True)]


def test_plan_of_the_next_turn_reuses_the_evaluated_answer() -> None:
    play = Play(answer=[4, 5, END, 4, 5]).add(1, 1, 2, 3).run()
    play.add(2, 1, 2, 3, 4, 5, 6, max_tokens=1).run()
    assert play.of(2)[0] == Started(5)
    play = Play(answer=[4, 5, 9]).add(1, 1, 2, 3, max_tokens=2).run()
    play.add(2, 1, 2, 3, 4, 5, 6, max_tokens=1).run()
    assert play.of(2)[0] == Started(4)


def test_plan_never_takes_a_running_slot() -> None:
    play = Play(answer=[4] * 8).add(1, 1, 2, 3, max_tokens=4)
    play.step()
    play.add(2, 1, 2, 3, 4, max_tokens=4).run()
    assert play.of(2)[0] == Started(0)
    assert play.slots[:4] == [0, 0, 1, 0]


def test_plan_without_a_prefix_takes_the_least_recently_used_slot() -> None:
    play = Play(n_slots=3, answer=[END] * 9)
    for key in range(6):
        play.add(key, key + 1).run()
    assert play.slots == [0, 1, 2, 0, 1, 2]


def test_plan_counts_the_release_as_the_last_use() -> None:
    play = Play(answer=[1, END, 1, END, END]).add(1, 1, max_tokens=9).add(2, 2, max_tokens=9)
    play.step()  # slot 0 runs on
    play.step()  # slot 1 ends at once
    play.run()
    play.add(3, 3).run()
    assert play.slots == [0, 1, 0, 0, 1]


def test_cancel_of_a_waiting_job_removes_it() -> None:
    play = Play(n_slots=1, answer=[END] * 2).add(1, 1).add(2, 2).add(3, 3)
    play.scheduler.cancel(2)
    play.run()
    assert play.outputs == [(1, Started(0)), (1, STOP), (3, Started(0)), (3, STOP)]


def test_cancel_of_a_running_job_frees_its_slot_with_its_tokens() -> None:
    play = Play(n_slots=1, answer=[4, END]).add(1, 1, 2, 3).add(2, 1, 2, 3, 4)
    play.step()
    play.scheduler.cancel(1)
    play.run()
    assert play.outputs == [(1, Started(0)), (1, Token(4)), (2, Started(3)), (2, STOP)]


def test_cancel_within_a_prompt_preserves_evaluated_tokens() -> None:
    play = Play(n_slots=1, answer=[END]).add(1, *range(1, 41))
    play.step()
    play.scheduler.cancel(1)
    assert play.scheduler.idle
    play.add(2, *range(1, 41)).run()
    assert play.of(2) == [Started(16), Progress(32), STOP]


def test_cancel_of_an_unknown_job_is_ignored() -> None:
    play = Play(answer=[END]).add(1, 1).run()
    play.scheduler.cancel(1)
    play.scheduler.cancel(99)
    assert play.scheduler.idle
    assert play.scheduler.plan() == Step()


def test_fail_ends_only_its_job_and_drops_unevaluated_tokens() -> None:
    play = Play(answer=[END, END, END]).add(1, *range(1, 21)).add(2, 3)
    play.step()
    assert play.step() == [(2, Started(0)), (2, STOP)]
    assert play.step("no more memory") == [(1, Finished(FinishReason.FAILED, "no more memory"))]
    assert play.scheduler.idle
    play.add(3, *range(1, 21)).run()
    assert play.of(3) == [Started(16), STOP]


def test_fail_before_the_first_token_returns_finished_alone() -> None:
    play = Play().add(1, 1)
    assert play.step("broken") == [(1, Finished(FinishReason.FAILED, "broken"))]


prompts = st.lists(st.integers(1, 2), min_size=1, max_size=40)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), prompts, st.integers(1, 6)),
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("fail")),
        st.tuples(st.just("cancel"), st.integers(0, 12)),
    ),
    max_size=30,
)


def expected_answer(prompt: list[int], max_tokens: int, n_ctx: int) -> list[EngineOutput]:
    """Return the answer of a model that runs only this job."""
    tokens, outputs = list(prompt), list[EngineOutput]()
    while len(tokens) < min(len(prompt) + max_tokens, n_ctx) or len(tokens) == len(prompt):
        if (token := next_token(tokens)) == END:
            return [*outputs, STOP]
        tokens.append(token)
        outputs.append(Token(token))
    return [*outputs, LENGTH]


class FairPlay(Play):
    """A scheduler in which each running job must have a turn within as many steps as there are slots."""

    def __init__(self, n_slots: int, n_ctx: int) -> None:
        super().__init__(n_slots, n_ctx)
        self.n_ctx = n_ctx
        self.jobs: dict[Key, tuple[list[int], int]] = {}
        self.cancelled: set[Key] = set()
        self.waits: defaultdict[Key, int] = defaultdict(int)
        """Steps since an admitted job's last turn."""

    def act(self, action: tuple[str, list[int], int] | tuple[str, int] | tuple[str]) -> None:
        match action:
            case ("add", list(prompt), int(max_tokens)):
                self.jobs[len(self.jobs)] = (prompt, max_tokens)
                self.add(len(self.jobs) - 1, *prompt, max_tokens=max_tokens)
            case ("step", int(times)):
                for _ in range(times):
                    self.step()
            case ("fail",):
                self.step("failed")
            case ("cancel", int(key)):
                self.scheduler.cancel(key)
                self.cancelled |= {key} & self.jobs.keys()

    def step(self, error: str = "") -> list[tuple[Key, EngineOutput]]:
        n = len(self.steps)
        outputs = super().step(error)
        running = {slot.running.key: slot for slot in self.scheduler._slots if slot.running is not None}
        ended = any(isinstance(output, Finished) for _, output in outputs)
        turned = set() if ended else {self.scheduler.key(entry.slot) for entry in self.steps[n:]}
        for key, slot in running.items():
            self.waits[key] = 0 if key in turned else self.waits[key] + 1
            assert self.waits[key] < len(self.cached), "who runs has a turn within n_slots steps"
            known = slot.cached_tokens
            assert known == self.cached[slot.index][: len(known)], "the scheduler knows what the model has"
        return outputs

    def check(self, key: Key) -> None:
        """Check that the outputs of a job are those of the job alone, up to the place where it was ended."""
        prompt, max_tokens = self.jobs[key]
        counts = without_progress(self.of(key), len(prompt))
        whole = expected_answer(prompt, max_tokens, self.n_ctx)
        failure = [Finished(FinishReason.FAILED, "failed")]
        started = counts[:1] if counts[:1] != failure else []
        assert all(isinstance(output, Started) and 0 <= output.cached_tokens < len(prompt) for output in started)
        if counts[-1:] == failure:
            assert counts[len(started) : -1] == whole[: len(counts) - len(started) - 1]
        elif key in self.cancelled:
            assert counts[1:] == whole[: max(0, len(counts) - 1)]
        else:
            assert counts[1:] == whole


@pytest.mark.slow
@given(actions, st.integers(1, 3), st.sampled_from([40, 43]))
def test_scheduler_in_any_order_of_events_gives_each_job_its_lone_answer(
    todo: list[tuple[str, list[int], int] | tuple[str, int] | tuple[str]], n_slots: int, n_ctx: int
) -> None:
    play = FairPlay(n_slots, n_ctx)
    for action in todo:
        play.act(action)
    for _ in range(1000):
        if play.scheduler.idle:
            break
        play.step()
    assert play.scheduler.idle
    for key in play.jobs:
        play.check(key)
