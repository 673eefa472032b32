"""Move lines that change with every request, such as clocks, after the stable part of a prompt. Pure.

A clock in the instructions makes each prompt differ from the last one near its beginning, so that nothing after it is
found in the KV cache. Matching lines of the leading system message move in front of the user's last message.
"""

import re
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from engine.chat_template import Message
from server.prompt.items import ItemText

MAX_LINE_CHARACTERS = 300
"""Maximum characters of a line that can match. The limit bounds the time of a pattern, and a whole paragraph is not a
time stamp."""

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_DAY = r"(?:(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?,?\s+)?"
_DATE = (
    r"\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}[./]\d{2,4}|"
    rf"{_DAY}{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?(?:\s+\d{{4}})?|{_DAY}\d{{1,2}}(?:st|nd|rd|th|\.)?\s+{_MONTH}(?:,?\s+\d{{4}})?"
)
_TIME = r"\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?|\d{1,2}\s*[ap]\.?m\b"
_STAMP = rf"(?:(?:{_DATE}|{_TIME})(?!\d)|\b\d{{10}}(?:\d{{3}})?\b)"
_ZONE = r"(?:\s*(?:Z|UTC|GMT|[ap]\.?m\.?|[+-]\d{2}:?\d{2}|\([^)]*\)))*"
_UNIT = r"(?:date|time|datetime|timestamp|day|clock)\b"
_LABEL = (
    rf"(?:the\s+)?(?:current|local|system|present|today['’]?s)[\s_]+(?:\w+\s+){{0,2}}?{_UNIT}|today(?:\s+date)?\b(?=\s+is\b|\s*:)|"
    rf"(?:it\s+is\s+)?now\b(?=\s+is\b|\s*[:=]|\s+\d)|{_UNIT}(?:\s+(?:and|&)\s+{_UNIT})?(?=\s*[:=>]|\s+is\b)"
)
CLOCK = (
    rf"(?i)^[\s*#>\"•-]*<?(?:(?:{_LABEL}).{{0,60}}?{_STAMP}|{_STAMP}(?:[\sT,]+(?:at\s+)?{_STAMP})*{_ZONE}\s*\.?\s*$)"
)
"""Lines with a label of the present date or time and its value, or with nothing but a date and a time."""
BUILT_IN = {"clock": CLOCK}
"""Patterns by the name that the setting has for them."""


def patterns(names: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """Compile regular expressions, or built-in ones by their names."""
    return tuple(re.compile(BUILT_IN.get(name, name)) for name in names)


def is_volatile(line: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    return len(line) <= MAX_LINE_CHARACTERS and any(pattern.search(line) for pattern in patterns)


def moved(messages: Sequence[Message], patterns: Sequence[re.Pattern[str]]) -> Sequence[Message]:
    """Return the messages with the volatile lines of the leading system message before the user's last text."""
    if not patterns or not messages or messages[0].role != "system":
        return messages
    lines = messages[0].content.splitlines()
    volatile = [line.strip() for line in lines if is_volatile(line, patterns)]
    last = _last_of_user(messages)
    if not volatile or last is None:
        return messages
    rest = stable_text(messages[0].content, patterns)
    user = messages[last]
    note = "\n".join(volatile)
    return [
        *([replace(messages[0], content=rest)] if rest.strip() else []),
        *messages[1:last],
        replace(user, content=f"{note}\n\n{user.content}"),
        *messages[last + 1 :],
    ]


def _last_of_user(messages: Sequence[Message]) -> int | None:
    return max((index for index, message in enumerate(messages) if message.role == "user"), default=None)


def stable_text(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """Return a text without its volatile lines."""
    return "\n".join(line for line in text.splitlines() if not is_volatile(line, patterns))


def stable_items(
    items: Sequence[ItemText], messages: Sequence[Message], patterns: Sequence[re.Pattern[str]]
) -> Sequence[ItemText]:
    """Return the items with the texts that the leading system message has after `moved`."""
    if moved(messages, patterns) is messages:
        return items
    system = messages[0].content
    return [_stable_item(item, patterns) if item.text and item.text in system else item for item in items]


def _stable_item(item: ItemText, patterns: Sequence[re.Pattern[str]]) -> ItemText:
    breakpoints = tuple(len(stable_text(item.text[:characters], patterns)) for characters in item.breakpoints)
    return replace(item, text=stable_text(item.text, patterns), breakpoints=breakpoints)
