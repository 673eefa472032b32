"""Reuse of cached prefixes: which slot a job takes, and which tokens it evaluates."""

from typing import Any

import pytest

from engine.job import Job, Progress, Started
from engine.model import BatchEntry
from engine.scheduler.scheduler import Scheduler
from engine.scheduler.step import PrefixCopy, PrefixRestore, PrefixSave, Step
from tests.engine.scheduler.test_batching import END, GREEDY, LONG, Naive, expected, info, job, run, step, tree_of


def test_plan_of_ten_jobs_with_one_prefix_evaluates_it_once() -> None:
    scheduler, model = Scheduler(info(n_slots=4), [END]), Naive(info(n_slots=4))
    for key in range(10):
        scheduler.add(key, job(*LONG, 500 + key, 600 + key, most=2))
    outputs = run(scheduler, model)
    assert [outputs[key][0] for key in range(10)] == [Started(0)] + [Started(len(LONG))] * 9
    assert model.evaluated <= len(LONG) + 10 * (2 + 2)


def test_plan_without_the_donor_continues_its_prefix() -> None:
    scheduler, model = Scheduler(info(), [END]), Naive(info())
    scheduler.add(0, job(*LONG, 1))
    scheduler.add(1, job(*LONG, 2))
    step(scheduler, model)
    scheduler.cancel(0)
    assert run(scheduler, model)[1][1:] == expected(job(*LONG, 2), 1000)


def test_plan_copies_a_prefix_and_leaves_its_source_unchanged() -> None:
    scheduler, model = Scheduler(info(), [END]), Naive(info())
    scheduler.add(0, job(*LONG, 1, most=1))
    run(scheduler, model)
    scheduler.add(1, job(*LONG, 2, most=1))
    assert scheduler.plan().transfers == (PrefixCopy(0, 1, len(LONG)),)


def test_plan_of_a_continuation_takes_the_slot_it_continues() -> None:
    scheduler, model = Scheduler(info(), []), Naive(info())
    scheduler.add(0, job(*LONG, most=2))
    run(scheduler, model)
    scheduler.add(1, job(*model.cached[0], 7, most=1))
    plan = scheduler.plan()
    assert plan == Step((), (BatchEntry(0, len(model.cached[0]), [7], logits=True),))


def test_plan_without_truncation_reuses_all_of_a_slot_or_none() -> None:
    scheduler, model = Scheduler(info(rewinds=False), []), Naive(info(rewinds=False))
    scheduler.add(0, job(*LONG, most=2))
    run(scheduler, model)
    scheduler.add(1, job(*model.cached[0], 7, most=1))
    scheduler.add(2, job(*LONG, 8, most=1))
    outputs = run(scheduler, model)
    assert (outputs[1][0], outputs[2][0]) == (Started(len(LONG) + 1), Started(0))


def test_plan_prefers_the_affinity_groups_slot_to_the_least_recently_used() -> None:
    scheduler = Scheduler(info(n_slots=3), [END])
    for key, (affinity, slot) in enumerate([("mine", 0), ("theirs", 1), ("", 2), ("mine", 0), ("mine", 0), ("", 1)]):
        scheduler.add(key, Job((key, 9, 9), 1, GREEDY, affinity=affinity))
        assert [entry.slot for entry in scheduler.plan().entries] == [slot]
        scheduler.cancel(key)


def test_plan_of_conversations_in_turn_reuses_them_from_the_tree() -> None:
    """Six conversations on two slots: each of its later turns finds all of its earlier ones."""
    about = info(n_slots=2)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    tokens = {talk: [*LONG, talk] for talk in range(6)}
    key = 0
    for turn in range(4):
        for talk in range(6):
            scheduler.add(key, job(*tokens[talk], *(50 + talk,) * 30))
            outputs = run(scheduler, model)[key]
            cached = next(output.cached_tokens for output in outputs if isinstance(output, Started))
            assert cached >= len(tokens[talk]) - 1 if turn else cached <= len(LONG)
            tokens[talk] = next(slot for slot in model.cached if slot[len(LONG)] == talk)[:]
            key += 1


