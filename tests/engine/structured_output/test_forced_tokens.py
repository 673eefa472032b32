"""Forced tokens: which text is certain, in which tokens, and that answers stay as they are without them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backends import scripted
from engine.backends.scripted import ASSISTANT, END, USER, ScriptedModel
from engine.constraint import Constraint, Grammar
from engine.job import EngineOutput, Finished, Job, SamplingParams, Token
from engine.loader import model_file
from engine.model import FloatArray
from engine.runtime.engine import Engine
from engine.runtime.token_picker import TokenPicker
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.specs import ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer import Vocabulary
from tests.engine.runtime.test_engine import GREEDY, LENGTH, STOP, generations, heard, running
from tests.engine.structured_output.test_constrained import answer
from tests.engine.structured_output.test_structural_tag import CALL, CLOSE, DIGITS, GRAMMARS, OPEN, VOCABULARY, ids
from tests.engine.structured_output.test_structural_tag import END as SMALL_END
from tests.support import schemas

BYTES = GrammarCompiler(scripted.vocabulary())
NAMED = GRAMMARS.regex('name: ("on"|"off")')
CALLS = (Trigger("<call>", CALL),)
SPENT = ReasoningSpec("<|close|>", opened=True, budget=2)
SPELLED = ReasoningSpec("</k>", opened=True, budget=2)


def accepted(constraint: Constraint, tokens: Sequence[int]) -> Constraint:
    for token in tokens:
        constraint.accept(token)
    return constraint


def all_forced(constraint: Constraint, ends: frozenset[int]) -> list[int]:
    """Accept the forced tokens, up to an end token, and return them."""
    found: list[int] = []
    while (forced := constraint.forced()) and not ends.intersection(found):
        accepted(constraint, forced)
        found += forced
    return found


@pytest.mark.parametrize(
    ("tag", "text", "forced"),
    [
        # An answer: its beginning, a tail, and the end token after it
        (partial(StructuralTag, VOCABULARY, NAMED), "", [*'name: "o']),
        (partial(StructuralTag, VOCABULARY, NAMED), 'name: "of', [*'f"', SMALL_END]),
        (partial(StructuralTag, VOCABULARY, NAMED), 'name: "on"', [SMALL_END]),
        (partial(StructuralTag, VOCABULARY, DIGITS), "1", []),
        (partial(StructuralTag, VOCABULARY, DIGITS), "12", [SMALL_END]),
        (partial(StructuralTag, VOCABULARY, GRAMMARS.regex("(ab)+")), "ab", []),
        # A certain text whose last token may grow: "k" may become "k>"
        (partial(StructuralTag, VOCABULARY, GRAMMARS.regex("xk(>|u)")), "", ["x"]),
        # A call: forced up to its end, then the text is free
        (partial(StructuralTag, VOCABULARY, None, CALLS), "", []),
        (partial(StructuralTag, VOCABULARY, None, CALLS), "so <call>12", [*"</call>"]),
        (partial(StructuralTag, VOCABULARY, None, CALLS), "so <call>12</call>", []),
        # Reasoning: its closing marker once the budget is spent, then the answer's beginning
        (partial(StructuralTag, VOCABULARY, NAMED, reasoning=SPENT), "a", []),
        (partial(StructuralTag, VOCABULARY, NAMED, reasoning=SPENT), "ab", [CLOSE, *'name: "o']),
        (partial(StructuralTag, VOCABULARY, DIGITS, reasoning=SPELLED), "ab", [*"</k>"]),
        (partial(StructuralTag, VOCABULARY, DIGITS, reasoning=SPELLED), "ab</", [*"k>"]),
        # An opening of several tokens
        (partial(StructuralTag, VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", "<|open|>x")), "", []),
        (partial(StructuralTag, VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", "<|open|>x")), [OPEN], ["x"]),
    ],
)
def test_forced_after_text_returns_the_certain_tokens(
    tag: Callable[[], StructuralTag], text: str | Sequence[str | int], forced: list[str | int]
) -> None:
    constraint = accepted(tag().start(), ids(text))
    assert all_forced(constraint, VOCABULARY.end_tokens) == ids(forced)


def test_forced_without_acceptance_leaves_the_mask_as_it_is() -> None:
    constraint = StructuralTag(VOCABULARY, NAMED).start()
    assert list(constraint.forced()) == list(constraint.forced()) != []
    logits = np.zeros(len(VOCABULARY), np.float32)
    constraint.apply_mask(logits)
    assert set(np.flatnonzero(logits == 0)) == {ord("n")}


@pytest.fixture(scope="module")
def vocabulary(smollm2: Path) -> Vocabulary:
    return model_file.read(smollm2)[1]


def _allowed(constraint: Constraint, n_vocab: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    logits = np.zeros(n_vocab, np.float32)
    constraint.apply_mask(logits)
    return np.flatnonzero(logits == 0)


def _walk(tag: StructuralTag, vocabulary: Vocabulary, seed: int) -> int:
    """Draw a random text token by token. Wherever text is forced, check that it must follow, and in which tokens;
    return the number of forced tokens."""
    random, written, forced_tokens = Random(seed), list[int](), 0
    for _ in range(60):
        constraint = accepted(tag.start(), written)
        forced = all_forced(constraint, vocabulary.end_tokens)
        certain = b"".join(map(vocabulary.bytes_of, forced))
        assert vocabulary.encode_bytes(certain) == [token for token in forced if vocabulary.bytes_of(token)]
        one_by_one, drawn = accepted(tag.start(), written), b""
        while len(drawn) < len(certain):  # any choice of tokens leads to the forced text
            token = int(random.choice(_allowed(one_by_one, len(vocabulary))))
            one_by_one.accept(token)
            drawn += vocabulary.bytes_of(token)
        assert drawn.startswith(certain)
        forced_tokens += len(forced)
        written += forced
        if vocabulary.end_tokens.intersection(forced):
            return forced_tokens
        written.append(int(random.choice(_allowed(constraint, len(vocabulary)))))
        if written[-1] in vocabulary.end_tokens:
            return forced_tokens
    return forced_tokens


def test_smollm2_forced_tokens_are_what_any_sampling_writes(vocabulary: Vocabulary) -> None:
    compiler = GrammarCompiler(vocabulary)
    answers = [StructuralTag(vocabulary, compiler.json_schema(schemas.schema(seed))) for seed in range(24)]
    assert sum(_walk(answer, vocabulary, seed) for seed, answer in enumerate(answers)) > 100


def test_smollm2_forced_tokens_of_a_call_begin_after_its_marker(vocabulary: Vocabulary) -> None:
    compiler = GrammarCompiler(vocabulary)
    call = compiler.lark('start: "{\\"name\\": \\"get_weather\\", \\"arguments\\": {" /[a-z]{2}/ "}}</tool_call>"')
    calls = StructuralTag(vocabulary, None, [Trigger("<tool_call>", call)])
    constraint = accepted(calls.start(), vocabulary.encode("So <tool_call>"))
    forced = all_forced(constraint, vocabulary.end_tokens)
    assert b"".join(map(vocabulary.bytes_of, forced)).startswith(b'{"name": "get_weather", "arguments"')


def test_smollm2_forced_tokens_leave_out_an_end_that_may_merge(vocabulary: Vocabulary) -> None:
    """ "world" would be certain, but "worlds" is a token of its own."""
    compiler = GrammarCompiler(vocabulary)
    tag = StructuralTag(vocabulary, compiler.lark('start: "Hello wor" ("ld" | "lds") "!"'))
    forced = all_forced(tag.start(), vocabulary.end_tokens)
    assert b"".join(map(vocabulary.bytes_of, forced)) == b"Hello"


class OneByOne:
    """A grammar without its forced tokens."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar

    def start(self) -> Constraint:
        constraint = self._grammar.start()
        constraint.forced = lambda: ()  # type: ignore[method-assign]  # every other method stays the real one
        return constraint


