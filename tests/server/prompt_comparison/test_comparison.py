"""Prompts are compared with earlier ones; the scripted model's tokens are bytes."""

import itertools
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.backends import scripted
from engine.chat_template.message import Message
from engine.chat_template.template import ChatTemplate
from engine.prefix_cache import common_length
from server.prompt.items.entries import ItemPlace
from server.prompt.items.item_texts import ItemText
from server.prompt_comparison.comparison import NewPrompt, compare, repeated_tokens
from server.prompt_comparison.recent_prompts import (
    MAX_PROMPTS,
    PromptSettings,
    RecentPrompt,
    RecentPrompts,
    recent_prompt,
)
from server.protocol.prompt_cache import CacheComparison, PromptDifference

VOCABULARY = scripted.vocabulary()
TEMPLATE = ChatTemplate(scripted.TEMPLATE, VOCABULARY)
PLAIN = PromptSettings()
Turns = list[tuple[str, str]]


def tokens(turns: Turns) -> list[int]:
    return TEMPLATE.prompt([Message(role, text) for role, text in turns])


def items(turns: Turns) -> list[ItemText]:
    """Return the items of a request whose instructions are its first system message."""
    first = [ItemText(ItemPlace("instructions", None, "message"), text) for role, text in turns[:1] if role == "system"]
    return first + [
        ItemText(ItemPlace("input", index, "message"), text) for index, (_, text) in enumerate(turns[len(first) :])
    ]


def compared(old: Turns, new: Turns, before: PromptSettings = PLAIN, now: PromptSettings = PLAIN) -> CacheComparison:
    earlier = recent_prompt("resp_1", "ada", "g", array("i", tokens(old)), old[-1][1], before)
    return compare(earlier, NewPrompt(array("i", tokens(new)), items(new), now), VOCABULARY.bytes_of)


CLOCK = "Today is Monday. The time is 12:31. Answer briefly and in the language of the user."
LATER = CLOCK.replace("12:31", "12:32")
TALK: Turns = [("system", CLOCK), ("user", "Hello"), ("assistant", "Hi!")]


def difference(field: str, item: int | None, character: int, text: str) -> PromptDifference:
    return PromptDifference(field, character, text, item, "message")


