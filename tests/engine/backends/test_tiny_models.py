"""Model families with different KV caches: their answers do not depend on other jobs beside or before them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.model import LlamaCpp
from engine.job import EngineOutput, Job, SamplingParams, Started, Token
from engine.runtime.host_cache import HostCache
from engine.scheduler.scheduler import Scheduler
from tests.support.tiny_models import FAMILIES, write

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
PREFIX = tuple(range(5, 45))
PROMPTS = [
    (*PREFIX, 50),
    (*PREFIX, 51, 52, 53),
    (60, 61, 62),
    (*PREFIX[:30], 70),
    (*range(100, 160),),
]
MOST = 12
NOBODY: frozenset[int] = frozenset()


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCpp]:
    library = libllama.load(libllama.find(None))
    model = LlamaCpp(library, write(tmp_path / "model.gguf", request.param), n_ctx=256, n_slots=3, threads=1)
    yield model
    model.close()


def run(scheduler: Scheduler, model: LlamaCpp, *jobs: Job, cache: HostCache | None = None) -> list[list[EngineOutput]]:
    cache = cache or HostCache(model, 0)
    outputs: list[list[EngineOutput]] = [[] for _ in jobs]
    for key, job in enumerate(jobs):
        scheduler.add(key, job)
    while not scheduler.idle:
        plan = scheduler.plan()
        assert cache.carry_out(plan.transfers) == ()
        model.decode(plan.entries)
        sampled = {entry.slot: greedy(model, entry.slot, entry.tokens, entry.logits) for entry in plan.entries}
        for key, output in scheduler.update(plan, sampled, 0.01):
            outputs[key].append(output)
    return outputs


def greedy(model: LlamaCpp, slot: int, given: Sequence[int], rows: int) -> list[Token]:
    tokens: list[Token] = []
    for row, draft_token in enumerate((*given[len(given) - rows + 1 :], None)[:rows]):
        tokens.append(Token(int(model.logits(slot, row).argmax())))
        if tokens[-1].id != draft_token:
            break
    return tokens


def token_ids(outputs: list[EngineOutput]) -> list[int]:
    return [output.id for output in outputs if isinstance(output, Token)]


def alone(model: LlamaCpp, prompt: tuple[int, ...]) -> list[int]:
    """Return the answer from an empty cache."""
    return token_ids(run(Scheduler(model.info, NOBODY), model, Job(prompt, MOST, GREEDY))[0])


def test_models_in_a_batch_answer_as_alone(model: LlamaCpp) -> None:
    expected = [alone(model, prompt) for prompt in PROMPTS]
    answers = run(Scheduler(model.info, NOBODY), model, *(Job(prompt, MOST, GREEDY) for prompt in PROMPTS))
    assert [token_ids(outputs) for outputs in answers] == expected


def test_models_with_a_reused_prefix_answer_as_evaluated_anew(model: LlamaCpp) -> None:
    """The next turn, another one of that conversation (replacing the first), and the beginning alone."""
    first = alone(model, PROMPTS[0])
    turns = [(*PROMPTS[0], *first, 80, 81), (*PROMPTS[0], *first, 90), PROMPTS[0][:20]]
    expected = [alone(model, prompt) for prompt in turns]
    scheduler = Scheduler(model.info, NOBODY)
    run(scheduler, model, Job(PROMPTS[0], MOST, GREEDY))
    answers = [run(scheduler, model, Job(prompt, MOST, GREEDY))[0] for prompt in turns]
    assert [token_ids(outputs) for outputs in answers] == expected
    assert answers[0][0] == Started(len(PROMPTS[0]) + MOST - 1)


@pytest.mark.slow
def test_models_with_a_restored_prefix_answer_as_evaluated_anew(model: LlamaCpp) -> None:
    """The next turn of a conversation returns after others have used every slot, twice, and after a restart."""
    if not model.info.saves_state:
        pytest.skip("of a window, saved state could not be cut back")
    first = alone(model, PROMPTS[0])
    turns = [(*PROMPTS[0], *first, 80, 81), (*PROMPTS[0], *first, 90)]
    expected = [alone(model, turn) for turn in turns]
    cache = HostCache(model, 10**9)
    scheduler = Scheduler(model.info, NOBODY, tree=cache.tree)
    run(scheduler, model, Job(PROMPTS[0], MOST, GREEDY, savable=True), cache=cache)
    n = len(PROMPTS[0]) + MOST - 1
    for turn, answer in zip(turns, expected, strict=True):
        run(scheduler, model, *(Job((i, *PROMPTS[4]), MOST, GREEDY) for i in (1, 2, 3)), cache=cache)
        outputs = run(scheduler, model, Job(turn, MOST, GREEDY), cache=cache)[0]
        assert (outputs[0], token_ids(outputs)) == (Started(n), answer)
    restarted = HostCache(model, 10**9)
    for cached_run in cache.savable_runs((), 10**9):
        restarted.adopt(cached_run)
    outputs = run(Scheduler(model.info, NOBODY, tree=restarted.tree), model, Job(turns[0], 1, GREEDY), cache=restarted)[
        0
    ]
    assert (outputs[0], token_ids(outputs)) == (Started(n), expected[0][:1])


@pytest.mark.slow
def test_models_with_a_prefix_copied_from_a_slot_that_is_restored_answer_as_evaluated_anew(model: LlamaCpp) -> None:
    """Both transfers belong to one step."""
    first = alone(model, PROMPTS[4])
    turn, copied = (*PROMPTS[4], *first, 80, 81), (*PREFIX[:30], 70)
    expected = [alone(model, copied), alone(model, turn)]
    cache = HostCache(model, 10**9)
    scheduler = Scheduler(model.info, NOBODY, tree=cache.tree)
    for prompt in (PROMPTS[4], (1, *PREFIX), (2, *PREFIX), (3, *PREFIX)):
        run(scheduler, model, Job(prompt, MOST, GREEDY), cache=cache)
    run(scheduler, model, Job(PROMPTS[0], MOST, GREEDY, affinity="a"), cache=cache)
    answers = run(scheduler, model, Job(copied, MOST, GREEDY), Job(turn, MOST, GREEDY, affinity="a"), cache=cache)
    assert [token_ids(outputs) for outputs in answers] == expected
    assert answers[1][0] == Started(len(PROMPTS[4]) + MOST - 1)
    if model.info.copies_prefixes:
        assert answers[0][0] == Started(30)
