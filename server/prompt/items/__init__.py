"""Read input items into entries of a prompt, and complete them for the store. Pure."""

from server.prompt.items.entries import ItemPlace, Output, PlacedEntry, PromptEntry, ReasoningEntry, id_text
from server.prompt.items.item_texts import ItemText, item_texts
from server.prompt.items.reader import ROLES, InputReader
from server.prompt.items.references import references

__all__ = [
    "ROLES",
    "InputReader",
    "ItemPlace",
    "ItemText",
    "Output",
    "PlacedEntry",
    "PromptEntry",
    "ReasoningEntry",
    "id_text",
    "item_texts",
    "references",
]
