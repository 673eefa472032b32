"""The events of one response so far, and the readers that wait for more."""

from collections.abc import Sequence

import trio

from server.protocol.events import Event
from server.stream import events_after


class EventLog:
    """Every event stays until the response has ended, so a client that comes late, or again, reads the same ones."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        """Each at the index of its sequence number."""
        self.ended = trio.Event()
        """Set with the terminal event."""
        self._waiting = trio.lowlevel.ParkingLot()

    def append(self, events: Sequence[Event]) -> None:
        self.events += events
        self._waiting.unpark_all()

    def close(self, events: Sequence[Event]) -> None:
        """Append the last events; the terminal one is among them."""
        self.ended.set()
        self.append(events)

    def has_nothing_after(self, number: int) -> bool:
        """True if a reader of the event `number` has to wait for the next one."""
        return len(self.events) <= number + 1 and not self.ended.is_set()

    async def after(self, number: int) -> list[Event]:
        """Return the events behind `number`, at least one; at the end the terminal one (again)."""
        while self.has_nothing_after(number):
            await self._waiting.park()
        return events_after(self.events, number)