def test_plan_saves_the_tokens_that_it_overwrites_and_nothing_else() -> None:
    about = info(n_slots=1)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    scheduler.add(0, Job(LONG, 1, GREEDY, affinity="a", savable=True))
    run(scheduler, model)
    scheduler.add(1, Job((*LONG, 7), 1, GREEDY, affinity="a"))
    assert scheduler.plan().transfers == (), "the next turn overwrites nothing"
    scheduler.cancel(1)
    scheduler.add(2, job(9, 9, 9, most=1))
    plan = scheduler.plan()
    assert plan.transfers == (PrefixSave(0, LONG, len(LONG), "a"),)
    scheduler.update(plan, model.run(plan), 0.01)
    scheduler.add(3, job(8, 8, most=1))
    assert scheduler.plan().transfers == (), "a tiny prefix is not worth it"


def ended(scheduler: Scheduler, model: Naive, key: int, prompt: tuple[int, ...], **options: Any) -> list[PrefixSave]:
    """Run a job for one token, and return the saves of its steps."""
    scheduler.add(key, Job(prompt, 1, GREEDY, **options))
    saves: list[PrefixSave] = []
    while not scheduler.idle:
        plan = scheduler.plan()
        saves += [transfer for transfer in plan.transfers if isinstance(transfer, PrefixSave)]
        scheduler.update(plan, model.run(plan), 0.01)
    return saves


def saved_in_advance(scheduler: Scheduler, model: Naive, max_tokens: int = 1000) -> list[int]:
    """Save all free slots as an idle thread does, and return the slots."""
    slots: list[int] = []
    while (save := scheduler.prefixes.save_in_advance(max_tokens)) is not None:
        model.carry_out(save)
        slots.append(save.slot)
    return slots


def saved_for_the_disk(scheduler: Scheduler, model: Naive) -> None:
    """Save all slots with tokens that may be written to a disk."""
    for save in scheduler.unsaved():
        model.carry_out(save)


def prompt(first: int) -> tuple[int, ...]:
    return tuple(range(first, first + 40))


def test_slots_saved_in_advance_are_not_saved_again_unless_they_change() -> None:
    about = info(n_slots=2)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [], tree=tree), Naive(about, tree)
    ended(scheduler, model, 0, prompt(100))
    ended(scheduler, model, 1, prompt(150))
    assert saved_in_advance(scheduler, model, max_tokens=30) == []
    assert saved_in_advance(scheduler, model) == [0, 1], "the next job takes slot 0"
    assert saved_in_advance(scheduler, model) == []
    size = tree.size
    assert ended(scheduler, model, 2, prompt(200)) == [], "slot 0 is in the tree"
    assert ended(scheduler, model, 3, (*prompt(150), 1, 2, 3)) == [], "the job continues slot 1"
    assert saved_in_advance(scheduler, model) == [0], "three further tokens are not worth it"
    ended(scheduler, model, 4, (*prompt(150), *prompt(50)))
    assert saved_in_advance(scheduler, model) == [0]
    assert tree.size == size + 40 + 40


def test_slot_of_a_running_job_is_not_saved_in_advance() -> None:
    about = info(n_slots=1)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [], tree=tree), Naive(about, tree)
    ended(scheduler, model, 0, prompt(100))
    scheduler.add(1, job(*prompt(100), 1, 2))
    step(scheduler, model)
    assert saved_in_advance(scheduler, model) == []


def test_copy_of_a_slot_is_evicted_before_tokens_that_left_theirs() -> None:
    about = info(n_slots=2)
    tree = tree_of(about, limit=2 * 40)
    scheduler, model = Scheduler(about, [], tree=tree), Naive(about, tree)
    for key, first in enumerate((100, 150, 200)):
        ended(scheduler, model, key, prompt(first))
        saved_in_advance(scheduler, model)
    assert [tree.cached_length(prompt(first)) for first in (100, 150, 200)] == [40, 0, 40]
    (save,) = ended(scheduler, model, 3, prompt(50))
    assert save.tokens == prompt(150), "the copy is made again when it is needed"


