"""What a model utters, taken apart. Data only."""

from typing import TypeAlias

from msgspec import Struct


class ReasoningDelta(Struct, frozen=True):
    """Text of its reasoning."""

    text: str


class TextDelta(Struct, frozen=True):
    """Text of its answer."""

    text: str


class ToolCallStart(Struct, frozen=True):
    """It calls a function."""

    name: str


class ToolCallArguments(Struct, frozen=True):
    """More of the begun call's arguments: all together they are JSON, as far as the model wrote JSON."""

    text: str


class ToolCallEnd(Struct, frozen=True):
    """The call is whole, or all that comes of it."""


ParsedDelta: TypeAlias = ReasoningDelta | TextDelta | ToolCallStart | ToolCallArguments | ToolCallEnd


def merged(utterances: list[ParsedDelta]) -> list[ParsedDelta]:
    """Texts of a kind that follow each other as one."""
    found: list[ParsedDelta] = []
    for each in utterances:
        last = found[-1] if found else None
        match last, each:
            case ReasoningDelta(before), ReasoningDelta(text):
                found[-1] = ReasoningDelta(before + text)
            case TextDelta(before), TextDelta(text):
                found[-1] = TextDelta(before + text)
            case ToolCallArguments(before), ToolCallArguments(text):
                found[-1] = ToolCallArguments(before + text)
            case _:
                found.append(each)
    return found
