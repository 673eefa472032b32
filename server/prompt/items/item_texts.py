"""Texts of a prompt with their places in the request, in the order of the prompt. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from engine.chat_template import Call, Message
from server.prompt.items.entries import ItemPlace, Output, PromptEntry


class ItemText(Struct, frozen=True):
    """Text of an item of the request."""

    place: ItemPlace
    text: str
    breakpoints: tuple[int, ...] = ()
    """Characters of the text before each breakpoint."""


def item_texts(
    entries: Sequence[PromptEntry], places: Sequence[ItemPlace], breakpoints: Mapping[str, tuple[int, ...]]
) -> Iterator[ItemText]:
    """Yield the text of each entry, which comes from the item at that place. `breakpoints`: see ContentReader."""
    for entry, place in zip(entries, places, strict=True):
        match entry:
            case Message(_, text) | Output(_, text):
                yield ItemText(place, text, breakpoints.get(text, ()))
            case Call(_, _, arguments):
                yield ItemText(place, arguments)
            case _:
                yield ItemText(place, entry.text)
