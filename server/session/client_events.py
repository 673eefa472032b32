"""Events that a client sends: openai-python 3.57, `types/responses/responses_client_event.py`. Pure."""

import re
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from server.protocol.decoding import read
from server.protocol.errors import InvalidRequest

STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")


class Create(Struct, frozen=True):
    """Request for a response."""

    body: bytes
    """Whole event; its other fields are those of `POST /v1/responses`."""
    lane: str | None
    """Field `stream_id`; None for the default lane."""
    generate: bool
    reserved: int = 0
    """Bytes that the event has reserved in memory."""


class Steer(Struct, frozen=True):
    """Input for a response in progress."""

    previous_response_id: str
    input: Raw
    unknown: tuple[str, ...] = ()
    """Names of other fields."""


ClientEvent: TypeAlias = Create | Steer


class _Type(Struct):
    type: str


class _Create(Struct):
    stream_id: Raw | UnsetType = UNSET
    generate: bool | None = None


class _Steer(Struct):
    previous_response_id: str
    input: Raw


_type = msgspec.json.Decoder(_Type)
_create = msgspec.json.Decoder(_Create)
_steer = msgspec.json.Decoder(_Steer)
_fields = msgspec.json.Decoder(dict[str, Raw])


def decode(message: bytes, reserved: int = 0) -> ClientEvent:
    """Decode a cleaned message. Raises InvalidRequest."""
    kind = read(message, _type).type
    if kind == "response.create":
        create = read(message, _create)
        return Create(message, _lane(create.stream_id), create.generate is not False, reserved)
    if kind == "response.steer":
        steer = read(message, _steer)
        unknown = sorted(_fields.decode(message).keys() - {"type", *_Steer.__struct_fields__})
        return Steer(steer.previous_response_id, steer.input, tuple(unknown))
    raise InvalidRequest(
        f"Events of type {kind[:100]!r} are not supported; send `response.create` or `response.steer`.",
        param="type",
        code="unknown_event_type",
    )


def _lane(stream_id: Raw | UnsetType) -> str | None:
    """Return the name of the lane; None for the default one. Raises InvalidRequest."""
    if stream_id is UNSET or bytes(stream_id) == b"null":
        return None
    name = msgspec.json.decode(stream_id, type=str) if bytes(stream_id).startswith(b'"') else None
    if name is None or STREAM_ID.fullmatch(name) is None:
        raise InvalidRequest(
            "`stream_id` must be 1 to 256 letters, digits, underscores, hyphens and periods.",
            param="stream_id",
            code="invalid_stream_id",
        )
    return name
