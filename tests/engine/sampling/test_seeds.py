"""A seed repeats an answer whatever runs beside it: with the real model, on both engines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from engine.chat_template.message import Message
from engine.job import Job, SamplingParams, Token
from engine.loader import Loaded, Options, load
from engine.model import FloatArray, Model
from engine.runtime.engine import Engine
from engine.sampling.sampler import Sampler

TOKENS = 8
REPEATED = 12
"""Tokens in which the real model repeats itself."""
SAMPLING = SamplingParams(1.2, 0.95, 40, 0.02, 7, presence_penalty=0.5, frequency_penalty=0.5, repeat_penalty=1.1)
QUESTIONS = ("Tell me a story.", "Name three colours.", "Write a poem about the sea.", "Who are you?")


class Recorded:
    """A Model that records each slot's logits as they were before any change."""

    def __init__(self, model: Model) -> None:
        self.info = model.info
        self.rows: list[list[FloatArray]] = [[] for _ in range(model.info.n_slots)]
        self.copy_prefix, self.save, self.restore, self.split = (
            model.copy_prefix, model.save, model.restore, model.split,
        )  # fmt: skip
        self.decode, self.use_threads, self.interrupt, self.close = (
            model.decode, model.use_threads, model.interrupt, model.close,
        )  # fmt: skip
        self._model = model

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        self.rows[slot].append(self._model.logits(slot, row).copy())
        return self._model.logits(slot, row)


@pytest.fixture(scope="module", params=["llamacpp", "ctransformers"])
def loaded(request: pytest.FixtureRequest, smollm2: Path, cache: Path) -> Iterator[Loaded]:
    loaded = load(
        smollm2, Options(n_slots=len(QUESTIONS), n_ctx=256, threads=1, threads_batch=1, engine=request.param), cache
    )
    yield loaded
    loaded.model.close()


def jobs(loaded: Loaded) -> list[Job]:
    """Return jobs with a seed each."""
    return [
        Job(tuple(loaded.template.prompt([Message("user", question)])), TOKENS, replace(SAMPLING, seed=seed))
        for seed, question in enumerate(QUESTIONS)
    ]


async def answers(loaded: Loaded, model: Model, asked: Sequence[Job]) -> list[list[int]]:
    """Return the answers of all jobs run at once."""
    tokens: list[list[int]] = [[] for _ in asked]
    engine = Engine(model, loaded.vocabulary.end_tokens)

    async def one(index: int) -> None:
        with engine.generate(asked[index]) as outputs:
            tokens[index] = [output.id async for output in outputs if isinstance(output, Token)]

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        async with trio.open_nursery() as requests:
            for index in range(len(asked)):
                requests.start_soon(one, index)
        nursery.cancel_scope.cancel()
    return tokens


def drawn(job: Job, rows: Sequence[FloatArray], ends: frozenset[int]) -> list[int]:
    """Return the tokens that a sampler of that job draws from these logits."""
    sampler = Sampler(job.sampling, job.prompt)
    tokens = [sampler.pick(row.copy()) for row in rows]
    return tokens[:-1] if tokens[-1] in ends else tokens


async def test_answer_depends_only_on_its_seed_and_its_own_logits(loaded: Loaded) -> None:
    """Logits may round otherwise beside other streams (see `test_llamacpp`); nothing else affects the answer."""
    model, asked = Recorded(loaded.model), jobs(loaded)
    found = await answers(loaded, model, asked)
    for job, tokens in zip(asked, found, strict=True):
        assert tokens in [drawn(job, rows, loaded.vocabulary.end_tokens) for rows in model.rows]


async def test_answer_of_identical_steps_is_identical(loaded: Loaded) -> None:
    """ctransformers evaluates slot by slot, so its steps are identical; llama.cpp's are while nothing runs beside."""
    asked = jobs(loaded)[: 2 if loaded.model.info.engine == "ctransformers" else 1]
    await answers(loaded, loaded.model, asked)  # from now on the prompts are in the cache
    [alone] = await answers(loaded, loaded.model, asked[:1])
    assert (await answers(loaded, loaded.model, asked))[0] == alone
    assert await answers(loaded, loaded.model, [replace(asked[0], sampling=SAMPLING)]) != [alone], "another seed"


async def test_penalties_stop_the_real_model_from_repeating_itself(loaded: Loaded) -> None:
    greedy = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
    prompt = tuple(loaded.template.prompt([Message("user", "Repeat for ever: sea sea sea sea sea")]))
    [plain] = await answers(loaded, loaded.model, [Job(prompt, REPEATED, greedy)])
    [penalised] = await answers(
        loaded, loaded.model, [Job(prompt, REPEATED, replace(greedy, presence_penalty=2.0, frequency_penalty=2.0))]
    )
    [banned] = await answers(
        loaded, loaded.model, [Job(prompt, REPEATED, replace(greedy, logit_bias=dict.fromkeys(plain, -100.0)))]
    )
    assert len(set(penalised)) / len(penalised) > len(set(plain)) / len(plain)
    assert not set(banned) & set(plain)
