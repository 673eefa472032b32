"""Replay of stored streams: equal responses and inputs produce equal bytes. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from server.protocol.errors import ApiError
from server.protocol.events import Event
from server.protocol.response import Response
from server.stream.inputs import Created, InProgress, McpCallFinished, Queued, StreamInput, ToolCallStarted, failure
from server.stream.machine import Stream

STOPPED = "The server stopped while this response was in progress; send the request again."

_first = msgspec.json.Decoder(Response)
_inputs = msgspec.json.Decoder(list[StreamInput])


def feed_all(stream: Stream, inputs: Iterable[StreamInput]) -> Iterator[Event]:
    for input_ in inputs:
        yield from stream.feed(input_)


def events(first: bytes, inputs: bytes) -> Iterator[Event]:
    """Return the events of a stored response. Raises ValueError if it cannot be decoded."""
    return feed_all(Stream(_first.decode(first)), _inputs.decode(inputs))


def events_after(events: Sequence[Event], number: int) -> list[Event]:
    """Return the events after `number` of a stream that has ended, at least the terminal one.

    A reader may have read as far as the stored stream goes, or further, if a crash lost the rest. It gets the terminal
    event with the number after its own, so that it does not take it for an event that it has read.
    """
    return list(events[number + 1 :]) or [replace(events[-1], sequence_number=number + 1)]


def result_of_approved_call(inputs: bytes, approval_request_id: str) -> McpCallFinished | None:
    """Return the result of an approved call in the inputs of a stored stream; None if it has not returned."""
    approval = None
    for input_ in _inputs.decode(inputs):
        match input_:
            case ToolCallStarted():
                approval = input_.approval_request_id
            case McpCallFinished() if approval == approval_request_id:
                return input_
    return None


def opening_inputs(response: Response) -> list[StreamInput]:
    """Return the first inputs of a stream."""
    return [Created(), Queued() if response.status == "queued" else InProgress()]


def interrupted_response(first: bytes, inputs: bytes, message: str = STOPPED) -> tuple[bytes, bytes]:
    """Return the encoded Response and inputs of a response that a crash interrupted. Raises ValueError.

    `inputs`: those that were stored before the crash. `message`: of its error.
    """
    stream = Stream(_first.decode(first))
    begun = _inputs.decode(inputs) or opening_inputs(stream.response)
    all_inputs = [*begun, failure(ApiError(message))]
    list(feed_all(stream, all_inputs))
    return msgspec.json.encode(stream.response), msgspec.json.encode(all_inputs)
