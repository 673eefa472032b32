"""The scheduler with a model that evaluates all slots together and copies prefixes between them."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.job import EngineOutput, Finished, FinishReason, Job, Lane, Progress, SamplingParams, Started, Token
from engine.model import BatchEntry, ModelInfo, SavedState
from engine.prefix_cache import CachedRun, PrefixTree
from engine.scheduler.prefix_reuse import MIN_PREFIX_COPY_TOKENS
from engine.scheduler.prompt_planner import PromptPlanner
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.slots import Slot, TokenSequence
from engine.scheduler.step import PrefixCopy, PrefixRestore, PrefixSave, Step, Transfer
from engine.scheduler.step_budget import StepBudget

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
END = 9
LONG = tuple(range(100, 100 + 3 * MIN_PREFIX_COPY_TOKENS))


def info(n_slots: int = 4, n_ctx: int = 1000, *, rewinds: bool = True, cuts: bool = True, tile: int = 1) -> ModelInfo:
    return ModelInfo(
        "naive",
        n_ctx,
        n_slots,
        1000,
        max_batch_tokens=64,
        batched=True,
        copies_prefixes=rewinds,
        multi_row_logits=rewinds,
        saves_state=True,
        cuts_state=rewinds and cuts,
        truncates=rewinds,
        attention_tile=tile,
    )


def job(*prompt: int, most: int = 5) -> Job:
    return Job(prompt, most, GREEDY)


def next_token(tokens: Sequence[int]) -> int:
    """Return the naive model's next token: a function of all tokens before it, sometimes the end token."""
    return (sum(tokens) * 31 + len(tokens)) % 17


def forced_tokens(tokens: Sequence[int]) -> list[int]:
    """Return the naive grammar's forced tokens after `tokens`: most positions allow one token only."""
    found: list[int] = []
    while (len(tokens) + len(found)) % 7 > 1 and END not in found:
        found.append(next_token([*tokens, *found]))
    return found


def tree_of(info: ModelInfo, limit: int = 10**6) -> PrefixTree:
    return PrefixTree(limit, split, cuts_state=info.cuts_state)


def split(state: SavedState, at: int) -> tuple[SavedState, SavedState]:
    return SavedState(state.rows[:at], b""), SavedState(state.rows[at:], state.tail)


class Naive:
    """Carries out steps as a model would, and checks the conditions that a model relies on."""

    def __init__(self, info: ModelInfo, tree: PrefixTree | None = None, forcing: bool = False) -> None:
        """With `forcing`, the jobs have a grammar: see `forced_tokens`."""
        self.info = info
        self.tree = tree
        self.restored = 0
        self.forcing = forcing
        self.forced: dict[int, list[int]] = {}
        """Forced tokens after the last step, by slot."""
        self.cached: list[list[int]] = [[] for _ in range(info.n_slots)]
        self.evaluated = 0
        self.wrong_drafts = 0

    def run(self, plan: Step) -> dict[int, list[Token]]:
        for transfer in plan.transfers:
            self.carry_out(transfer)
        assert len({entry.slot for entry in plan.entries}) == len(plan.entries), "one entry a slot"
        assert sum(len(entry.tokens) for entry in plan.entries) <= self.info.max_batch_tokens
        sampled = {entry.slot: self._decode(entry) for entry in plan.entries}
        for entry in plan.entries:
            valid = self.cached[entry.slot][: entry.position + len(entry.tokens) - max(entry.logits - 1, 0)]
            self.forced[entry.slot] = forced_tokens([*valid, *sampled[entry.slot]]) if self.forcing else []
        return {slot: [Token(id_) for id_ in tokens] for slot, tokens in sampled.items()}

    def carry_out(self, transfer: Transfer) -> None:
        match transfer:
            case PrefixCopy(source, target, n):
                assert self.info.copies_prefixes
                self.cached[target] = self.cached[source][:n]
                assert len(self.cached[target]) == n, "only what is cached can be shared"
            case PrefixSave(slot, tokens, savable, affinity):
                assert self.tree is not None
                assert tuple(self.cached[slot][: len(tokens)]) == tokens, "only what is cached can be saved"
                if (start := self.tree.missing(tokens)) is not None:
                    state = SavedState(bytes(tokens[start:]), b"" if self.info.cuts_state else b"tail")
                    self.tree.insert(CachedRun(tokens, start, state, frozenset({affinity})), savable)
            case PrefixRestore(target, tokens, states):
                rows = b"".join(bytes(state.rows) for state in states)
                assert rows[: len(tokens)] == bytes(tokens), "a hit is a true prefix"
                if not self.info.cuts_state:
                    assert (rows, states[-1].tail) == (bytes(tokens), b"tail"), "only whole states can be continued"
                self.cached[target] = list(tokens)
                self.restored += len(tokens)

    def _decode(self, entry: BatchEntry) -> list[int]:
        cached = self.cached[entry.slot]
        assert entry.tokens, "an empty entry has no logits"
        assert entry.position <= len(cached), "positions are contiguous"
        assert entry.position + len(entry.tokens) <= self.info.n_ctx
        if not self.info.truncates:
            assert entry.position in (0, len(cached)), "all or nothing is kept"
        cached[entry.position :] = entry.tokens
        self.evaluated += len(entry.tokens)
        tokens: list[int] = []
        for behind in reversed(range(entry.logits)):
            tokens.append(next_token(cached[: len(cached) - behind]))
            if behind and tokens[-1] != cached[-behind]:
                self.wrong_drafts += 1
                break
        return tokens


