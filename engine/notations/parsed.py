"""Parts of a model's output, as the parser emits them. Data only."""

from typing import TypeAlias

from msgspec import Struct


class ReasoningDelta(Struct, frozen=True):
    """Text of the reasoning."""

    text: str


class TextDelta(Struct, frozen=True):
    """Text of the answer."""

    text: str


class ToolCallStart(Struct, frozen=True):
    """The start of a call."""

    name: str


class ToolCallArguments(Struct, frozen=True):
    """Further text of the call's arguments. All of it together is JSON if the model wrote JSON."""

    text: str


class ToolCallEnd(Struct, frozen=True):
    """The end of a call, which may be incomplete."""


ParsedDelta: TypeAlias = ReasoningDelta | TextDelta | ToolCallStart | ToolCallArguments | ToolCallEnd


def merged(deltas: list[ParsedDelta]) -> list[ParsedDelta]:
    """Join consecutive texts of one kind."""
    found: list[ParsedDelta] = []
    for each in deltas:
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