DIFFERENCES: dict[str, tuple[Turns, Turns, PromptDifference | None]] = {
    "the same prompt": (TALK[:2], TALK[:2], None),
    "the next turn": (TALK[:2], [*TALK, ("user", "And?")], None),
    "the beginning only": ([*TALK, ("user", "And?")], TALK[:2], None),
    "a clock": (
        TALK[:2],
        [("system", LATER), *TALK[1:], ("user", "And?")],
        difference("instructions", None, 33, "Monday. The time is 12:3|2. Answer briefly and in"),
    ),
    "an edited message": (
        [*TALK, ("user", "And?")],
        [TALK[0], ("user", "Hey"), *TALK[2:]],
        difference("input", 0, 2, "He|y"),
    ),
    "another first character": (TALK[:2], [TALK[0], ("user", "Jello")], difference("input", 0, 0, "|Jello")),
    "another role": (TALK[:2], [TALK[0], ("assistant", "Hello")], difference("input", 0, 0, "|Hello")),
    "a message that goes on": (TALK[:2], [TALK[0], ("user", "Hello!")], None),
    "a dropped turn": (
        [*TALK, ("user", "And?")], [TALK[0], ("user", "And?")], difference("input", 0, 0, "|And?"),
    ),
    "white space around": (
        [("user", "\n a é b")], [("user", "\n a é c")], difference("input", 0, 6, "a é |c"),
    ),
    "two letters of equal first bytes": ([("user", "ä b")], [("user", "ö b")], difference("input", 0, 0, "|ö b")),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_compare_locates_the_first_difference(old: Turns, new: Turns, expected: PromptDifference | None) -> None:
    shared = common_length(array("i", tokens(old)), array("i", tokens(new)))
    if expected is None:
        assert compared(old, new) == CacheComparison("resp_1", shared, 0)
    else:
        missed = len(tokens(new)) - shared
        assert compared(old, new) == CacheComparison("resp_1", shared, missed, "input_changed", expected)


REASONS: dict[str, tuple[PromptSettings, str]] = {
    "nothing": (PLAIN, "input_changed"),
    "tools": (replace(PLAIN, tools=1, effort="low"), "tools_changed"),
    "format": (replace(PLAIN, text_format=1, compactions=1), "text_format_changed"),
    "effort": (replace(PLAIN, effort="low"), "reasoning_effort_changed"),
    "a summary": (replace(PLAIN, compactions=1), "context_compacted"),
}


@pytest.mark.parametrize(("now", "reason"), REASONS.values(), ids=REASONS)
def test_compare_names_the_setting_that_changed(now: PromptSettings, reason: str) -> None:
    assert compared(TALK, [("system", LATER), *TALK[1:]], now=now).reason == reason
    assert compared(TALK, TALK, now=now).reason is None


def test_compare_of_changed_tools_names_tools_before_the_text() -> None:
    """Many templates write tools before the first message."""
    found = compared([("tool", "{}"), *TALK[1:]], [("tool", "[]"), *TALK[1:]], now=replace(PLAIN, tools=1))
    assert found.difference == PromptDifference("input", 0, "|[]", 0, "message")
    old = recent_prompt("resp_1", "ada", "g", array("i", tokens([("tool", "{}"), *TALK[1:]])), "Hi!", PLAIN)
    new = NewPrompt(array("i", tokens([("tool", "[]"), *TALK[1:]])), items(TALK[1:]), replace(PLAIN, tools=1))
    assert compare(old, new, VOCABULARY.bytes_of).difference == PromptDifference("tools", 0, "")


REPEATED: dict[str, tuple[list[int], list[int], int]] = {
    "all behind a changed token": ([1, *range(10, 50)], [2, *range(10, 50)], 40),
    "all behind a longer beginning": ([1, *range(10, 50)], [2, 3, 4, *range(10, 50)], 40),
    "nothing": (list(range(100)), list(range(100, 200)), 0),
    "a continuation": (list(range(100)), list(range(110)), 0),
}


@pytest.mark.parametrize(("old", "new", "count"), REPEATED.values(), ids=REPEATED)
def test_repeated_tokens_counts_equal_tokens_behind_the_difference(old: list[int], new: list[int], count: int) -> None:
    assert repeated_tokens(array("i", old), array("i", new)) == count


def prompt(name: str, client: str = "ada", group: str = "g", n: int = 10) -> RecentPrompt:
    return recent_prompt(name, client, group, array("i", range(n)), "", PLAIN)


def test_recent_prompts_forget_the_oldest_beyond_their_bound() -> None:
    recent = RecentPrompts(max_tokens=25)
    for name in "abc":
        recent.add(prompt(name))
    assert [name for name in "abc" if recent.find(name, "ada")] == ["b", "c"]
    recent.add(prompt("d", n=26))
    assert [name for name in "abcd" if recent.find(name, "ada")] == []


def test_recent_prompts_forget_the_oldest_of_many_short_ones() -> None:
    recent = RecentPrompts()
    for number in range(MAX_PROMPTS + 2):
        recent.add(prompt(str(number), n=1))
    assert [number for number in range(MAX_PROMPTS + 2) if not recent.find(str(number), "ada")] == [0, 1]


def test_recent_prompts_give_a_client_its_own_only() -> None:
    recent = RecentPrompts()
    a, b, c = prompt("a"), prompt("b", group="h"), prompt("c", client="bob")
    for each in (a, b, c):
        recent.add(each)
    assert (recent.find("a", "ada"), recent.find("a", "bob"), recent.find("z", "ada")) == (a, None, None)
    assert (recent.latest("ada", "g"), recent.latest("ada", "new"), recent.latest("eve", "g")) == (a, b, None)


NAMES = st.sampled_from("abcd")
SENDERS = st.tuples(NAMES, st.sampled_from(["ada", "bob"]), st.sampled_from("gh"))


@given(steps=st.lists(st.one_of(SENDERS, NAMES), max_size=30))
def test_recent_prompts_find_the_latest_of_the_group_else_of_the_client(
    steps: list[tuple[str, str, str] | str],
) -> None:
    recent, kept = RecentPrompts(max_tokens=30), list[RecentPrompt]()
    for step in steps:
        if isinstance(step, tuple):
            added = prompt(*step)
            recent.add(added)
            kept = [*(each for each in kept if each.response_id != added.response_id), added][-3:]
        else:
            recent.forget(step, "g")
            kept = [each for each in kept if each.group != "g"]
        for client, group in itertools.product(("ada", "bob"), "ghi"):
            own = [each for each in kept if each.client == client]
            of_group = [each for each in own if each.group == group]
            assert recent.latest(client, group) == next(reversed(of_group or own), None)


def test_recent_prompts_forget_the_conversation_of_a_deleted_response() -> None:
    recent = RecentPrompts()
    for each in (prompt("a"), prompt("b"), prompt("c", group="h")):
        recent.add(each)
    recent.forget("unknown", "another group")
    recent.forget("a", None)
    found: list[Any] = [name for name in "abc" if recent.find(name, "ada")]
    assert found == ["c"]
    recent.add(prompt("d"))
    recent.forget("unknown", "h")
    assert [name for name in "abcd" if recent.find(name, "ada")] == ["d"]
    recent.forget("unknown", None)
    assert [name for name in "abcd" if recent.find(name, "ada")] == []