def step(scheduler: Scheduler, model: Naive) -> list[tuple[int, EngineOutput]]:
    plan = scheduler.plan()
    assert plan.entries or scheduler.idle, "who is not idle goes on"
    return [(key, sampled(output)) for key, output in scheduler.update(plan, model.run(plan), 0.01, model.forced)]


def sampled(output: EngineOutput) -> EngineOutput:
    """Return a forced token as if it were sampled, and other outputs as they are."""
    return Token(output.id, output.logprobs) if isinstance(output, Token) else output


def run(scheduler: Scheduler, model: Naive) -> dict[int, list[EngineOutput]]:
    outputs: dict[int, list[EngineOutput]] = {}
    for _ in range(10_000):
        if scheduler.idle:
            return outputs
        for key, output in step(scheduler, model):
            outputs.setdefault(key, []).append(output)
    raise AssertionError("it never ends")


def expected(job: Job, n_ctx: int) -> list[EngineOutput]:
    tokens, outputs = list(job.prompt), list[EngineOutput]()
    while True:
        token = next_token(tokens)
        tokens.append(token)
        if token == END:
            return [*outputs, Finished(FinishReason.STOP)]
        outputs.append(Token(token))
        if len(tokens) >= min(len(job.prompt) + job.max_tokens, n_ctx):
            return [*outputs, Finished(FinishReason.LENGTH)]


def alone(prompt: Sequence[int], length: int) -> list[int]:
    """Return the answer of a job without end tokens, up to a length of the whole sequence."""
    tokens = list(prompt)
    while len(tokens) < length:
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


def waiting(index: int, length: int, lane: Lane) -> Slot:
    """Return a slot with a prompt of which nothing is evaluated."""
    slot = Slot(index)
    slot.running = TokenSequence(index, Job(tuple(range(length)), 1, GREEDY, lane=lane))
    return slot


