"""Truncation drops the oldest turns, in steps of a quarter of the limit; system messages stay."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chat_template.message import Call, Message
from server.prompt.truncation import fit_first_turns, fit_last_turns, reserved_tokens

SYSTEM, LATER = Message("system", "S"), Message("system", "L")
CALLED = (Message("assistant", "", calls=(Call("a", "f", ""),)), Message("tool", "o"))


def conversation(text: str) -> list[Message]:
    """Return a message for each letter; capitals are the user's."""
    return [Message("user" if letter.isupper() else "assistant", letter) for letter in text]


def tokens(messages: Sequence[Message]) -> list[int]:
    """Count a token for each letter, and one for the end of each message."""
    return [ord(letter) for message in messages for letter in f"{message.content or 'c'}."]


def text(prompt: Sequence[int]) -> str:
    return "".join(map(chr, prompt)).replace(".", "")


CASES: dict[str, tuple[list[Message], int, str]] = {
    "all fits": (conversation("AaBbC"), 10, "AaBbC"),
    "one turn too much": (conversation("AaBbC"), 9, "BbC"),
    "two turns too much": (conversation("AaBbC"), 5, "C"),
    "the last turn is too long": (conversation("AaBbCcc"), 1, "Ccc"),
    "only one turn": (conversation("Abc"), 1, "Abc"),
    "system messages stay": ([SYSTEM, SYSTEM, *conversation("AaBbC")], 6, "SSC"),
    "later ones go": ([SYSTEM, *conversation("Aa"), LATER, *conversation("BbC")], 8, "SBbC"),
    "calls stay with their outputs": ([*conversation("A"), *CALLED, *conversation("aBbC")], 13, "BbC"),
    "calls at the end stay": ([*conversation("AaB"), *CALLED], 2, "Bco"),
    "the assistant speaks first": (conversation("abCcD"), 6, "CcD"),
    "the assistant alone": (conversation("ab"), 1, "ab"),
    "system messages alone": ([SYSTEM, SYSTEM], 1, "SS"),
}


@pytest.mark.parametrize(("messages", "max_tokens", "left"), CASES.values(), ids=CASES)
def test_fit_last_turns_drops_oldest_turns(messages: list[Message], max_tokens: int, left: str) -> None:
    assert text(fit_last_turns(messages, tokens, max_tokens)) == left


@given(st.text("Aab", max_size=30), st.integers(0, 70))
def test_fit_last_turns_drops_whole_quarters(letters: str, max_tokens: int) -> None:
    messages = [SYSTEM, *conversation(letters), *conversation("Z")]
    starts = [i for i, message in enumerate(messages) if i == 1 or message.role == "user"]
    every = [tokens([SYSTEM, *messages[start:]]) for start in starts]
    whole, quarter = len(every[0]), max(max_tokens // 4, 1)
    limit = whole if whole <= max_tokens else next(n for n in range(whole, -whole - 80, -quarter) if n <= max_tokens)
    assert fit_last_turns(messages, tokens, max_tokens) == next(
        (prompt for prompt in every if len(prompt) <= limit), every[-1]
    )


def test_fit_last_turns_of_growing_conversation_reuses_prefix() -> None:
    """Otherwise no later turn could reuse the KV cache."""
    talk = conversation("".join(f"{chr(0x410 + n)}a" for n in range(32)))  # capitals that differ
    beginnings = [fit_last_turns(talk[: 2 * turns], tokens, 60)[0] for turns in range(16, 32)]
    assert len(set(beginnings)) == 5  # of 4 tokens a turn, a quarter has almost four


@given(st.text("Aab", max_size=30), st.integers(0, 70), st.integers(0, 30))
def test_fit_first_turns_has_as_many_turns_as_fit(letters: str, max_tokens: int, done: int) -> None:
    messages = [SYSTEM, *conversation(letters), *conversation("Z")]
    ends = [i for i, message in enumerate(messages) if i > 1 and message.role == "user"] + [len(messages)]
    allowed = [end for end in ends if end > done] or ends[-1:]
    fitting = [end for end in allowed if len(tokens(messages[:end])) <= max_tokens]
    count = max(fitting, default=allowed[0])
    assert fit_first_turns(messages, tokens, max_tokens, done) == (count, tokens(messages[:count]))


def test_fit_last_turns_of_long_conversation_renders_few_times() -> None:
    rendered = 0

    def count(messages: Sequence[Message]) -> list[int]:
        nonlocal rendered
        rendered += 1
        return tokens(messages)

    assert len(fit_last_turns(conversation("Aa" * 1000), count, 1234)) == 1228
    assert rendered <= 12
    rendered = 0
    assert fit_first_turns(conversation("Aa" * 1000), count, 1234, 0)[0] == 616
    assert rendered <= 12


@pytest.mark.parametrize(
    ("requested", "n_ctx", "expected"),
    [(None, 4096, 256), (None, 400, 100), (100, 4096, 100), (3000, 4096, 1024), (1, 4096, 1), (10**30, 64, 16)],
)
def test_reserved_tokens_leave_space_for_answer(requested: int | None, n_ctx: int, expected: int) -> None:
    assert reserved_tokens(requested, n_ctx) == expected
