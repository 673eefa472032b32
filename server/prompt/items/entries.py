"""Entries of a prompt: messages, calls, outputs and reasoning, with the places of their items in the request. Pure."""

from typing import TypeAlias

from msgspec import Struct

from engine.chat_template import Call, Message


class Output(Struct, frozen=True):
    """Text that a call returned."""

    call_id: str
    text: str
    name: str = ""
    """Name of the function, for an output that may have another id than its call."""


class ReasoningEntry(Struct, frozen=True):
    """Reasoning before the assistant's next message or call."""

    text: str


PromptEntry: TypeAlias = Message | Call | Output | ReasoningEntry


class ItemPlace(Struct, frozen=True):
    """Place of an item in the request."""

    field: str
    index: int | None
    """Index in the field's list; None if the field is a text."""
    type: str


class PlacedEntry(Struct, frozen=True):
    """Entry with the place of its item."""

    entry: PromptEntry
    place: ItemPlace


def id_text(call_id: str | int | None) -> str:
    """Return the id of a call as text: some clients send a number."""
    return "" if call_id is None else str(call_id)