def test_plan_with_streams_puts_all_into_one_step() -> None:
    scheduler, model = Scheduler(info(), []), Naive(info())
    for key in range(4):
        scheduler.add(key, job(key + 1, 20, most=50))
    for _ in range(8):
        step(scheduler, model)
    assert [entry.slot for entry in scheduler.plan().entries] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        (5, [5]),
        (31, [31]),
        (32, [16, 16]),
        (100, [17, 17, 17, 17, 16, 16]),
    ],
)
def test_plan_of_a_lone_prompt_on_a_slow_machine_fills_a_tile(prompt: int, parts: list[int]) -> None:
    scheduler, model = Scheduler(info(tile=16), []), Naive(info(tile=16))
    scheduler.add(0, job(*range(200, 264), most=1))
    while not scheduler.idle:
        plan = scheduler.plan()
        scheduler.update(plan, model.run(plan), sum(len(entry.tokens) for entry in plan.entries) * 1.0)
    scheduler.add(1, job(*range(prompt)))
    seen: list[int] = []
    while sum(seen) < prompt:
        plan = scheduler.plan()
        seen.append(len(plan.entries[0].tokens))
        scheduler.update(plan, model.run(plan), 1.0 * seen[-1])
    assert seen == parts


def test_plan_admits_a_new_job_within_two_steps_and_drops_an_ended_one() -> None:
    scheduler, model = Scheduler(info(), []), Naive(info())
    scheduler.add(0, job(1, 2, most=4))
    step(scheduler, model)
    scheduler.add(1, job(3, 4))
    assert [{key for key, _ in step(scheduler, model)} for _ in range(3)] == [{0}, {1}, {0, 1}]
    assert (0, Finished(FinishReason.LENGTH)) in step(scheduler, model)
    assert [entry.slot for entry in scheduler.plan().entries] == [1]


def test_plan_with_a_long_prompt_alternates_with_streams() -> None:
    scheduler, model = Scheduler(info(), []), Naive(info())
    scheduler.add(0, job(1, 2, most=400))
    step(scheduler, model)
    scheduler.add(1, job(*range(300), most=1))
    slots: list[int] = []
    answered = False
    while not answered:
        outputs = _kept(slots, scheduler, model)
        answered = any(key == 1 and isinstance(output, Token) for key, output in outputs)
    assert all(slots[i] != slots[i + 1] for i in range(len(slots) - 1)), "in turn"


def _kept(slots: list[int], scheduler: Scheduler, model: Naive) -> list[tuple[int, EngineOutput]]:
    plan = scheduler.plan()
    slots += [entry.slot for entry in plan.entries]
    return scheduler.update(plan, model.run(plan), 0.01)


def test_plan_with_prompts_takes_the_shortest_and_now_and_then_the_oldest() -> None:
    scheduler, model = Scheduler(info(n_slots=2), []), Naive(info(n_slots=2))
    scheduler.add(0, job(*range(400), most=1))
    step(scheduler, model)
    done, key = [], 1
    while 0 not in done:
        scheduler.add(key, job(key, 7, 8, most=1))
        done += [who for who, output in step(scheduler, model) if isinstance(output, Finished)]
        key += 1
    assert 10 < len(done) < 1000


@pytest.mark.parametrize("earlier_jobs", range(8))
def test_plan_beside_short_prompts_at_regular_times_does_not_starve_the_oldest(earlier_jobs: int) -> None:
    """The short prompts take two steps each: an admission, two prompt steps and a release, again and again."""
    about = info(n_slots=2)
    scheduler, model = Scheduler(about, []), Naive(about)

    def slow_step() -> set[int]:
        plan = scheduler.plan()
        keys = {scheduler.key(entry.slot) for entry in plan.entries}
        scheduler.update(plan, model.run(plan), 1.0 * sum(len(entry.tokens) for entry in plan.entries))
        return keys

    for key in range(1, 1 + earlier_jobs):
        scheduler.add(key, job(30 + key, 40, most=1))
        while not scheduler.idle:
            slow_step()
    scheduler.add(0, job(*range(400), most=1))
    steps: list[set[int]] = []
    for key in range(100, 120):
        scheduler.add(key, job(key, 7, 8, 9, most=1))
        steps += [slow_step(), slow_step()]
    assert 1 < sum({0} <= keys for keys in steps) < len(steps) / 2


