"""Log of the events of one response, for readers that wait for more."""

from collections.abc import Sequence

import trio

from server.protocol.events import Event
from server.stream import events_after


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
