"""Texts of a prompt with their places in the request, in the order of the prompt. Pure."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine.chat_template import Call, Message
from server.prompt.hosted_items import Output
from server.prompt.item_reader import ItemPlace, PromptEntry


class ItemText(Struct, frozen=True):
    """Text of an item of the request."""

    place: ItemPlace
    text: str


def item_texts(entries: Sequence[PromptEntry], places: Sequence[ItemPlace]) -> Iterator[ItemText]:
    """Yield the text of each entry, which comes from the item at that place."""
    for entry, place in zip(entries, places, strict=True):
        match entry:
            case Message(_, text) | Output(_, text):
                yield ItemText(place, text)
            case Call(_, _, arguments):
                yield ItemText(place, arguments)
            case _:
                yield ItemText(place, entry.text)
