"""Event -> frame bytes (WHATWG HTML, section 9.2: server-sent events)."""

from collections.abc import Iterable

import msgspec

from server.events import Event

DONE = b"data: [DONE]\n\n"
"""The last frame of every stream (Open Responses, "Streaming")."""

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


def _opening(kind: type[Event]) -> bytes:
    if kind not in _names:
        _names[kind] = f"event: {kind.__struct_config__.tag}\ndata: ".encode()
    return _names[kind]
