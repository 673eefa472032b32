"""Event -> frame bytes (WHATWG HTML, section 9.2: server-sent events)."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec
from msgspec import Struct

from server.protocol.events import Event, ReasoningTextDelta, ReasoningTextDone

DONE = b"data: [DONE]\n\n"
"""The last frame of every stream (Open Responses, "Streaming")."""

PING = b": still here\n\n"
"""Comment frame, a heartbeat for clients that reject repeated events."""

_encoder = msgspec.json.Encoder()


class OpenReasoningDelta(Struct, frozen=True, tag="response.reasoning.delta"):
    """Open Responses' name for ReasoningTextDelta."""

    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    delta: str


class OpenReasoningDone(Struct, frozen=True, tag="response.reasoning.done"):
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    text: str


SentEvent: TypeAlias = Event | OpenReasoningDelta | OpenReasoningDone
Encode: TypeAlias = Callable[[Iterable[Event]], bytes]

_frame_heads: dict[type[SentEvent], bytes] = {}


def encoder(open_names: bool) -> Encode:
    """Return the encoder with Open Responses' or OpenAI's names of the reasoning events."""
    return encode_renamed if open_names else encode


def encode_renamed(events: Iterable[Event]) -> bytes:
    return encode(map(_renamed, events))


def _renamed(event: Event) -> SentEvent:
    match event:
        case ReasoningTextDelta(number, item_id, output_index, content_index, delta):
            return OpenReasoningDelta(number, item_id, output_index, content_index, delta)
        case ReasoningTextDone(number, item_id, output_index, content_index, text):
            return OpenReasoningDone(number, item_id, output_index, content_index, text)
    return event


def encode(events: Iterable[SentEvent]) -> bytes:
    """Return the frames of the events in one piece, so that one `send` transmits them unsplit."""
    buffer = bytearray()
    for event in events:
        buffer += _frame_head(type(event))
        _encoder.encode_into(event, buffer, -1)
        buffer += b"\n\n"
    return bytes(buffer)


def messages(open_names: bool) -> Callable[[Iterable[Event]], list[bytes]]:
    """Return the encoder for WebSocket: the data of each event's frame, without the frame. See `encoder`."""
    if open_names:
        return lambda events: [_encoder.encode(_renamed(event)) for event in events]
    return lambda events: [_encoder.encode(event) for event in events]


def frame(data: Struct) -> bytes:
    """Return a frame without an event type."""
    return b"data: " + _encoder.encode(data) + b"\n\n"


def _frame_head(kind: type[SentEvent]) -> bytes:
    if kind not in _frame_heads:
        _frame_heads[kind] = f"event: {kind.__struct_config__.tag}\ndata: ".encode()
    return _frame_heads[kind]
