"""Every kind of model reuses its prefixes: the next turn, another branch, a restart. Its answers stay the same."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from msgspec import Struct

from engine import gguf
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.model import LlamaCpp
from engine.job import Finished, FinishReason, Job, SamplingParams, Started, Token
from engine.runtime.engine import Engine
from engine.runtime.kv_snapshots import Snapshots
from engine.tokenizer import Vocabulary
from server.prompt.checkpoints import turn_ends
from tests.support.tiny_models import FAMILIES, write

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
N_SLOTS = 2
MOST = 8
Tokens = tuple[int, ...]


class Turn(Struct, frozen=True):
    """A job's prompt and checkpoints."""

    prompt: Tokens
    checkpoints: Tokens = ()


class CachedAnswer(Struct, frozen=True):
    tokens: Tokens
    cached_tokens: int
    likely: tuple[Mapping[int, float], ...]
    """Logprobs of the most likely tokens in place of each one."""


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCpp]:
    model = opened(write(tmp_path / "model.gguf", request.param))
    yield model
    model.close()


def opened(path: Path, n_ctx: int = 256) -> LlamaCpp:
    return LlamaCpp(libllama.load(libllama.find(None)), path, n_ctx=n_ctx, n_slots=N_SLOTS, threads=1)


@asynccontextmanager
async def asking(engine: Engine) -> AsyncIterator[Callable[[Turn], Awaitable[CachedAnswer]]]:
    """Run an engine, which answers one turn after the other."""
    numbers = itertools.count()

    async def ask(turn: Turn) -> CachedAnswer:
        return await answer(engine, turn, str(next(numbers)))

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.restore()
        yield ask
        nursery.cancel_scope.cancel()


async def answers(engine: Engine, turns: Sequence[Turn]) -> list[CachedAnswer]:
    """Return the answers of turns that follow each other, and end the engine."""
    async with asking(engine) as ask:
        return [await ask(turn) for turn in turns]


async def answer(engine: Engine, turn: Turn, affinity: str) -> CachedAnswer:
    job = Job(turn.prompt, MOST, GREEDY, affinity=affinity, savable=True, checkpoints=turn.checkpoints, top_logprobs=5)
    likely: list[Mapping[int, float]] = []
    tokens: list[int] = []
    cached = 0
    with engine.generate(job) as outputs:
        async for output in outputs:
            match output:
                case Started(n):
                    cached = n
                case Token(token, logprobs):
                    assert logprobs is not None
                    tokens.append(token)
                    likely.append(dict(logprobs.top))
                case Finished(reason):
                    assert reason is FinishReason.LENGTH
    return CachedAnswer(tuple(tokens), cached, tuple(likely))


NEAR = 1.0
"""Largest difference of two logprobs that another rounding may turn round."""


def assert_equal_but_for_near_ties(answer: CachedAnswer, expected: CachedAnswer) -> None:
    """After a near-tie, the two may go different ways."""
    for likely, id_, expected_id in zip(expected.likely, answer.tokens, expected.tokens, strict=True):
        if id_ != expected_id:
            assert likely[expected_id] - likely[id_] < NEAR
            return


async def fresh(model: LlamaCpp, turn: Turn) -> CachedAnswer:
    """Return the answer without any cache."""
    return (await answers(Engine(model, (), cache_bytes=0), [turn]))[0]


def text(seed: int, n: int) -> Tokens:
    return tuple(5 + (at * 7 + seed * 31) % 230 for at in range(n))


SYSTEM = text(0, 40)
FIRST = Turn((*SYSTEM, *text(1, 30), 3, 4), checkpoints=(40, 70))
OTHERS = [Turn(text(seed, 60), checkpoints=(30,)) for seed in (5, 6)]
"""Conversations that replace the first one in both slots."""


def second(first: Tokens, seed: int) -> Turn:
    """Return another turn after the first one and its answer."""
    past = (*FIRST.prompt, *first)
    return Turn((*past, *text(seed, 30), 3, 4), checkpoints=(40, len(past) - 1, len(past) + 30))


@pytest.mark.slow
async def test_answers_after_reuse_equal_those_without(model: LlamaCpp) -> None:
    first = (await fresh(model, FIRST)).tokens
    next_turn, edited, new = second(first, 2), second(first, 3), Turn((*SYSTEM, *text(4, 30)), checkpoints=(40,))
    again = Turn((*next_turn.prompt[:-2], 9, 9, 9))
    returning = [next_turn, edited, FIRST, new, again]
    found = await answers(Engine(model, ()), [FIRST, next_turn, *OTHERS, *returning])
    past = len(FIRST.prompt) + MOST - 1
    cached = [answer.cached_tokens for answer in found]
    assert cached[:2] == [0, past]
    least = [past + 31, past, 70, 40, past + 31]
    assert [max(n, one) for n, one in zip(cached[4:], least, strict=True)] == cached[4:]
    for turn, answer in zip(returning, found[4:], strict=True):
        assert answer.tokens == (await fresh(model, turn)).tokens


@pytest.mark.slow
async def test_answers_after_a_restart_equal_those_without(model: LlamaCpp, tmp_path: Path) -> None:
    def engine() -> Engine:
        return Engine(model, (), snapshots=Snapshots(tmp_path / "kv", "a model", 1 << 30))

    first = (await answers(engine(), [FIRST]))[0].tokens
    for turn in (second(first, 2), second(first, 3)):
        (answer,) = await answers(engine(), [turn])
        assert answer.tokens == (await fresh(model, turn)).tokens
        assert answer.cached_tokens >= len(FIRST.prompt) + MOST - 1
    (answer,) = await answers(engine(), [new := Turn((*SYSTEM, *text(4, 30)), checkpoints=(40,))])
    assert (answer.tokens, answer.cached_tokens) == ((await fresh(model, new)).tokens, 40)


async def test_answers_of_gemma_3_after_reuse_equal_those_without(gemma3: Path) -> None:
    """Prompts are longer than the window of 512 tokens."""
    model = opened(gemma3, n_ctx=1024)
    vocabulary = Vocabulary(gguf.read(gemma3))
    vocabulary.choose_encoder(model.tokenizer)
    licence = vocabulary.encode((Path(__file__).parents[3] / "LICENSE").read_text())
    begin, end = (vocabulary.control_ids[f"<{word}_of_turn>"] for word in ("start", "end"))

    def turn(past: Tokens, question: str) -> Turn:
        prompt = (*past, begin, *vocabulary.encode(f"user\n{question}"), end, begin, *vocabulary.encode("model\n"))
        return Turn(prompt, turn_ends(prompt, vocabulary.control_ids.values()))

    first = turn((begin, *licence[:500], end), "The inference thread owns the model. It also owns all the slots, and")
    assert len(first.prompt) > 512
    async with asking(Engine(model, ())) as ask:
        cold = await ask(first)
        past = (*first.prompt, *cold.tokens)
        following = await ask(turn(past, "What is a slot of the cache?"))
        for start in (100, 300):
            await ask(Turn((begin, *licence[start : start + 50])))
        second = turn(past, "And now name one thing that it does not own.")
        found = [await ask(second), await ask(first)]
    assert cold.cached_tokens == 0
    assert following.cached_tokens == len(past) - 1
    # The end of the answer is saved too if the thread was idle after it; it is too near to the checkpoint otherwise.
    assert all(first.checkpoints[-1] <= answer.cached_tokens < len(past) for answer in found)
    assert_equal_but_for_near_ties(found[0], await fresh(model, second))
    assert_equal_but_for_near_ties(found[1], cold)
    model.close()