def sampled(piece: EngineOutput) -> EngineOutput:
    """Return a forced token as if it were sampled, and other outputs as they are."""
    return Token(piece.id, piece.logprobs) if isinstance(piece, Token) else piece


class Hashed(ScriptedModel):
    """A model whose logits are noise that depends on all tokens before."""

    def _row(self, cached: Sequence[int], end: int) -> FloatArray:
        return np.random.default_rng([0, *cached[:end]]).normal(scale=4, size=self.info.n_vocab).astype(np.float32)


def answered(
    grammars: Sequence[Grammar], sampling: SamplingParams, max_tokens: int, batched: bool
) -> list[list[EngineOutput]]:
    """Return the outputs of jobs that run together, without `Started` and `Progress`."""
    outputs: list[list[EngineOutput]] = [[] for _ in grammars]

    async def one(engine: Engine, number: int, grammar: Grammar) -> None:
        with engine.generate(Job((USER, number, ASSISTANT), max_tokens, sampling, grammar=grammar)) as pieces:
            outputs[number] += [sampled(piece) async for piece in pieces if isinstance(piece, (Token, Finished))]

    async def main() -> None:
        async with running(Hashed(batched=batched, n_slots=3)) as engine, trio.open_nursery() as nursery:
            for number, grammar in enumerate(grammars):
                nursery.start_soon(one, engine, number, grammar)

    trio.run(main)
    return outputs