def test_prompt_planner_takes_the_oldest_of_a_lane_whatever_steps_the_other_lane_has() -> None:
    planner = PromptPlanner(info(), StepBudget(64))
    prompts = {lane: [waiting(0, 40, lane), waiting(1, 30, lane)] for lane in Lane}
    lanes = [*[Lane.INTERACTIVE] * 7, Lane.BATCH] * 16
    taken = [(lane, planner.entry(prompts[lane], 0, 2).slot) for lane in lanes]
    assert [taken.count((lane, 0)) for lane in Lane] == [14, 2]


def test_fail_ends_the_steps_jobs_and_drops_copied_prefixes() -> None:
    scheduler, model = Scheduler(info(), [END]), Naive(info())
    scheduler.add(0, job(*LONG, 1, most=1))
    run(scheduler, model)
    scheduler.add(1, job(*LONG, 2, most=1))
    assert scheduler.fail(scheduler.plan(), "no") == [(1, Finished(FinishReason.FAILED, "no"))]
    scheduler.add(2, job(*LONG, 3, most=1))
    assert run(scheduler, model)[2][0] == Started(len(LONG))


@pytest.mark.parametrize(("rewinds", "cached"), [(True, 15), (False, 0)])
def test_fail_within_a_prompt_leaves_a_slot_empty_unless_it_truncates(rewinds: bool, cached: int) -> None:
    about = info(n_slots=1, rewinds=rewinds)
    scheduler, model = Scheduler(about, []), Naive(about)
    scheduler.add(1, job(*range(1, 31)))
    step(scheduler, model)
    plan = scheduler.plan()
    assert [entry.position for entry in plan.entries] == [15]
    model.cached[0][:] = model.cached[0][:cached]
    assert scheduler.fail(plan, "no") == [(1, Finished(FinishReason.FAILED, "no"))]
    scheduler.add(2, job(*range(1, 31)))
    assert run(scheduler, model)[2][0] == Started(cached)


@pytest.mark.parametrize("rewinds", [True, False])
def test_end_after_a_decode_keeps_its_tokens(rewinds: bool) -> None:
    about = info(n_slots=1, rewinds=rewinds)
    scheduler, model = Scheduler(about, []), Naive(about)
    scheduler.add(1, job(*range(1, 31)))
    step(scheduler, model)
    plan = scheduler.plan()
    model.run(plan)
    (entry,) = plan.entries
    assert scheduler.end(entry, "no") == (1, Finished(FinishReason.FAILED, "no"))
    scheduler.add(2, job(*range(1, 33)))
    assert run(scheduler, model)[2][0] == Started(30)


def test_end_after_a_decode_drops_drafts() -> None:
    about = info(n_slots=1)
    scheduler, model = Scheduler(about, []), Naive(about)
    scheduler.add(1, job(*[1, 2, 3] * 10, most=50))
    while (entry := (plan := scheduler.plan()).entries[0]).logits < 2:
        scheduler.update(plan, model.run(plan), 0.01)
    scheduler.end(entry, "no")
    draft = entry.tokens[1]
    model.cached[0][entry.position :] = entry.tokens
    scheduler.add(2, job(*model.cached[0][: entry.position + 1], draft, 5))
    assert run(scheduler, model)[2][0] == Started(entry.position + 1)


@pytest.mark.slow
def test_plan_with_many_drafts_fits_into_a_batch() -> None:
    about = info(n_slots=50)
    scheduler, model = Scheduler(about, []), Naive(about)
    for key in range(50):
        scheduler.add(key, job(*(key, key + 1, key + 2) * 3, most=20))
    run(scheduler, model)


PROMPTS = st.one_of(
    st.lists(st.integers(0, 3), min_size=1, max_size=60).map(tuple),
    st.tuples(st.integers(0, len(LONG)), st.lists(st.integers(0, 3), min_size=1, max_size=9)).map(
        lambda drawn: (*LONG[: drawn[0]], *drawn[1])
    ),
)
JOBS = st.lists(st.tuples(PROMPTS, st.integers(1, 12)), min_size=1, max_size=12)
ACTS = st.lists(st.sampled_from(["step", "add", "cancel", "fail", "fail decode", "end", "undo", "save"]), max_size=60)


