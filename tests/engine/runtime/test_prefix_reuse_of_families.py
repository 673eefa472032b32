"""Every kind of model reuses its prefixes: the next turn, another branch, a restart. Its answers stay the same."""

from collections.abc import Iterator, Sequence
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
MOST = 12
Tokens = tuple[int, ...]


class Turn(Struct, frozen=True):
    """A job's prompt and checkpoints."""

    prompt: Tokens
    checkpoints: Tokens = ()


class CachedAnswer(Struct, frozen=True):
    tokens: Tokens
    cached_tokens: int


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCpp]:
    model = opened(write(tmp_path / "model.gguf", request.param))
    yield model
    model.close()


def opened(path: Path, n_ctx: int = 256) -> LlamaCpp:
    return LlamaCpp(libllama.load(libllama.find(None)), path, n_ctx=n_ctx, n_slots=N_SLOTS, threads=1)


async def answers(engine: Engine, turns: Sequence[Turn]) -> list[CachedAnswer]:
    """Return the answers of turns that follow each other, and end the engine."""
    found: list[CachedAnswer] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.restore()
        for number, turn in enumerate(turns):
            job = Job(turn.prompt, MOST, GREEDY, affinity=str(number), savable=True, checkpoints=turn.checkpoints)
            found.append(await answer(engine, job))
        nursery.cancel_scope.cancel()
    return found


async def answer(engine: Engine, job: Job) -> CachedAnswer:
    tokens: list[int] = []
    cached = 0
    with engine.generate(job) as outputs:
        async for output in outputs:
            match output:
                case Started(n):
                    cached = n
                case Token(token):
                    tokens.append(token)
                case Finished(reason):
                    assert reason is FinishReason.LENGTH
    return CachedAnswer(tuple(tokens), cached)


NEAR = 1.0
"""Largest difference of two logprobs that another rounding may turn round."""


async def assert_equal_but_for_near_ties(model: LlamaCpp, turn: Turn, answer: CachedAnswer) -> None:
    """Compare with the answer without any cache. After a near-tie, the two may go different ways."""
    job = Job(turn.prompt, MOST, GREEDY, top_logprobs=5)
    async with trio.open_nursery() as nursery:
        engine = Engine(model, (), cache_bytes=0)
        await nursery.start(engine.run)
        with engine.generate(job) as outputs:
            expected = [output async for output in outputs if isinstance(output, Token)]
        nursery.cancel_scope.cancel()
    for token, id_ in zip(expected, answer.tokens, strict=True):
        if token.id != id_:
            assert token.logprobs is not None
            top = dict(token.logprobs.top)
            assert top[token.id] - top[id_] < NEAR
            return


async def fresh(model: LlamaCpp, turn: Turn) -> Tokens:
    """Return the answer without any cache."""
    return (await answers(Engine(model, (), cache_bytes=0), [turn]))[0].tokens


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


async def test_answers_after_reuse_equal_those_without(model: LlamaCpp) -> None:
    first = await fresh(model, FIRST)
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
        assert answer.tokens == await fresh(model, turn)


async def test_answers_after_a_restart_equal_those_without(model: LlamaCpp, tmp_path: Path) -> None:
    def engine() -> Engine:
        return Engine(model, (), snapshots=Snapshots(tmp_path / "kv", "a model", 1 << 30))

    first = (await answers(engine(), [FIRST]))[0].tokens
    for turn in (second(first, 2), second(first, 3)):
        (answer,) = await answers(engine(), [turn])
        assert answer.tokens == await fresh(model, turn)
        assert answer.cached_tokens >= len(FIRST.prompt) + MOST - 1
    (answer,) = await answers(engine(), [new := Turn((*SYSTEM, *text(4, 30)), checkpoints=(40,))])
    assert answer == CachedAnswer(await fresh(model, new), 40)


async def test_answers_of_gemma_3_after_reuse_equal_those_without(gemma3: Path) -> None:
    """Prompts are longer than the window of 512 tokens."""
    vocabulary = Vocabulary(gguf.read(gemma3))
    licence = vocabulary.encode((Path(__file__).parents[3] / "LICENSE").read_text())
    begin, end = (vocabulary.control_ids[f"<{word}_of_turn>"] for word in ("start", "end"))

    def turn(past: Tokens, question: str) -> Turn:
        prompt = (*past, begin, *vocabulary.encode(f"user\n{question}"), end, begin, *vocabulary.encode("model\n"))
        return Turn(prompt, turn_ends(prompt, vocabulary.control_ids.values()))

    model = opened(gemma3, n_ctx=1024)
    first = turn((begin, *licence[:600], end), "The inference thread owns the model. It also owns all the slots, and")
    answer = await fresh(model, first)
    past = (*first.prompt, *answer)
    turns = [turn(past, "What is a slot of the cache?"), turn(past, "And now name one thing that it does not own.")]
    others = [Turn((begin, *licence[start : start + 100])) for start in (100, 300)]
    found = await answers(Engine(model, ()), [first, turns[0], *others, turns[1], first])
    cached = [answer.cached_tokens for answer in found]
    # The first answer may part from the one above at a near-tie.
    assert len(first.prompt) <= min(cached[1], cached[4])
    assert cached[5] == first.checkpoints[-1]
    for expected, answer_ in zip((turns[1], first), found[-2:], strict=True):
        await assert_equal_but_for_near_ties(model, expected, answer_)
    model.close()
