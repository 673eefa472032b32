"""Encode input items for the store and for listings: complete, each with a type and an id. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Raw, Struct

from server.protocol.errors import InvalidRequest
from server.protocol.request import NULL, Listing

Fields: TypeAlias = dict[str, Raw]
"""Fields of an item that the server passes through without decoding them."""

PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
FILLED_FIELDS = ("id", "type", "status")
"""Fields that the server sets if they are missing or not a text."""
SEARCHES = ("tool_search_call", "tool_search_output")
WITH_STATUS = (
    *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
    *("shell_call", "shell_call_output", *SEARCHES),
)
"""Types of items that need a status in the types of official clients."""
NONE = Raw(b"[]")
MESSAGE = Raw(b'"message"')
COMPLETED = Raw(b'"completed"')
CLIENT = Raw(b'"client"')
OUTPUT_TEXT = Raw(b'"output_text"')
OUR_ID = re.compile(r"[a-z]+_([0-9a-f]{32})i?[0-9]{2,}")
"""Id that this server made, for an input item (see `_complete_items`) or an output item (see `server.stream`)."""


class InputText(Struct, frozen=True, tag="input_text"):
    text: str


class PlainOutputText(Struct, frozen=True, tag="output_text"):
    text: str
    annotations: tuple[()] = ()


class ItemList(Struct, frozen=True):
    data: list[Raw]
    first_id: str
    """Id of the first item; empty for an empty list, since openai-python's types have no null here."""
    last_id: str
    has_more: bool
    object: str = "list"


class _Id(Struct):
    id: str


class _Output(Struct):
    output: list[Raw]


_items = msgspec.json.Decoder(list[Raw])
_fields = msgspec.json.Decoder(Fields)
_parts = msgspec.json.Decoder(list[Fields])
_text = msgspec.json.Decoder(str | None)


def encode_input_items(input_: str | Sequence[Raw], response_id: str) -> bytes:
    """Return the items of a request's `input` as a JSON list. Missing ids are derived from the response's id."""
    if isinstance(input_, str):
        input_ = [user_message(input_)]
    return msgspec.json.encode(list(_complete_items(input_, response_id.removeprefix("resp_"))))


def user_message(text: str) -> Raw:
    """Return a text as an item: a message of the user."""
    return _raw({"type": "message", "role": "user", "content": text})


def conversation_items(items: bytes, response: bytes) -> list[Raw]:
    """Return the items that a stored response adds to the conversation: its input, then its output."""
    return [*_items.decode(items), *msgspec.json.decode(response, type=_Output).output]


def response_id_of(item_id: str) -> str | None:
    """Return the id of the response that an item belongs to; None if this server did not make the item's id."""
    match = OUR_ID.fullmatch(item_id)
    return f"resp_{match[1]}" if match else None


def items_by_id(items: Sequence[Raw]) -> dict[str, Raw]:
    return {msgspec.json.decode(item, type=_Id).id: item for item in items}


def items_before(conversation: Sequence[Raw], items: bytes) -> list[Raw]:
    """Return the items of a conversation before the first of `items`; none if these are not in it any more."""
    later = items_by_id(_items.decode(items))
    ids = [msgspec.json.decode(item, type=_Id).id for item in conversation]
    first = next((index for index, id_ in enumerate(ids) if id_ in later), 0)
    return list(conversation[:first])


def page(items: bytes, listing: Listing, earlier: Sequence[Raw] = ()) -> ItemList:
    """Return a page of `earlier` and then `items`. Raises InvalidRequest if the list has no item `listing.after`."""
    data = [*earlier, *_items.decode(items)]
    if listing.order == "desc":
        data.reverse()
    ids = [msgspec.json.decode(item, type=_Id).id for item in data]
    begin = 0
    if listing.after is not None:
        if listing.after not in ids:
            raise InvalidRequest(f"There is no item {listing.after!r} in this list.", param="after")
        begin = ids.index(listing.after) + 1
    end = begin + listing.limit
    return list_page(data[begin:end], ids[begin:end], more=end < len(ids))


def list_page(data: list[Raw], ids: Sequence[str], more: bool) -> ItemList:
    first, last = (ids[0], ids[-1]) if ids else ("", "")
    return ItemList(data, first, last, has_more=more)


def _complete_items(items: Sequence[Raw], stem: str) -> Iterator[Fields]:
    for index, item in enumerate(items):
        fields = _fields.decode(item)
        for name in FILLED_FIELDS:
            if not bytes(fields.get(name, NULL)).startswith(b'"'):
                fields.pop(name, None)
        kind = _text.decode(fields.get("type", MESSAGE if fields.get("role", NULL) != NULL else NULL))
        if kind is None:
            continue  # an item without type and role, which the item reader skips too
        id_ = f"{PREFIXES.get(kind, 'item')}_{stem}i{index:02}"
        yield _complete(kind, {"id": _raw(id_), "type": _raw(kind), **fields})


def _complete(kind: str, fields: Fields) -> Fields:
    """Return an item with the fields that the types of clients require of its kind."""
    if kind in WITH_STATUS:
        fields = {"status": COMPLETED, **fields}
    if kind in SEARCHES:
        fields = {"execution": CLIENT, **fields}
    if kind == "reasoning" and fields.get("summary", NULL) == NULL:
        fields["summary"] = NONE
    if kind == "message":
        fields["content"] = _content(fields)
    return fields


def _content(message: Fields) -> Raw:
    """Return the content as parts. Parts of the assistant get the annotations that the types of clients require."""
    content = message.get("content", NULL)
    assistant = _text.decode(message["role"]) == "assistant"
    if not bytes(content).startswith(b"["):
        part = PlainOutputText if assistant else InputText
        return _raw([part(_text.decode(content) or "")])
    if assistant:
        return _raw([_annotated(fields) for fields in _parts.decode(content)])
    return content


def _annotated(part: Fields) -> Fields:
    if part.get("type") != OUTPUT_TEXT or part.get("annotations", NULL) != NULL:
        return part
    return {**part, "annotations": NONE}


def _raw(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