@pytest.mark.parametrize("rewinds", [True, False])
@pytest.mark.parametrize("logprobs", [None, 0])
def test_plan_with_forced_tokens_evaluates_them_together(rewinds: bool, logprobs: int | None) -> None:
    """Positions 2 to 6 of 7 are forced. Their logprobs need the rows before them, one a step without such rows."""
    about = info(n_slots=1, rewinds=rewinds)
    scheduler, model = Scheduler(about, []), Naive(about, forcing=True)
    scheduler.add(0, Job((1, 2, 3, 4, 5, 6, 7), 20, GREEDY, top_logprobs=logprobs))
    plans: list[tuple[int, int]] = []
    while not scheduler.idle:
        plan = scheduler.plan()
        plans += [(len(entry.tokens), entry.logits) for entry in plan.entries]
        scheduler.update(plan, model.run(plan), 0.01, model.forced)
    if logprobs is None:
        assert plans[:4] == [(7, 1), (1, 1), (6, 1), (1, 1)]
    elif rewinds:
        assert plans[:4] == [(7, 1), (1, 1), (6, 6), (1, 1)]
    else:
        assert plans == [(7, 1), *[(1, 1)] * 19]


def test_plan_with_forced_tokens_of_one_stream_lets_the_others_have_every_second_step() -> None:
    about = info(n_slots=3)
    scheduler, model = Scheduler(about, []), Naive(about)
    for key in range(3):
        scheduler.add(key, job(key + 1, 20, most=50))
    for _ in range(6):
        step(scheduler, model)
    shapes: list[list[int]] = []
    for _ in range(4):
        plan = scheduler.plan()
        shapes.append([len(entry.tokens) for entry in plan.entries])
        sampled = model.run(plan)
        scheduler.update(plan, sampled, 0.01, {0: [5] * 6} if 0 in sampled else {})
    assert shapes == [[1, 1, 1], [7], [1, 1, 1], [6]]


@pytest.mark.parametrize("limit", range(12, 24))
@pytest.mark.parametrize("by_context", [True, False])
def test_plan_with_forced_tokens_that_await_logprobs_ends_at_the_last_needed_one(limit: int, by_context: bool) -> None:
    """The second job is further on, so that its forced tokens come at other steps than those of the first."""
    about = info(n_slots=2, n_ctx=limit if by_context else 1000)
    scheduler, model = Scheduler(about, []), Naive(about, forcing=True)
    prompts = [(1, 2, 3), (4, 5, 6, 7, 8, 10)]
    jobs = [Job(prompt, 50 if by_context else limit - len(prompt), GREEDY, top_logprobs=0) for prompt in prompts]
    for key, each in enumerate(jobs):
        scheduler.add(key, each)
    outputs: dict[int, list[EngineOutput]] = {0: [], 1: []}
    while not scheduler.idle:
        plan = scheduler.plan()
        assert all(entry.position + len(entry.tokens) < limit for entry in plan.entries)
        for key, output in scheduler.update(plan, model.run(plan), 0.01, model.forced):
            outputs[key].append(sampled(output))
    assert [outputs[key][1:] for key in outputs] == [
        [*[Token(id_) for id_ in alone(each.prompt, limit)], Finished(FinishReason.LENGTH)] for each in jobs
    ]


