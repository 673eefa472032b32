"""Parts of a model's output, as the parser emits them. Data only."""

from itertools import groupby
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

_TEXTS = (ReasoningDelta, TextDelta, ToolCallArguments)


def merged(deltas: list[ParsedDelta]) -> list[ParsedDelta]:
    """Join consecutive texts of one kind."""
    if len(deltas) < 2:  # as after most tokens
        return deltas
    found: list[ParsedDelta] = []
    for kind, same in groupby(deltas, type):
        if issubclass(kind, _TEXTS):
            found.append(kind("".join(each.text for each in same if isinstance(each, _TEXTS))))
        else:
            found += same
    return found
