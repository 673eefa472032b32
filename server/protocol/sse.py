"""Event -> frame bytes (WHATWG HTML, section 9.2: server-sent events)."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec
from msgspec import Struct

from server.protocol.events import Event, ReasoningTextDelta, ReasoningTextDone

DONE = b"data: [DONE]\n\n"
"""The last frame of every stream (Open Responses, "Streaming")."""

PING = b": still here\n\n"
"""A comment: it shows that the stream lives, and is no event."""

_encoder = msgspec.json.Encoder()


class ReasoningDelta(Struct, frozen=True, tag="response.reasoning.delta"):
    """Open Responses' name for ReasoningTextDelta."""

    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningDone(Struct, frozen=True, tag="response.reasoning.done"):
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str


Sent: TypeAlias = Event | ReasoningDelta | ReasoningDone
Encode: TypeAlias = Callable[[Iterable[Event]], bytes]

_names: dict[type[Sent], bytes] = {}


def encoder(reasoning_events: str) -> Encode:
    """With OpenAI's names for the events of reasoning, or Open Responses' (responses-api.md, 7)."""
    return encode if reasoning_events == "openai" else encode_renamed


def encode_renamed(events: Iterable[Event]) -> bytes:
    return encode(map(_renamed, events))


def _renamed(event: Event) -> Sent:
    match event:
        case ReasoningTextDelta(number, item_id, output_index, content_index, delta):
            return ReasoningDelta(number, item_id, output_index, content_index, delta)
        case ReasoningTextDone(number, item_id, output_index, content_index, text):
            return ReasoningDone(number, item_id, output_index, content_index, text)
    return event


def encode(events: Iterable[Sent]) -> bytes:
    """The events' frames, one after the other: they leave in one `send`, and none is split over two."""
    buffer = bytearray()
    for event in events:
        buffer += _opening(type(event))
        _encoder.encode_into(event, buffer, -1)
        buffer += b"\n\n"
    return bytes(buffer)


def frame(data: Struct) -> bytes:
    """A frame without a type of its own."""
    return b"data: " + _encoder.encode(data) + b"\n\n"


def _opening(kind: type[Sent]) -> bytes:
    if kind not in _names:
        _names[kind] = f"event: {kind.__struct_config__.tag}\ndata: ".encode()
    return _names[kind]