class PlayedEvents:
    """Jobs of a scheduler that are added, run, cancelled and failed in any order, with the outputs of each."""

    def __init__(self, scheduler: Scheduler, model: Naive, jobs: list[Job], data: st.DataObject) -> None:
        self.scheduler = scheduler
        self.model = model
        self.jobs = jobs
        self.data = data
        self.outputs: dict[int, list[EngineOutput]] = {key: [] for key in range(len(jobs))}
        self.added: list[int] = []
        self.cancelled: set[int] = set()

    def act(self, act: str) -> None:
        """Do one of `ACTS` if there is a job for it."""
        if act == "add":
            self._add()
        elif act == "cancel":
            self._cancel()
        elif act == "save":
            self.save_in_advance()
        elif not self.scheduler.idle:
            acts = {"fail": self._fail, "fail decode": self._fail_decode, "end": self._end, "undo": self._undo}
            acts.get(act, self._step)()

    def finish(self) -> None:
        for key, more in run(self.scheduler, self.model).items():
            self.outputs[key] += more

    def check(self, key: int) -> None:
        """Check that the outputs of a job are those of the job alone, up to the place where it was ended."""
        whole = expected(self.jobs[key], self.model.info.n_ctx)
        got = [output for output in self.outputs[key] if not isinstance(output, Progress)]
        failed = got[-1:] == [Finished(FinishReason.FAILED, "failed")]
        if not failed and key not in self.cancelled:
            assert isinstance(got[0], Started)
            assert got[1:] == whole
            return
        got = got[:-1] if failed else got
        assert got[1:] == whole[: len(got[1:])]

    def _add(self) -> None:
        if (key := len(self.added)) < len(self.jobs):
            self.scheduler.add(key, self.jobs[key])
            self.added.append(key)

    def _cancel(self) -> None:
        if self.added:
            self.cancelled.add(key := self.data.draw(st.sampled_from(self.added)))
            self.scheduler.cancel(key)

    def save_in_advance(self) -> None:
        """Save one slot, as an idle thread does."""
        if (save := self.scheduler.prefixes.save_in_advance(1000)) is not None:
            self.model.carry_out(save)

    def _step(self) -> None:
        self._take(step(self.scheduler, self.model))

    def _fail(self) -> None:
        self._fail_entries(self.scheduler.plan())

    def _fail_decode(self) -> None:
        plan = self.scheduler.plan()
        for transfer in plan.transfers:
            self.model.carry_out(transfer)
        self._fail_entries(Step(entries=plan.entries))

    def _fail_entries(self, plan: Step) -> None:
        for entry in plan.entries:
            del self.model.cached[entry.slot][entry.position if self.model.info.truncates else 0 :]
        self._take(self.scheduler.fail(plan, "failed"))

    def _end(self) -> None:
        """End the job of a decoded entry."""
        plan = self.scheduler.plan()
        sampled = self.model.run(plan)
        self._take([self.scheduler.end(plan.entries[0], "failed")])
        self._take(self.scheduler.update(Step(entries=plan.entries[1:]), sampled, 0.01, self.model.forced))

    def _undo(self) -> None:
        self.scheduler.undo(self.scheduler.plan().transfers)

    def _take(self, outputs: Sequence[tuple[int, EngineOutput]]) -> None:
        for key, output in outputs:
            self.outputs[key].append(output)


@pytest.mark.parametrize(("rewinds", "cuts"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("cache_bytes", [0, 100, 10**6])
@settings(deadline=None)
@given(jobs=JOBS, acts=ACTS, forcing=st.booleans(), logprobs=st.sampled_from([None, 0]), data=st.data())
@pytest.mark.slow
def test_scheduler_in_any_order_of_events_gives_each_job_its_lone_answer(
    rewinds: bool,
    cuts: bool,
    cache_bytes: int,
    jobs: list[tuple[tuple[int, ...], int]],
    acts: list[str],
    forcing: bool,
    logprobs: int | None,
    data: st.DataObject,
) -> None:
    about = info(n_slots=3, n_ctx=80, rewinds=rewinds, cuts=cuts)
    tree = tree_of(about, cache_bytes) if cache_bytes else None
    made = [
        Job(prompt, most, GREEDY, top_logprobs=logprobs, lane=Lane.BATCH if key % 2 else Lane.INTERACTIVE)
        for key, (prompt, most) in enumerate(jobs)
    ]
    played = PlayedEvents(Scheduler(about, [END], tree=tree), Naive(about, tree, forcing), made, data)
    for act in [*acts, *["add"] * len(jobs)]:
        played.act(act)
    played.finish()
    for key in range(len(jobs)):
        played.check(key)
