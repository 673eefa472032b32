"""Volatile lines of the instructions move behind the stable part of a prompt."""

import os

import pytest

from engine.backends import scripted
from engine.chat_template.message import Message
from engine.chat_template.template import ChatTemplate
from server.prompt import volatile
from server.prompt.items.entries import ItemPlace
from server.prompt.items.item_texts import ItemText

CLOCK = volatile.patterns(["clock"])

STAMPS = [
    "Current time is 12:31:05. Today's date is 2026-11-26.",  # Home Assistant, helpers/llm.py
    "The current time is 12:31 PM.",
    "The current date is Thursday, November 26, 2026.",
    "Current date and time: Thursday, November 26, 2026 at 12:31 PM",
    "Current Time: 11/26/2026, 3:04:05 PM",
    "Current date: 2026-11-26",
    "Current local time: 12:31",
    "Current UTC time: 2026-11-26T12:31:05Z",
    "Current timestamp: 1795696265",
    "Today's date: Fri Jul 04 2025",
    "  Today’s date is 4 July 2025",
    "Today is Monday, 26 November 2026.",
    "Today: 26.11.2026",
    "Today Date: 26 Nov 2026",
    "It is now 12:31.",
    "Now: 2026-11-26T12:31:05+01:00",
    "Date: 2026-11-26",
    "- Time: 12:31",
    "* Date and time: Nov 26, 9 pm",
    "# Timestamp = 1795696265123",
    "<current_date>2026-11-26</current_date>",
    "<time>12:31</time>",
    "2026-11-26 12:31:05",
    "2026-11-26T12:31:05.123Z",
    "11/26/2026, 3:04:05 PM (Europe/Berlin, UTC+1:00)",
    "Thu, Nov 26 2026 at 12:31 UTC",
    "Current system clock: 23:59",
]
RULES = [
    "",
    "The meeting is at 12:30.",
    "Answer with the current time if the user asks for it.",
    "Opening hours: 09:00 to 18:00",
    "12:30 lunch with Bob",
    "Always write the time as HH:MM, such as 12:31.",
    "The date of the contract is 2024-07-26.",
    "Released on 2024-07-26.",
    "Cutting Knowledge Date: December 2023",
    "Knowledge cutoff: 2024-06-01",
    "Date format: 2026-11-26",
    "Time limit: 10:00",
    "Current timezone: UTC+01:00",
    "Today you help with the report of 2026-11-26.",
    "Now answer with a ratio such as 3:20.",
    "It is important to call at 12:30.",
    "Version 2026.11.26",
    "1. Never give a time.",
    "Current time is 12:31. " + "This paragraph has many other rules. " * 10,
]


@pytest.mark.parametrize("line", STAMPS)
def test_clock_matches_a_stamp(line: str) -> None:
    assert volatile.is_volatile(line, CLOCK)


@pytest.mark.parametrize("line", RULES)
def test_clock_matches_no_rule(line: str) -> None:
    assert not volatile.is_volatile(line, CLOCK)


def system(time: str) -> Message:
    return Message("system", f"You are a voice assistant.\nCurrent time is {time}.\n\nAnswer briefly.")


STABLE = Message("system", "You are a voice assistant.\n\nAnswer briefly.")
HELLO, HI, AND = Message("user", "Hello"), Message("assistant", "Hi!"), Message("user", "And?")
MOVED: dict[str, tuple[list[Message], list[Message]]] = {
    "one turn": ([system("12:31"), HELLO], [STABLE, Message("user", "Current time is 12:31.\n\nHello")]),
    "two turns": (
        [system("12:31"), HELLO, HI, AND], [STABLE, HELLO, HI, Message("user", "Current time is 12:31.\n\nAnd?")],
    ),
    "calls behind the user": (
        [system("12:31"), HELLO, HI, Message("tool", "4")],
        [STABLE, Message("user", "Current time is 12:31.\n\nHello"), HI, Message("tool", "4")],
    ),
    "stamps only": (
        [Message("system", "Date: 2026-11-26\nTime: 12:31\n"), HELLO],
        [Message("user", "Date: 2026-11-26\nTime: 12:31\n\nHello")],
    ),
    "no stamp": ([STABLE, HELLO], [STABLE, HELLO]),
    "a stamp of the user": ([STABLE, Message("user", "Time: 12:31")], [STABLE, Message("user", "Time: 12:31")]),
    "no system message": ([HELLO], [HELLO]),
    "no user": ([system("12:31")], [system("12:31")]),
    "nothing": ([], []),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), MOVED.values(), ids=MOVED)
def test_moved_lines_precede_the_users_last_text(messages: list[Message], expected: list[Message]) -> None:
    assert list(volatile.moved(messages, CLOCK)) == expected
    assert volatile.moved(messages, ()) is messages


def test_moved_uses_patterns_of_the_operator() -> None:
    mine = volatile.patterns(["^Aktuelle Uhrzeit", "^Room:"])
    messages = [Message("system", "Sei kurz.\nAktuelle Uhrzeit: 12:31\nRoom: kitchen"), HELLO]
    assert list(volatile.moved(messages, mine)) == [
        Message("system", "Sei kurz."),
        Message("user", "Aktuelle Uhrzeit: 12:31\nRoom: kitchen\n\nHello"),
    ]


def test_prompt_before_the_last_message_is_equal_as_the_clock_ticks() -> None:
    template = ChatTemplate(scripted.TEMPLATE, scripted.vocabulary())

    def rendered(time: str) -> str:
        tokens = template.prompt(volatile.moved([system(time), HELLO, HI, AND], CLOCK))
        return "".join(scripted.CONTROL[token - 256] if token >= 256 else chr(token) for token in tokens)

    stable = (
        "<|system|>You are a voice assistant.\n\nAnswer briefly.<|user|>Hello<|assistant|>Hi!<|user|>Current time is 1"
    )
    assert rendered("12:31") == f"{stable}2:31.\n\nAnd?<|assistant|>"
    assert os.path.commonprefix([rendered("12:31"), rendered("12:32")]) == f"{stable}2:3"  # noqa: RUF071


def test_stable_items_are_found_in_the_moved_prompt() -> None:
    instructions, hello = ItemPlace("instructions", None, "message"), ItemPlace("input", None, "message")
    items = [ItemText(instructions, system("12:31").content), ItemText(hello, "Hello")]
    assert list(volatile.stable_items(items, [system("12:31"), HELLO], CLOCK)) == [
        ItemText(instructions, STABLE.content),
        ItemText(hello, "Hello"),
    ]
    assert volatile.stable_items(items, [STABLE, HELLO], CLOCK) is items
