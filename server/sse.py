"""Event -> frame bytes (WHATWG HTML, section 9.2: server-sent events)."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from server.events import Event

DONE = b"data: [DONE]\n\n"
"""The last frame of every stream (Open Responses, "Streaming")."""

PING = b": still here\n\n"
"""A comment, for the dialect that has no event to repeat."""

_encoder = msgspec.json.Encoder()
_names: dict[type[Event], bytes] = {}


def encode(events: Iterable[Event]) -> bytes:
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


def _opening(kind: type[Event]) -> bytes:
    if kind not in _names:
        _names[kind] = f"event: {kind.__struct_config__.tag}\ndata: ".encode()
    return _names[kind]
