"""Constraints on reasoning, calls after markers and answers, with a small vocabulary and with SmolLM2's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.constraint import GrammarError
from engine.gguf.header import Header, MetadataEntry, Value
from engine.loader import model_file
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE
from engine.tokenizer.entries import TokenType
from engine.tokenizer.vocabulary import Vocabulary

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
    return Vocabulary(Header(3, 32, entries, tensors=(), size=0))


VOCABULARY = small_vocabulary()
GRAMMARS = GrammarCompiler(VOCABULARY)
DIGITS = GRAMMARS.regex("[0-9]{2}")
CALL = GRAMMARS.lark('start: /\\n?[0-9]{2}/ "</call>"')
ALL_1 = GRAMMARS.regex("all>1")
BARE = BareCallTrigger("f", GRAMMARS.lark('start: /[0-9]/ "}"'))
OFTEN = GRAMMARS.lark("start: /[0-9]/ (/ ?/ /[0-9]/)* / {0,2}/")
THINK = ReasoningSpec("</think>", "<think>")
BEGUN = ReasoningSpec("</think>", opened=True)
ENDED_BY_CALLS = ReasoningSpec("</think>", opened=True, interruptions=("<|go|>", "<call>"))
GO_12 = GRAMMARS.lark("start: <[" + str(GO) + ']> "12"')


def ids(text: str | Sequence[str | int]) -> list[int]:
    """Return the tokens of a text, or of a list of token texts and ids."""
    if isinstance(text, str):
        return VOCABULARY.encode_prompt(text)
    return [
        each if isinstance(each, int) else next(VOCABULARY.token_index.starting_with(each.encode())) for each in text
    ]


def allowed(tag: StructuralTag, text: str | Sequence[str | int]) -> list[set[int]]:
    """Return the allowed tokens before each token of the text and after the last, up to the first forbidden one."""
    state, found = tag.start(), []
    for token in [*ids(text), None]:
        logits = np.zeros(len(VOCABULARY), np.float32)
        if not state.mask_ready:
            state.compute_mask()
        state.apply_mask(logits)
        found.append(set(np.flatnonzero(logits == 0).tolist()))
        if token is None or token not in found[-1]:
            break
        state.accept(token)
    return found


def last(tag: StructuralTag, text: str | Sequence[str | int]) -> set[int] | str:
    """Return the allowed tokens after `text`, or the position where it is rejected."""
    tokens, found = ids(text), allowed(tag, text)
    if len(found) <= len(tokens):
        return f"rejected at {len(found) - 1}"
    return found[-1]


ALL = set(range(len(VOCABULARY)))
NO_END = ALL - {END}
WHOLE = {256 + n for n, text in enumerate(LONG) if "<call>" in text}
GREATER = {ord(">"), *(256 + n for n, text in enumerate(LONG) if text.startswith(">"))}
DIGIT = set(b"0123456789")


@pytest.mark.parametrize(
    ("tag", "text", "then"),
    [
        # An answer
        (StructuralTag(VOCABULARY, DIGITS), "", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS), "12", {END}),
        (StructuralTag(VOCABULARY, DIGITS), "x", "rejected at 0"),
        # Reasoning that is open, then an answer
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), "", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), "so 7 <think> <call>", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), "so</think>", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), ["<", "/", "t", "h", "i", "n", "k>"], DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), ["<", "/", "t", "h", "i", "n", "k> "], DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), ["<", "/", "t", "h", "i", "n", "k", ">\n"], DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), ["<", "/", "t", "h", "i", "n", "k>no"], "rejected at 6"),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN),
            ["<", "/", "t", "h", "i", "n", "k", ">x"],
            "rejected at 7",
        ),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN), "so</think>12", {END}),
        # Reasoning that the model may open
        (StructuralTag(VOCABULARY, DIGITS, reasoning=THINK), "", DIGIT | {ord("<")}),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=THINK), "12", {END}),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=THINK), "1<think>", "rejected at 1"),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=THINK), "<think>", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=THINK), "<think>12</think>1", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("</think>", "<think>", budget=0)), "", DIGIT),
        (StructuralTag(VOCABULARY, GRAMMARS.regex("<t[0-9]"), reasoning=THINK), "", {ord("<")}),
        (
            StructuralTag(VOCABULARY, GRAMMARS.regex("<t[0-9]"), reasoning=THINK),
            ["<"],
            {ord("t"), *ids(["th"])} - {ids(["th"])[0]},
        ),
        (StructuralTag(VOCABULARY, GRAMMARS.regex("<t[0-9]"), reasoning=THINK), "<t1", {END}),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", "<|open|>x")), [OPEN], {ord("x")}),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", "<|open|>x")),
            [OPEN, "x", "a"],
            NO_END,
        ),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", "<|open|>x")),
            [OPEN, "x", "a", CLOSE],
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True)),
            ["<", *"|close|>"],
            NO_END,
        ),
        # Reasoning whose closing marker is an end token
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|end|>", "<think>")), "", DIGIT),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|end|>", opened=True)), "", DIGIT),
        # Budgets
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True, budget=0)), "", {CLOSE}),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True, budget=2)), "a", NO_END),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True, budget=2)), "ab", {CLOSE}),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True)).with_budget(2),
            "ab",
            {CLOSE},
        ),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True)).with_budget(3),
            "ab",
            NO_END,
        ),
        (StructuralTag(VOCABULARY, DIGITS).with_budget(3), "1", DIGIT),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("<|close|>", opened=True, budget=2)),
            ["a", "b", CLOSE],
            DIGIT,
        ),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("</k>", opened=True, budget=2)), "ab", {ord("<")}),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("</k>", opened=True, budget=2)),
            ["a", "</"],
            {ord("k")},
        ),
        (
            StructuralTag(VOCABULARY, DIGITS, reasoning=ReasoningSpec("</k>", opened=True, budget=2)),
            ["a", "</", "k", ">"],
            DIGIT,
        ),
        (StructuralTag(VOCABULARY, reasoning=ReasoningSpec("</k>", opened=True, budget=1)), ["a", *"</k>"], ALL),
        (
            StructuralTag(VOCABULARY, reasoning=ReasoningSpec("<|close|>", "<|open|>", budget=1)),
            ["a", OPEN, "b"],
            {CLOSE},
        ),
        (
            StructuralTag(VOCABULARY, reasoning=ReasoningSpec("<|close|>", "<|open|>", budget=1)),
            [OPEN, "b", CLOSE, "c", OPEN],
            {CLOSE},
        ),
        # Calls
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "", ALL),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "so <call", ALL - set(ids([">x", '>{"']))),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "so <call>", DIGIT | {ord("\n")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), [*"<call", ">\n"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), [*"<call", ">x"], "rejected at 5"),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), [*"<ca", "ll>1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), ["a<call>1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)]), "<call>no", "rejected at 6"),
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
        # The marker that ends first; the longest if several end there
        (StructuralTag(VOCABULARY, triggers=[Trigger("l>", DIGITS), Trigger("<c", ALL_1)]), ["<call>"], {ord("1")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("l>", DIGITS), Trigger("<call>", ALL_1)]), ["<call>"], {ord("a")}),
        # Calls without a marker
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), "", ALL),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), '\n {"name" :"', ALL),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), '\n {"name" :"f"', DIGIT),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), '{"g": {"name":"f"', ALL),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), 'so {"name":"f"', ALL),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), '{"name":"f"1}', ALL),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), '{"name":"f"1}; {"name":"f"', DIGIT),
        (StructuralTag(VOCABULARY, bare_calls=[BARE]), '{"name":"f"1} so {"name":"f"', ALL),
        (StructuralTag(VOCABULARY, bare_calls=[BARE], reasoning=BEGUN), '{"name":"f"</think>{"name":"f"', DIGIT),
        (
            StructuralTag(VOCABULARY, bare_calls=[BARE], triggers=[Trigger("<call>", CALL)]),
            '{"name":"f"1}<call>1',
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, bare_calls=[BARE], triggers=[Trigger("<call>", CALL)]),
            '<call>12</call>{"name":"f"',
            ALL,
        ),
        # Reasoning has no calls
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=BEGUN), [GO], ALL),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=BEGUN), [*"</think>", GO, "1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=THINK), [*"<think>", GO], ALL),
        # A marker of a call, or of the answer, ends the reasoning in some families
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=ENDED_BY_CALLS),
            ["a", GO],
            DIGIT | {ord("\n")},
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=ENDED_BY_CALLS),
            ["a", GO, *"12</call>b"],
            ALL,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], reasoning=ENDED_BY_CALLS),
            [*"a<call>"],
            DIGIT | {ord("\n")},
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], reasoning=ENDED_BY_CALLS),
            [*"<ca", "ll>1"],
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], reasoning=ENDED_BY_CALLS),
            [*"<ca", "ll>no"],
            "rejected at 3",
        ),
        (StructuralTag(VOCABULARY, reasoning=ENDED_BY_CALLS), ["a", GO], ALL),
        (StructuralTag(VOCABULARY, GO_12, reasoning=ENDED_BY_CALLS), "a", NO_END - WHOLE),
        (StructuralTag(VOCABULARY, GO_12, reasoning=ENDED_BY_CALLS), ["a", GO], {ord("1")}),
        (StructuralTag(VOCABULARY, GO_12, reasoning=ENDED_BY_CALLS), ["a", GO, "1", "2"], {END}),
        (
            StructuralTag(VOCABULARY, GO_12, reasoning=ENDED_BY_CALLS),
            [*"a<call"],
            NO_END - WHOLE - GREATER,
        ),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ENDED_BY_CALLS), ["a", GO], "rejected at 1"),
        (StructuralTag(VOCABULARY, DIGITS, reasoning=ENDED_BY_CALLS), "a</think>", DIGIT),
        # An answer that quotes the opening marker opens no reasoning
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=THINK), [*"a<think>", GO, "1"], DIGIT),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=THINK), [*" \n<think>", GO], ALL),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=THINK),
            [*"<think>a</think>\n<think>", GO],
            ALL,
        ),
        (
            StructuralTag(
                VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=ReasoningSpec("<|close|>", "<|open|>")
            ),
            ["a", OPEN, GO],
            ALL,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=THINK),
            [*"<think></think>", GO, "1"],
            DIGIT,
        ),
        # Several markers in one token
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("\nq", CALL)], reasoning=ReasoningSpec("k>", opened=True)),
            ["k", ">\n", "q", "1"],
            DIGIT,
        ),
        (
            StructuralTag(VOCABULARY, triggers=[Trigger("<|go|>", CALL)], reasoning=ReasoningSpec("1", "<call>")),
            ["a<call>1", GO, "1"],
            DIGIT,
        ),
        # Reasoning before a call counts towards the budget
        (
            StructuralTag(
                VOCABULARY,
                triggers=[Trigger("<|go|>", CALL)],
                reasoning=ReasoningSpec("<|close|>", "<|open|>", budget=1),
            ),
            [OPEN, "b", CLOSE, GO, *"12</call>", "c", OPEN],
            {CLOSE},
        ),
        (StructuralTag(VOCABULARY), "whatever <call>", ALL),
        # A marker that the prompt begins
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], prefix="<ca"), ["ll>"], DIGIT | {ord("\n")}),
        (StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)], prefix="<ca"), "l <call>1", DIGIT),
    ],
)
def test_structural_tag_after_text_allows_tokens(
    tag: StructuralTag, text: str | list[str | int], then: set[int] | str
) -> None:
    assert last(tag, text) == then


@pytest.mark.parametrize(
    ("text", "preferred", "then"),
    [
        ("", "x", DIGIT),
        ("1", "x", {END}),
        ("1 ", "x", {END}),
        ("1", "2", DIGIT | {ord(" "), END}),
        ("1", " ", DIGIT | {ord(" "), END}),
    ],
)
def test_eager_stop_with_forbidden_preferred_token_allows_end_only(text: str, preferred: str, then: set[int]) -> None:
    state = StructuralTag(VOCABULARY, OFTEN).start()
    for token in ids(text):
        state.accept(token)
    logits = np.zeros(len(VOCABULARY), np.float32)
    logits[ids(preferred)] = 1
    state.apply_mask(logits)
    assert set(np.flatnonzero(logits >= 0).tolist()) == then


TOKENS = st.sampled_from([*LONG, *map(chr, range(32, 127)), *"</thin0123456789\n", *"<call>"]).map(
    lambda text: next(VOCABULARY.token_index.starting_with(text.encode()))
)
SPACED = GRAMMARS.lark('start: /[ \\n]{0,3}[0-9]{2}/ "</call>"')
MANY = [
    StructuralTag(VOCABULARY, triggers=[Trigger("<call>", SPACED)], reasoning=THINK),
    StructuralTag(VOCABULARY, triggers=[Trigger("<call>", SPACED)], reasoning=BEGUN),
    StructuralTag(VOCABULARY, SPACED, reasoning=BEGUN),
    StructuralTag(VOCABULARY, SPACED, reasoning=THINK),
]
CUES = st.sampled_from(
    [[*"<call>12</call>"], ["<call>", "1", "2", "</"], ["</", "th", "i", "n", "k>"], ["<", "th", "i", "n", "k>"], [GO]]
).map(ids)


@pytest.mark.slow
@given(st.sampled_from(MANY), st.lists(CUES | TOKENS.map(lambda token: [token]), max_size=8))
def test_structural_tag_with_other_token_split_allows_same_tokens(tag: StructuralTag, drawn: list[list[int]]) -> None:
    tokens = [token for some in drawn for token in some]
    then = last(tag, tokens)
    cut = [each for token in tokens for each in (list(VOCABULARY.bytes_of(token)) or [token])]
    if isinstance(then, set):
        assert last(tag, cut) == then


@pytest.mark.parametrize("tokens", [[*"</thin", "k>no"], [*"</think>", "x"]])
def test_structural_tag_with_masked_token_raises_grammar_error(tokens: list[str]) -> None:
    state = StructuralTag(VOCABULARY, DIGITS, reasoning=BEGUN).start()
    *before, wrong = ids(tokens)
    for token in before:
        state.accept(token)
    with pytest.raises(GrammarError):
        state.accept(wrong)


@pytest.mark.parametrize(
    ("trigger", "tokens"),
    [(Trigger("<call>", CALL), [*"<call", ">x"]), (Trigger("al", GRAMMARS.regex(">[0-9]")), ["a", "ll>"])],
)
def test_structural_tag_with_token_that_overruns_marker_stays_in_free_text(trigger: Trigger, tokens: list[str]) -> None:
    state = StructuralTag(VOCABULARY, triggers=[trigger]).start()
    for token in ids(tokens):
        state.accept(token)
    logits = np.zeros(len(VOCABULARY), np.float32)
    state.apply_mask(logits)
    assert not logits[:256].any()


def test_structural_tag_started_twice_gives_independent_states() -> None:
    tag = StructuralTag(VOCABULARY, triggers=[Trigger("<call>", CALL)])
    assert [last(tag, "<call>12</call>"), last(tag, "<call>1")] == [ALL, DIGIT]


def test_structural_tag_with_unwritable_marker_raises_grammar_error(smollm2: Path) -> None:
    vocabulary = model_file.read(smollm2)[1]
    with pytest.raises(GrammarError, match="the model has no tokens for"):
        StructuralTag(vocabulary, reasoning=ReasoningSpec("</\x04>", opened=True))
