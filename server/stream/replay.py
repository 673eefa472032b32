"""A stream that was written down, once more: the same response and the same cues, so the same bytes. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from server.protocol.errors import ApiError
from server.protocol.events import Event, Response
from server.stream.inputs import Created, InProgress, Queued, StreamInput, failure
from server.stream.machine import Stream

STOPPED = "The server stopped while this response was being made."

_first = msgspec.json.Decoder(Response)
_cues = msgspec.json.Decoder(list[StreamInput])


def feed_all(stream: Stream, cues: Iterable[StreamInput]) -> Iterator[Event]:
    for cue in cues:
        yield from stream.feed(cue)


def events(first: bytes, cues: bytes) -> Iterator[Event]:
    """Of a stored response. Raises ValueError where it can't be read."""
    return feed_all(Stream(_first.decode(first)), _cues.decode(cues))


def events_after(events: Sequence[Event], number: int) -> list[Event]:
    """Of a stream that has ended, what follows the event of that number: at least the terminal one.

    A reader may have come further than the stream now goes: what it read was lost with a crash, and the stream that is
    left is short. Its terminal event then has the number behind that reader's, and only for that reader: who drops
    what it has read already, by number, must not drop the end.
    """
    if number < len(events):
        return list(events[number + 1 :]) or [events[-1]]
    return [replace(events[-1], sequence_number=number + 1)]


def opening_inputs(response: Response) -> list[StreamInput]:
    """What every stream begins with."""
    return [Created(), Queued() if response.status == "queued" else InProgress()]


def interrupted_response(first: bytes) -> tuple[bytes, bytes]:
    """The Response and the cues of one that was being made when the server stopped. Raises ValueError."""
    stream = Stream(_first.decode(first))
    cues = [*opening_inputs(stream.response), failure(ApiError(STOPPED))]
    list(feed_all(stream, cues))
    return msgspec.json.encode(stream.response), msgspec.json.encode(cues)
