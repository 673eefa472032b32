"""Events of one response: the machine that makes them from inputs, and their log for readers that wait for more."""

from collections.abc import Sequence

import trio
from msgspec.structs import replace

from server.generation.token_clock import TokenClock
from server.protocol.errors import ApiError
from server.protocol.events import Event, ResponseFailed
from server.protocol.response import ErrorInfo, Response
from server.stream import Stream, StreamInput, events_after, failure, feed_all, opening_inputs


class EventLog:
    """List of all events, so that a client that connects late or again reads the same events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """Events; the index of each is its sequence number."""
        self.ended = trio.Event()
        """Set with the terminal event."""
        self._waiting = trio.lowlevel.ParkingLot()

    def append(self, events: Sequence[Event]) -> None:
        self.events += events
        if events:
            self._waiting.unpark_all()

    def close(self, events: Sequence[Event]) -> None:
        """Append the last events, which include the terminal one."""
        self.ended.set()
        self.append(events)

    def has_nothing_after(self, number: int) -> bool:
        """True if a reader of the event `number` has to wait for the next one."""
        return len(self.events) <= number + 1 and not self.ended.is_set()

    async def after(self, number: int) -> list[Event]:
        """Wait for events after `number` and return them; after the end, return the terminal event again."""
        while self.has_nothing_after(number):
            await self._waiting.park()
        return events_after(self.events, number)


class ResponseEvents:
    """Events of a response. `token_clock` records which tokens led to which events, if the request asks for it."""

    def __init__(self, first: Response, token_clock: TokenClock | None = None) -> None:
        """Begin with the first events of a response."""
        self._first = first
        self.token_clock = token_clock
        self.stream = Stream(first)
        self.log = EventLog()
        self.inputs: list[StreamInput] = []
        self.apply(opening_inputs(first))

    def apply(self, inputs: Sequence[StreamInput]) -> None:
        """Add the events of these inputs."""
        self.inputs += inputs
        events = list(feed_all(self.stream, inputs))
        self.response = self.stream.response
        """Response according to the events in the log."""
        self.log.append(events)
        if self.token_clock is not None:
            self.token_clock.emitted(len(self.log.events) - 1)

    def close(self, response: Response, events: Sequence[Event]) -> None:
        """Add the last events, after which the response is `response`, with the times of its tokens."""
        if self.token_clock is not None:
            response = self.token_clock.added_to(response)
            events = [*events[:-1], replace(events[-1], response=response)]
        self.response = response
        self.log.close(events)

    def fail(self, error: ApiError) -> None:
        """End with `response.failed` alone: the stream itself cannot make its last events."""
        info = ErrorInfo(error.event_code or error.type, error.message)
        self.response = replace(self.response, status="failed", error=info)
        self.log.close([ResponseFailed(len(self.log.events), self.response)])

    def after_error(self, error: ApiError) -> list[Event]:
        """Return the terminal events for a reader that cannot get the rest of the stream."""
        if self.log.ended.is_set():
            return self.log.events[-1:]
        stream = Stream(self._first)
        list(feed_all(stream, self.inputs))
        return stream.feed(failure(error))
