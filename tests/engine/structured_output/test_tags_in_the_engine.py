"""Structural tags in the engine: a model that plays a script, and SmolLM2."""

import re
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from engine.backends import scripted
from engine.backends.scripted import ASSISTANT, USER, ScriptedModel
from engine.job import Job, SamplingParams, Token
from engine.loader import Options, load, model_file
from engine.runtime.engine import Engine
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.specs import ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from tests.engine.runtime.test_engine import LENGTH, STOP, running
from tests.engine.structured_output.test_constrained import GREEDY, answer

SCRIPTED = scripted.vocabulary()
SCRIPTED_GRAMMARS = GrammarCompiler(SCRIPTED)
NUMBERED = SCRIPTED_GRAMMARS.lark('start: /[0-9]{2}(no|yes)/ "</call>"')


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("tag", "script", "came"),
    [
        # The script continues after as many of its bytes as were written.
        (
            StructuralTag(SCRIPTED, triggers=[Trigger("<call>", NUMBERED)]),
            b"so <call>12no</call>, ok",
            b"so <call>12no</call>, ok",
        ),
        (
            StructuralTag(SCRIPTED, triggers=[Trigger("<call>", NUMBERED)]),
            b"<call>nope</call>?!!!",
            b"<call>00no</call>?!!!",
        ),
        (
            StructuralTag(SCRIPTED, NUMBERED, reasoning=ReasoningSpec("</t>", opened=True)),
            b"so</t>12no</call>",
            b"so</t>12no</call>",
        ),
        (
            StructuralTag(SCRIPTED, NUMBERED, reasoning=ReasoningSpec("</t>", opened=True, budget=3)),
            b"so, well",
            b"so,</t>00no</call>",
        ),
        (
            StructuralTag(SCRIPTED, reasoning=ReasoningSpec("</t>", "<t>", budget=3)),
            b"<t>so, and what?",
            b"<t>so,</t> what?",
        ),
        (StructuralTag(SCRIPTED, triggers=[Trigger("<call>", NUMBERED)]), b"abcd" * 20, b"abcd" * 20),
        (
            StructuralTag(SCRIPTED, triggers=[Trigger("cd", NUMBERED)]),
            b"abcd" * 9,
            b"abcd00no</call>" + b"dabcd00no</call>" * 2,
        ),
    ],
)
async def test_engine_with_structural_tag_constrains_script(
    tag: StructuralTag, script: bytes, came: bytes, batched: bool
) -> None:
    async with running(ScriptedModel(lambda message: script, batched=batched)) as engine:
        assert await answer(engine, Job((USER, ASSISTANT), 200, GREEDY, grammar=tag)) == (came, STOP)


HOT = SamplingParams(temperature=1.5, top_p=1, top_k=0, min_p=0)
CODE = r" [A-F]{2}-\d{3}\."
FITS = {
    "free": rf"(?s)((?! the).)*( the{CODE}((?! the).)*)*( the[^.]*)?",  # the last one may be cut
    "begun": rf"(?s).*</think>{CODE}",
    "may begin": rf"(?s)(<think>.*</think>)?{CODE}",
}


@pytest.fixture(scope="module")
def cases(smollm2: Path) -> dict[str, StructuralTag]:
    vocabulary = model_file.read(smollm2)[1]
    grammars = GrammarCompiler(vocabulary)
    code = grammars.lark('start: " " /[A-F]{2}/ "-" /[0-9]{3}/ "."')
    thought = ReasoningSpec("</think>", "<think>", budget=9)
    return {
        "free": StructuralTag(vocabulary, triggers=[Trigger(" the", code)]),
        "begun": StructuralTag(vocabulary, code, reasoning=replace(thought, opened=True)),
        "may begin": StructuralTag(vocabulary, code, reasoning=thought),
    }


@pytest.mark.parametrize("engine", ["llamacpp", "ctransformers"])
async def test_smollm2_with_structural_tags_writes_matching_texts(
    engine: str, cases: dict[str, StructuralTag], smollm2: Path, cache: Path
) -> None:
    """Sequences run together at temperature 1.5."""
    loaded = load(smollm2, Options(n_slots=4, n_ctx=512, threads=1, threads_batch=1, engine=engine), cache)
    written: dict[tuple[str, int], str] = {}

    async def one(host: Engine, name: str, seed: int) -> None:
        prompt = loaded.vocabulary.encode("Once upon a time, in the middle of the night")
        job = Job(tuple(prompt), 40, replace(HOT, seed=seed), grammar=cases[name])
        with host.generate(job) as pieces:
            came = [piece async for piece in pieces]
        assert came[-1] in (STOP, LENGTH)
        data = b"".join(loaded.vocabulary.bytes_of(piece.id) for piece in came if isinstance(piece, Token))
        written[name, seed] = data.decode(errors="replace")

    host = Engine(loaded.model, loaded.vocabulary.end_tokens)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        async with trio.open_nursery() as asking:
            for name in cases:
                for seed in range(2 if engine == "llamacpp" else 1):
                    asking.start_soon(one, host, name, seed)
        nursery.cancel_scope.cancel()
    loaded.model.close()
    assert [each for each in written.items() if not re.fullmatch(FITS[each[0][0]], each[1])] == []
