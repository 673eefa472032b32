"""Texts of a prompt with their places in the request, in the order of the prompt. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from engine.chat_template import Call, Message
from server.prompt.items.entries import ItemPlace, Output, PlacedEntry, ReasoningEntry


class ItemText(Struct, frozen=True):
    """Text of an item of the request."""

    place: ItemPlace
    text: str
    breakpoints: tuple[int, ...] = ()
    """Characters of the text before each breakpoint."""


def item_texts(entries: Sequence[PlacedEntry], breakpoints: Mapping[str, tuple[int, ...]]) -> Iterator[ItemText]:
    """Yield the text of each entry. `breakpoints`: see ContentReader."""
    for placed in entries:
        match placed.entry:
            case Message(_, text) | Output(_, text):
                yield ItemText(placed.place, text, breakpoints.get(text, ()))
            case Call(_, _, arguments):
                yield ItemText(placed.place, arguments)
            case ReasoningEntry(text):
                yield ItemText(placed.place, text)