@pytest.mark.slow
@settings(max_examples=30)  # each takes 70 ms
@given(
    seeds=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    max_tokens=st.integers(1, 60),
    penalty=st.sampled_from([0.0, 1.5]),
    batched=st.booleans(),
)
def test_engine_with_forced_tokens_gives_the_answers_of_sampling_one_by_one(
    seeds: list[int], max_tokens: int, penalty: float, batched: bool
) -> None:
    """A vocabulary of bytes has one tokenization of each text, so that the answers must be equal."""
    sampling = SamplingParams(
        0, 1, 0, 0, presence_penalty=penalty, frequency_penalty=penalty, repeat_penalty=1 + penalty
    )
    tags = [StructuralTag(scripted.vocabulary(), BYTES.json_schema(schemas.schema(seed))) for seed in seeds]
    plain = answered([OneByOne(tag) for tag in tags], sampling, max_tokens, batched)
    assert answered(tags, sampling, max_tokens, batched) == plain


SWITCH = BYTES.regex('name: ("on"|"off")')
OFF = b'name: "off"'


@pytest.mark.parametrize(
    ("max_tokens", "text", "end", "evaluated"),
    [
        (100, OFF, STOP, [b"", OFF[:8]]),
        (len(OFF), OFF, LENGTH, [b"", OFF[:8]]),
        (len(OFF) - 1, OFF[:-1], LENGTH, [b"", OFF[:8]]),
        (9, OFF[:9], LENGTH, [b"", OFF[:8]]),
        (8, OFF[:8], LENGTH, [b""]),
        (3, OFF[:3], LENGTH, [b""]),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
async def test_engine_evaluates_forced_tokens_together_and_ends_without_a_decode(
    batched: bool, max_tokens: int, text: bytes, end: Finished, evaluated: list[bytes]
) -> None:
    model = ScriptedModel(lambda message: OFF, batched=batched)
    tag = StructuralTag(scripted.vocabulary(), SWITCH)
    async with running(model) as engine:
        job = Job((USER, ASSISTANT), max_tokens, GREEDY, grammar=tag)
        assert await answer(engine, job) == (text, end)
        assert [bytes(token for token in entry.tokens if token < END) for entry in model.decoded] == evaluated
        assert [entry.logits for entry in model.decoded] == [1] * len(evaluated)


@pytest.mark.parametrize("batched", [False, True])
async def test_engine_with_logprobs_reports_the_models_own_of_forced_tokens(batched: bool) -> None:
    tag = StructuralTag(scripted.vocabulary(), SWITCH)
    model = Hashed(batched=batched)
    outputs: list[list[Token | Finished]] = []
    async with running(model) as engine:
        for grammar in (tag, OneByOne(tag)):
            job = Job((USER, ASSISTANT), 100, GREEDY, grammar=grammar, top_logprobs=2)
            with engine.generate(job) as pieces:
                outputs.append([piece async for piece in pieces if isinstance(piece, (Token, Finished))])
    assert [sampled(piece) for piece in outputs[0]] == outputs[1]
    assert outputs[0][-1] == STOP
    assert [piece.forced for piece in outputs[0] if isinstance(piece, Token)] == [True] * 8 + [False] + [True] * 2
    assert all(isinstance(piece, Finished) or piece.logprobs is not None for piece in outputs[0])
    assert max(entry.logits for entry in model.decoded) == (8 if batched else 1)


def test_picker_forces_no_more_tokens_than_the_job_has_left() -> None:
    tag = StructuralTag(scripted.vocabulary(), SWITCH)
    picker = TokenPicker(Job((USER, ASSISTANT), 10, GREEDY, grammar=tag), {END})
    logits = np.zeros(scripted.vocabulary().size, np.float32)
    assert [forced for _, forced in (picker.pick(lambda row: logits, ()) for _ in range(2))] == [
        tuple(OFF[1:8]),
        tuple(OFF[9:10]),
    ]


async def test_engine_with_logprobs_of_forced_tokens_beyond_the_context_ends_by_length() -> None:
    """Two streams: the forced tokens of one get steps of their own."""
    tag = StructuralTag(scripted.vocabulary(), BYTES.regex('[a-z]{5}: "a long constant text"'))
    jobs = [Job((USER, *text, ASSISTANT), 100, GREEDY, grammar=tag, top_logprobs=0) for text in (b"a", b"bc")]
    async with running(Hashed(batched=True, n_ctx=18, seconds_per_token=0.002)) as engine:
        with generations(engine, *jobs) as both:
            outputs = [await heard(pieces) for pieces in both]
    assert [[output for output in each if isinstance(output, Finished)] for each in outputs] == [[LENGTH], [LENGTH]]
    assert [sum(isinstance(output, Token) for output in each) for each in outputs] == [15, 14]
