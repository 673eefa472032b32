"""What holds when: thoughts, calls behind markers, answers; on a vocabulary that is made for it, and SmolLM2's."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.backends import scripted
from engine.backends.scripted import ASSISTANT, USER, ScriptedModel
from engine.constraint import GrammarError
from engine.gguf.header import Header, MetadataEntry, Value
from engine.job import Job, SamplingParams, Token
from engine.loader import model_file
from engine.loader.loader import Options, load
from engine.runtime.engine import Engine
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE
from engine.tokenizer.vocabulary import TokenType, Vocabulary
from tests.engine.runtime.test_engine import LENGTH, STOP, running
from tests.engine.structured_output.test_constrained import GREEDY, answer

LONG = ("</", ">\n", "\n\n", '>{"', ">x", "k>", "k> ", "k>no", "ll>", "ll>1", "ll>no", "th", "<call>", "a<call>1")
"""Tokens of more than a byte."""
CONTROL = ("<|end|>", "<|open|>", "<|close|>", "<|go|>")
END, OPEN, CLOSE, GO = range(256 + len(LONG), 256 + len(LONG) + len(CONTROL))


def small_vocabulary() -> Vocabulary:
    """All bytes, some longer tokens, and control tokens."""
    texts = ["".join(BYTE_TO_UNICODE[byte] for byte in text.encode()) for text in LONG]
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*(BYTE_TO_UNICODE[byte] for byte in range(256)), *texts, *CONTROL],
        "tokenizer.ggml.token_type": [int(TokenType.NORMAL)] * (256 + len(LONG))
        + [int(TokenType.CONTROL)] * len(CONTROL),
        "tokenizer.ggml.eos_token_id": END,
    }
    entries = {key: MetadataEntry(value, type=0, start=0, end=0) for key, value in values.items()}
    return Vocabulary(Header(3, 32, entries, tensors=(), data_start=0, size=0))


VOCABULARY = small_vocabulary()
GRAMMARS = GrammarCompiler(VOCABULARY)
DIGITS = GRAMMARS.regex("[0-9]{2}")
CALL = GRAMMARS.lark('start: /\\n?[0-9]{2}/ "</call>"')
ALL_1 = GRAMMARS.regex("all>1")
BARE = BareCallTrigger("f", GRAMMARS.lark('start: /[0-9]/ "}"'))
OFTEN = GRAMMARS.lark("start: /[0-9]/ (/ ?/ /[0-9]/)* / {0,2}/")
THINK = ReasoningSpec("</think>", "<think>")
BEGUN = ReasoningSpec("</think>", begun=True)
ENDED_BY_CALLS = ReasoningSpec("</think>", begun=True, interruptions=("<|go|>", "<call>"))
GO_12 = GRAMMARS.lark("start: <[" + str(GO) + ']> "12"')


def ids(text: str | Sequence[str | int]) -> list[int]:
    """Of a list: a token each, by its text or its id."""
    if isinstance(text, str):
        return VOCABULARY.encode_prompt(text)
    return [each if isinstance(each, int) else next(VOCABULARY.spellings.starting_with(each.encode())) for each in text]


def allowed(phases: StructuralTag, text: str | Sequence[str | int]) -> list[set[int]]:
    """What may come before each token, and behind the last. All tokens of it may come, or it ends there."""
    course, found = phases.start(), []
    for token in [*ids(text), None]:
        logits = np.zeros(len(VOCABULARY), np.float32)
        if not course.mask_ready:
            course.compute_mask()
        course.apply_mask(logits)
        found.append(set(np.flatnonzero(logits == 0).tolist()))
        if token is None or token not in found[-1]:
            break
        course.accept(token)
    return found


def last(phases: StructuralTag, text: str | Sequence[str | int]) -> set[int] | str:
    """What may come after `text`, or where it is refused."""
    tokens, found = ids(text), allowed(phases, text)
    if len(found) <= len(tokens):
        return f"refused at {len(found) - 1}"
    return found[-1]


ALL = set(range(len(VOCABULARY)))
NO_END = ALL - {END}
WHOLE = {256 + n for n, text in enumerate(LONG) if "<call>" in text}
GREATER = {ord(">"), *(256 + n for n, text in enumerate(LONG) if text.startswith(">"))}
DIGIT = set(b"0123456789")


@pytest.mark.parametrize(
    ("phases", "text", "then"),
    [
        # An answer
        (StructuralTag(VOCABULARY, DIGITS), "", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS), "12", {END}),
        (StructuralTag(VOCABULARY, DIGITS), "x", "refused at 0"),
        # A thought that has begun, then an answer
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), "", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), "so 7 <think> <call>", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), "so</think>", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), ["<", "/", "t", "h", "i", "n", "k>"], DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), ["<", "/", "t", "h", "i", "n", "k> "], DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), ["<", "/", "t", "h", "i", "n", "k", ">\n"], DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), ["<", "/", "t", "h", "i", "n", "k>no"], "refused at 6"),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), ["<", "/", "t", "h", "i", "n", "k", ">x"], "refused at 7"),
        (StructuralTag(VOCABULARY, DIGITS, thought=BEGUN), "so</think>12", {END}),
        # One that may begin
        (StructuralTag(VOCABULARY, DIGITS, thought=THINK), "", DIGIT | {ord("<")}),
        (StructuralTag(VOCABULARY, DIGITS, thought=THINK), "12", {END}),
        (StructuralTag(VOCABULARY, DIGITS, thought=THINK), "1<think>", "refused at 1"),
        (StructuralTag(VOCABULARY, DIGITS, thought=THINK), "<think>", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, thought=THINK), "<think>12</think>1", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("</think>", "<think>", budget=0)), "", DIGIT),
        (StructuralTag(VOCABULARY, GRAMMARS.regex("<t[0-9]"), thought=THINK), "", {ord("<")}),
        (
            StructuralTag(VOCABULARY, GRAMMARS.regex("<t[0-9]"), thought=THINK),
            ["<"],
            {ord("t"), *ids(["th"])} - {ids(["th"])[0]},
        ),
        (StructuralTag(VOCABULARY, GRAMMARS.regex("<t[0-9]"), thought=THINK), "<t1", {END}),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", "<|open|>x")), [OPEN], {ord("x")}),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", "<|open|>x")), [OPEN, "x", "a"], NO_END),
        (
            StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", "<|open|>x")),
            [OPEN, "x", "a", CLOSE],
            DIGIT,
        ),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True)), ["<", *"|close|>"], NO_END),
        # One that would end all
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|end|>", "<think>")), "", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|end|>", begun=True)), "", DIGIT),
        # Budgets
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True, budget=0)), "", {CLOSE}),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True, budget=2)), "a", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True, budget=2)), "ab", {CLOSE}),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True)).within(2), "ab", {CLOSE}),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True)).within(3), "ab", NO_END),
        (StructuralTag(VOCABULARY, DIGITS).within(3), "1", DIGIT),
        (
            StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("<|close|>", begun=True, budget=2)),
            ["a", "b", CLOSE],
            DIGIT,
        ),
        (StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("</k>", begun=True, budget=2)), "ab", {ord("<")}),
        (
            StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("</k>", begun=True, budget=2)),
            ["a", "</"],
            {ord("k")},
        ),
        (
            StructuralTag(VOCABULARY, DIGITS, thought=ReasoningSpec("</k>", begun=True, budget=2)),
            ["a", "</", "k", ">"],
            DIGIT,
        ),
        (StructuralTag(VOCABULARY, thought=ReasoningSpec("</k>", begun=True, budget=1)), ["a", *"</k>"], ALL),
        (
            StructuralTag(VOCABULARY, thought=ReasoningSpec("<|close|>", "<|open|>", budget=1)),
            ["a", OPEN, "b"],
            {CLOSE},
        ),
        (
            StructuralTag(VOCABULARY, thought=ReasoningSpec("<|close|>", "<|open|>", budget=1)),
            [OPEN, "b", CLOSE, "c", OPEN],
            {CLOSE},
        ),
        # Calls
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "", ALL),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "so <call", ALL - set(ids([">x", '>{"']))),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "so <call>", DIGIT | {ord("\n")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), [*"<call", ">\n"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), [*"<call", ">x"], "refused at 5"),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), [*"<ca", "ll>1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), ["a<call>1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "<call>no", "refused at 6"),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "<call>12</call>", ALL),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]),
            "<call>12</call> and <call>",
            DIGIT | {ord("\n")},
        ),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)]), [*"<|go|>"], ALL),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)]), [GO], DIGIT | {ord("\n")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>f<|open|>", CALL)]), [GO, "f", OPEN, "1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>f<|open|>", CALL)]), [GO, "g", OPEN], ALL),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<", DIGITS), Trigger("<a", CALL)]), "<", DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "<call>12</call><call>", DIGIT | {ord("\n")}),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", GRAMMARS.regex("[a-z]"))]),
            "",
            ALL - set(ids(["a<call>1"])),
        ),
        # The marker that ends first, and of those the longest
        (StructuralTag(VOCABULARY, triggers=[Trigger("l>", DIGITS), Trigger("<c", ALL_1)]), ["<call>"], {ord("1")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("l>", DIGITS), Trigger("<call>", ALL_1)]), ["<call>"], {ord("a")}),
        # Calls without a marker
        (StructuralTag(VOCABULARY, beginnings=[BARE]), "", ALL),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), '\n {"name" :"', ALL),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), '\n {"name" :"f"', DIGIT),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), '{"g": {"name":"f"', ALL),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), 'so {"name":"f"', ALL),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), '{"name":"f"1}', ALL),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), '{"name":"f"1}; {"name":"f"', DIGIT),
        (StructuralTag(VOCABULARY, beginnings=[BARE]), '{"name":"f"1} so {"name":"f"', ALL),
        (StructuralTag(VOCABULARY, beginnings=[BARE], thought=BEGUN), '{"name":"f"</think>{"name":"f"', DIGIT),
        (
            StructuralTag(VOCABULARY, beginnings=[BARE], triggers=[Trigger("<call>", CALL)]),
            '{"name":"f"1}<call>1',
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, beginnings=[BARE], triggers=[Trigger("<call>", CALL)]),
            '<call>12</call>{"name":"f"',
            ALL,
        ),
        # Nothing is called in a thought
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=BEGUN), [GO], ALL),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=BEGUN), [*"</think>", GO, "1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=THINK), [*"<think>", GO], ALL),
        # But a marker of a call, or of the answer, ends a thought where the family does so
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=ENDED_BY_CALLS),
            ["a", GO],
            DIGIT | {ord("\n")},
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=ENDED_BY_CALLS),
            ["a", GO, *"12</call>b"],
            ALL,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], thought=ENDED_BY_CALLS),
            [*"a<call>"],
            DIGIT | {ord("\n")},
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], thought=ENDED_BY_CALLS),
            [*"<ca", "ll>1"],
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], thought=ENDED_BY_CALLS),
            [*"<ca", "ll>no"],
            "refused at 3",
        ),
        (StructuralTag(VOCABULARY, thought=ENDED_BY_CALLS), ["a", GO], ALL),
        (StructuralTag(VOCABULARY, GO_12, thought=ENDED_BY_CALLS), "a", NO_END - WHOLE),
        (StructuralTag(VOCABULARY, GO_12, thought=ENDED_BY_CALLS), ["a", GO], {ord("1")}),
        (StructuralTag(VOCABULARY, GO_12, thought=ENDED_BY_CALLS), ["a", GO, "1", "2"], {END}),
        (
            StructuralTag(VOCABULARY, GO_12, thought=ENDED_BY_CALLS),
            [*"a<call"],
            NO_END - WHOLE - GREATER,
        ),
        (StructuralTag(VOCABULARY, DIGITS, thought=ENDED_BY_CALLS), ["a", GO], "refused at 1"),
        (StructuralTag(VOCABULARY, DIGITS, thought=ENDED_BY_CALLS), "a</think>", DIGIT),
        # An answer that quotes the opening of a thought begins none
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=THINK), [*"a<think>", GO, "1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=THINK), [*" \n<think>", GO], ALL),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=THINK),
            [*"<think>a</think>\n<think>", GO],
            ALL,
        ),
        (
            StructuralTag(
                VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=ReasoningSpec("<|close|>", "<|open|>")
            ),
            ["a", OPEN, GO],
            ALL,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=THINK),
            [*"<think></think>", GO, "1"],
            DIGIT,
        ),
        # Several markers in one token
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("\nq", CALL)], thought=ReasoningSpec("k>", begun=True)),
            ["k", ">\n", "q", "1"],
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=ReasoningSpec("1", "<call>")),
            ["a<call>1", GO, "1"],
            DIGIT,
        ),
        # What was thought before a call counts
        (
            StructuralTag(
                VOCABULARY, triggers=[Trigger("<|go|>", CALL)], thought=ReasoningSpec("<|close|>", "<|open|>", budget=1)
            ),
            [OPEN, "b", CLOSE, GO, *"12</call>", "c", OPEN],
            {CLOSE},
        ),
        (StructuralTag(VOCABULARY), "whatever <call>", ALL),
        # A marker that the prompt has begun
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], begun="<ca"), ["ll>"], DIGIT | {ord("\n")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], begun="<ca"), "l <call>1", DIGIT),
    ],
)
def test_what_may_come(phases: StructuralTag, text: str | list[str | int], then: set[int] | str) -> None:
    assert last(phases, text) == then


@pytest.mark.parametrize(
    ("text", "wish", "then"),
    [
        ("", "x", DIGIT),
        ("1", "x", {END}),
        ("1 ", "x", {END}),
        ("1", "2", DIGIT | {ord(" "), END}),
        ("1", " ", DIGIT | {ord(" "), END}),
    ],
)
def test_an_answer_ends_where_it_may_and_something_else_is_wished(text: str, wish: str, then: set[int]) -> None:
    course = StructuralTag(VOCABULARY, OFTEN).start()
    for token in ids(text):
        course.accept(token)
    logits = np.zeros(len(VOCABULARY), np.float32)
    logits[ids(wish)] = 1
    course.apply_mask(logits)
    assert set(np.flatnonzero(logits >= 0).tolist()) == then


TOKENS = st.sampled_from([*LONG, *map(chr, range(32, 127)), *"</thin0123456789\n", *"<call>"]).map(
    lambda text: next(VOCABULARY.spellings.starting_with(text.encode()))
)
SPACED = GRAMMARS.lark('start: /[ \\n]{0,3}[0-9]{2}/ "</call>"')
MANY = [
    StructuralTag(VOCABULARY, triggers=[Trigger("<call>", SPACED)], thought=THINK),
    StructuralTag(VOCABULARY, triggers=[Trigger("<call>", SPACED)], thought=BEGUN),
    StructuralTag(VOCABULARY, SPACED, thought=BEGUN),
    StructuralTag(VOCABULARY, SPACED, thought=THINK),
]
CUES = st.sampled_from(
    [[*"<call>12</call>"], ["<call>", "1", "2", "</"], ["</", "th", "i", "n", "k>"], ["<", "th", "i", "n", "k>"], [GO]]
).map(ids)


@given(st.sampled_from(MANY), st.lists(CUES | TOKENS.map(lambda token: [token]), max_size=8))
def test_the_same_text_leads_through_the_same_phases_however_it_is_cut(
    phases: StructuralTag, drawn: list[list[int]]
) -> None:
    tokens = [token for some in drawn for token in some]
    then = last(phases, tokens)
    cut = [each for token in tokens for each in (list(VOCABULARY.bytes_of(token)) or [token])]
    if isinstance(then, set):
        assert last(phases, cut) == then


@pytest.mark.parametrize("tokens", [[*"</thin", "k>no"], [*"</think>", "x"]])
def test_what_is_written_past_the_mask_is_no_answer(tokens: list[str]) -> None:
    course = StructuralTag(VOCABULARY, DIGITS, thought=BEGUN).start()
    *before, wrong = ids(tokens)
    for token in before:
        course.accept(token)
    with pytest.raises(GrammarError):
        course.accept(wrong)


@pytest.mark.parametrize(
    ("trigger", "tokens"),
    [(Trigger("<call>", CALL), [*"<call", ">x"]), (Trigger("al", GRAMMARS.regex(">[0-9]")), ["a", "ll>"])],
)
def test_a_call_that_could_not_be_held_is_free_text(trigger: Trigger, tokens: list[str]) -> None:
    course = StructuralTag(VOCABULARY, triggers=[trigger]).start()
    for token in ids(tokens):
        course.accept(token)
    logits = np.zeros(len(VOCABULARY), np.float32)
    course.apply_mask(logits)
    assert not logits[:256].any()


def test_one_is_started_any_number_of_times() -> None:
    phases = StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)])
    assert [last(phases, "<call>12</call>"), last(phases, "<call>1")] == [ALL, DIGIT]


def test_a_marker_that_the_model_cannot_write_is_refused(smollm2: Path) -> None:
    vocabulary = model_file.read(smollm2)[1]
    with pytest.raises(GrammarError, match="the model has no tokens for"):
        StructuralTag(vocabulary, thought=ReasoningSpec("</\x04>", begun=True))


SCRIPTED = scripted.vocabulary()
OVER = GrammarCompiler(SCRIPTED)
HELD = OVER.lark('start: /[0-9]{2}(no|yes)/ "</call>"')


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("phases", "script", "came"),
    [
        # A script goes on behind as many bytes of it as were written.
        (
            StructuralTag(SCRIPTED, triggers=[Trigger("<call>", HELD)]),
            b"so <call>12no</call>, ok",
            b"so <call>12no</call>, ok",
        ),
        (
            StructuralTag(SCRIPTED, triggers=[Trigger("<call>", HELD)]),
            b"<call>nope</call>?!!!",
            b"<call>00no</call>?!!!",
        ),
        (
            StructuralTag(SCRIPTED, HELD, thought=ReasoningSpec("</t>", begun=True)),
            b"so</t>12no</call>",
            b"so</t>12no</call>",
        ),
        (
            StructuralTag(SCRIPTED, HELD, thought=ReasoningSpec("</t>", begun=True, budget=3)),
            b"so, well",
            b"so,</t>00no</call>",
        ),
        (
            StructuralTag(SCRIPTED, thought=ReasoningSpec("</t>", "<t>", budget=3)),
            b"<t>so, and what?",
            b"<t>so,</t> what?",
        ),
        (StructuralTag(SCRIPTED, triggers=[Trigger("<call>", HELD)]), b"abcd" * 20, b"abcd" * 20),
        (
            StructuralTag(SCRIPTED, triggers=[Trigger("cd", HELD)]),
            b"abcd" * 9,
            b"abcd00no</call>" + b"dabcd00no</call>" * 2,
        ),
    ],
)
async def test_a_script_is_held(phases: StructuralTag, script: bytes, came: bytes, batched: bool) -> None:
    async with running(ScriptedModel(lambda message: script, batched=batched)) as engine:
        assert await answer(engine, Job((USER, ASSISTANT), 200, GREEDY, grammar=phases)) == (came, STOP)


HOT = SamplingParams(temperature=1.5, top_p=1, top_k=0, min_p=0)
CODE = r" [A-F]{2}-\d{3}\."
FITS = {
    "free": rf"(?s)((?! the).)*( the{CODE}((?! the).)*)*( the[^.]*)?",  # the last one may be cut
    "begun": rf"(?s).*</think>{CODE}",
    "may begin": rf"(?s)(<think>.*</think>)?{CODE}",
}


@pytest.mark.parametrize("engine", ["llamacpp", "ctransformers"])
async def test_smollm2_is_held_behind_markers_and_thoughts(engine: str, smollm2: Path, cache: Path) -> None:
    """At temperature 1.5, several at once."""
    loaded = load(smollm2, Options(n_slots=4, n_ctx=512, engine=engine), cache)
    grammars = GrammarCompiler(loaded.vocabulary)
    held = grammars.lark('start: " " /[A-F]{2}/ "-" /[0-9]{3}/ "."')
    thought = ReasoningSpec("</think>", "<think>", budget=9)
    cases = {
        "free": StructuralTag(loaded.vocabulary, triggers=[Trigger(" the", held)]),
        "begun": StructuralTag(loaded.vocabulary, held, thought=replace(thought, begun=True)),
        "may begin": StructuralTag(loaded.vocabulary, held, thought=thought),
    }
    written: dict[tuple[str, int], str] = {}

    async def one(host: Engine, name: str, seed: int) -> None:
        prompt = loaded.vocabulary.encode("Once upon a time, in the middle of the night")
        job = Job(tuple(prompt), 60, replace(HOT, seed=seed), grammar=cases[name])
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
                for seed in range(6 if engine == "llamacpp" else 2):
                    asking.start_soon(one, host, name, seed)
        nursery.cancel_scope.cancel()
    loaded.model.close()
    assert [each for each in written.items() if not re.fullmatch(FITS[each[0][0]], each[1])] == []
