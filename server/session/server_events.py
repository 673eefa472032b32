"""Events that only a WebSocket has: openai-python 3.57, `types/responses/responses_server_event.py`. Pure."""

from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from server.protocol.errors import ApiError, Unavailable


class ErrorDetails(Struct, frozen=True):
    type: str
    code: str
    """Code of the error, else its type: Open Responses requires a text here (`WebSocketErrorEvent`)."""
    message: str
    param: str | None
    headers: dict[str, str] | UnsetType = UNSET
    """Headers that the error would have over HTTP."""


class RequestError(Struct, frozen=True, tag="error"):
    """A request failed before it had a response."""

    status: int
    """Status that the error would have over HTTP."""
    error: ErrorDetails


class SteerReference(Struct, frozen=True):
    id: str
    previous_response_id: str


class SteerAccepted(Struct, frozen=True, tag="response.steer.accepted"):
    sequence_number: int
    steer: SteerReference


class SteerPending(Struct, frozen=True, tag="response.steer.pending"):
    """The input waits for the results of the client's tools."""

    sequence_number: int
    steer: SteerReference
    required_input: list[dict[str, Any]]
    reason: str = "waiting_for_required_input"


class SteerError(Struct, frozen=True):
    code: str
    message: str
    type: str = "invalid_request_error"


class RejectedSteer(Struct, frozen=True):
    input: Raw
    previous_response_id: str
    id: str | UnsetType = UNSET


class SteerFailed(Struct, frozen=True, tag="response.steer.failed"):
    """The input has no effect, and returns to the client."""

    sequence_number: int
    error: SteerError
    steer: RejectedSteer


SessionEvent: TypeAlias = RequestError | SteerAccepted | SteerPending | SteerFailed


def request_error(error: ApiError) -> RequestError:
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Unavailable) else UNSET
    return RequestError(
        error.status, ErrorDetails(error.type, error.code or error.type, error.message, error.param, headers)
    )


def encode(event: SessionEvent) -> bytes:
    return msgspec.json.encode(event)


def in_lane(message: bytes, stream_id: str | None) -> bytes:
    """Return the JSON object of an event with its lane; the default lane has no name.

    The name needs no escapes (`client_events.STREAM_ID`), and an event always has fields.
    """
    return message if stream_id is None else b'{"stream_id":"%b",%b' % (stream_id.encode(), message[1:])
