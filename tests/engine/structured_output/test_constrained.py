"""Constrained generations of the real engine, with models whose preferred output is known, and with SmolLM2."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from engine.backends import scripted
from engine.backends.scripted import ASSISTANT, USER, ScriptedModel
from engine.constraint import Constraint, Grammar, GrammarError
from engine.job import EngineOutput, Finished, FinishReason, Job, SamplingParams, Token
from engine.loader import Options, load
from engine.model import FloatArray
from engine.runtime.engine import Engine
from engine.structured_output.compiler import GrammarCompiler
from tests.engine.runtime.test_engine import STOP, running
from tests.engine.structured_output.test_compiler import valid
from tests.support import schemas

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    return GrammarCompiler(scripted.vocabulary())


def job(message: bytes, grammar: Grammar | None, max_tokens: int = 200) -> Job:
    return Job((USER, *message, ASSISTANT), max_tokens, GREEDY, grammar=grammar)


async def answer(engine: Engine, job: Job) -> tuple[bytes, EngineOutput]:
    with engine.generate(job) as pieces:
        came = [piece async for piece in pieces]
    return bytes(piece.id for piece in came if isinstance(piece, Token)), came[-1]


async def test_engine_with_grammar_that_allows_model_output_returns_it(grammars: GrammarCompiler) -> None:
    async with running(ScriptedModel()) as engine:
        assert await answer(engine, job(b'{"a": 5}', grammars.json_schema({"type": "object"}))) == (b'{"a": 5}', STOP)


async def test_engine_with_grammar_that_forbids_model_output_masks_it(grammars: GrammarCompiler) -> None:
    async with running(ScriptedModel(lambda message: b"never!")) as engine:
        assert await answer(engine, job(b"", grammars.regex("[0-9]{2}(no|yes)"))) == (b"00no", STOP)


async def test_engine_at_max_tokens_returns_prefix_of_matching_text(grammars: GrammarCompiler) -> None:
    async with running(ScriptedModel()) as engine:
        length = Finished(FinishReason.LENGTH)
        assert await answer(engine, job(b'{"a": 5}', grammars.json_schema({"type": "object"}), max_tokens=4)) == (
            b'{"a"',
            length,
        )


async def test_engine_with_draft_tokens_constrains_them(grammars: GrammarCompiler) -> None:
    """The script repeats itself, so the drafter guesses it; the grammar ends the repetition."""
    model = ScriptedModel(lambda message: b"abcd" * 20, batched=True)
    async with running(model) as engine:
        came = await answer(engine, job(b"", grammars.regex("(abcd){12}x(abcd)*")))
    assert came[0].startswith(b"abcd" * 12 + b"x")
    assert max(len(chunk.tokens) for chunk in model.decoded if chunk.logits) > 2


class Failing:
    """A grammar that fails after some tokens."""

    def __init__(self, after: int) -> None:
        self._left = after

    def start(self) -> Constraint:
        return self

    @property
    def mask_ready(self) -> bool:
        return False

    def compute_mask(self) -> None:
        pass

    def apply_mask(self, logits: FloatArray) -> None:
        if not self._left:
            raise GrammarError("too many states")

    def fits(self, token: int) -> bool:
        return False

    def accept(self, token: int) -> None:
        self._left -= 1

    def forced(self) -> Sequence[int]:
        return ()


@pytest.mark.parametrize("batched", [False, True])
async def test_engine_with_failing_grammar_ends_only_its_own_stream(batched: bool, grammars: GrammarCompiler) -> None:
    async with running(ScriptedModel(batched=batched)) as engine:
        with engine.generate(job(b"hello " * 5, None)) as other:
            assert await answer(engine, job(b"hello", Failing(3))) == (
                b"hel",
                Finished(FinishReason.GRAMMAR, "too many states"),
            )
            came = [piece async for piece in other]
        assert bytes(piece.id for piece in came if isinstance(piece, Token)) == b"hello " * 5
        assert await answer(engine, job(b"true", grammars.json_schema({"type": "boolean"}))) == (b"true", STOP)


class Panicking(Failing):
    def compute_mask(self) -> None:
        raise RuntimeError("beside the decode")


async def test_engine_with_mask_that_fails_in_thread_computes_it_again() -> None:
    """`apply_mask` computes the mask again and raises the error if it persists."""
    async with running(ScriptedModel()) as engine:
        assert await answer(engine, job(b"hello", Panicking(99))) == (b"hello", STOP)


class Idle(Failing):
    prepared = 0

    @property
    def mask_ready(self) -> bool:
        return True

    def compute_mask(self) -> None:
        self.prepared += 1


async def test_engine_with_ready_mask_does_not_compute_it() -> None:
    """Waking the mask thread would slow the decode."""
    grammar = Idle(99)
    async with running(ScriptedModel()) as engine:
        assert await answer(engine, job(b"hello", grammar)) == (b"hello", STOP)
    assert grammar.prepared == 0


REAL = range(2000, 2008)
"""Seeds of schemas; each of four slots gets two."""


@pytest.mark.parametrize("engine", ["llamacpp", "ctransformers"])
async def test_smollm2_with_random_schemas_writes_valid_documents(engine: str, smollm2: Path, cache: Path) -> None:
    """Sequences run together at temperature 1.5."""
    loaded = load(smollm2, Options(n_slots=4, n_ctx=512, threads=1, threads_batch=1, engine=engine), cache)
    grammars = GrammarCompiler(loaded.vocabulary)
    hot = SamplingParams(temperature=1.5, top_p=1, top_k=0, min_p=0, seed=4)
    finished: list[tuple[schemas.Schema, str]] = []

    async def one(host: Engine, seed: int) -> None:
        schema = schemas.schema(seed)
        prompt = loaded.vocabulary.encode("Write something in JSON.")
        with host.generate(Job(tuple(prompt), 40, hot, grammar=grammars.json_schema(schema))) as pieces:
            came = [piece async for piece in pieces]
        assert came[-1] in (STOP, Finished(FinishReason.LENGTH))
        data = b"".join(loaded.vocabulary.bytes_of(piece.id) for piece in came if isinstance(piece, Token))
        if came[-1] == STOP:
            finished.append((schema, data.decode()))

    host = Engine(loaded.model, loaded.vocabulary.end_tokens)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        async with trio.open_nursery() as asking:
            for seed in REAL:
                asking.start_soon(one, host, seed)
        nursery.cancel_scope.cancel()
    loaded.model.close()
    assert len(finished) > 2
    assert [(schema, text) for schema, text in finished if not valid(text, schema)] == []