def test_unstored_tokens_saved_in_advance_become_savable_with_a_stored_job() -> None:
    about = info(n_slots=1)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [], tree=tree), Naive(about, tree)
    ended(scheduler, model, 0, prompt(100))
    saved_in_advance(scheduler, model)
    assert tree.savable_runs(1000) == []
    ended(scheduler, model, 1, prompt(100), savable=True, affinity="a")
    assert saved_in_advance(scheduler, model) == [], "they are in the tree"
    assert [(run.tokens, run.groups) for run in tree.savable_runs(1000)] == [(prompt(100), frozenset({"a"}))]
    tree.drop("a")
    scheduler.drop("a")
    assert ended(scheduler, model, 2, prompt(200)) == []


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "busy"])
@pytest.mark.parametrize("n_slots", [1, 2])
@pytest.mark.parametrize("group", ["a", "b"])
@pytest.mark.parametrize("more", [(), (1, 2, 3), prompt(200)], ids=["same", "longer", "much longer"])
def test_dropped_tokens_that_an_unsavable_job_has_too_are_savable_no_more(
    more: tuple[int, ...], group: str, n_slots: int, idle: bool
) -> None:
    about = info(n_slots=n_slots)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [], tree=tree), Naive(about, tree)
    jobs = [(prompt(100), "a", True), ((*prompt(100), *more), group, False), (prompt(50), "c", True)]
    for key, (tokens, affinity, savable) in enumerate(jobs):
        ended(scheduler, model, key, tokens, affinity=affinity, savable=savable)
        if idle:
            saved_in_advance(scheduler, model)
            saved_for_the_disk(scheduler, model)
            assert {run.tokens for run in tree.savable_runs(1000)} == {prompt(100), *([prompt(50)] * (key == 2))}
    tree.drop("a")
    scheduler.drop("a")
    saved_for_the_disk(scheduler, model)
    assert [run.tokens for run in tree.savable_runs(1000)] == [prompt(50)]


def test_plan_saves_tokens_with_the_lifetime_of_their_job() -> None:
    about = info(n_slots=1)
    tree = tree_of(about)
    tree.now = 100.0
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    saves = []
    for key, (prompt, seconds) in enumerate(
        [(LONG, 5.0), ((*LONG, 7), 0.0), ((8, 8), 0.0), (LONG[::-1], 0.0), ((8,), 0)]
    ):
        scheduler.add(key, Job(tuple(prompt), 1, GREEDY, cache_seconds=seconds))
        plan = scheduler.plan()
        saves += [(len(save.tokens), save.keep_until) for save in plan.transfers if isinstance(save, PrefixSave)]
        scheduler.update(plan, model.run(plan), 0.01)
        run(scheduler, model)
    assert saves == [(len(LONG) + 1, 105.0), (len(LONG), 0.0)], "the second job continued the first one's tokens"


def test_plan_without_the_tokens_before_a_restored_window_does_not_truncate_to_them() -> None:
    about = info(n_slots=1, cuts=False)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    for key, prompt in enumerate([LONG, (9, 9, 9), (*LONG, 7), (*LONG[:40], 6)]):
        scheduler.add(key, job(*prompt, most=1))
        cached = run(scheduler, model)[key][0]
        assert cached == Started([0, 0, len(LONG), 0][key])


def test_plan_after_drop_truncates_a_slot_whose_window_was_restored_before() -> None:
    about = info(n_slots=1, cuts=False)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    other = [token + 1 for token in LONG]
    for key, prompt in enumerate([LONG, (9, 9, 9), (*LONG, 7), other, (*other[:40], 6)]):
        if key == 3:
            scheduler.drop("a")
        scheduler.add(key, Job(tuple(prompt), 1, GREEDY, affinity="a"))
        assert run(scheduler, model)[key][0] == Started([0, 0, len(LONG), 0, 40][key])


def test_plan_after_a_failed_restore_evaluates_the_prompt() -> None:
    about = info(n_slots=1)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    for key, prompt in enumerate([LONG, (9, 9, 9)]):
        scheduler.add(key, job(*prompt, most=1))
        run(scheduler, model)
    scheduler.add(2, job(*LONG, 5, most=1))
    (restore,) = scheduler.plan().transfers
    assert isinstance(restore, PrefixRestore)
    model.cached[0].clear()
    scheduler.undo([restore])
    outputs = [output for output in run(scheduler, model)[2] if not isinstance(output, Progress)]
    assert outputs == [Started(0), *expected(job(*LONG, 5, most=1), 1000)]


def test_drop_forgets_the_tokens_of_an_affinity_group() -> None:
    about = info(n_slots=2)
    tree = tree_of(about)
    scheduler, model = Scheduler(about, [END], tree=tree), Naive(about, tree)
    for key, group in enumerate("ab"):
        scheduler.add(key, Job((*LONG, key), 1, GREEDY, affinity=group, savable=True))
    run(scheduler, model)
    scheduler.drop("a")
    assert [save.affinity for save in scheduler.unsaved()] == ["b"]
    scheduler.drop(None)
    assert list(scheduler.unsaved()) == []
