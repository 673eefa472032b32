"""Number of activities in progress, and a wait for none."""

import trio


class ActivityCount:
    def __init__(self) -> None:
        self._count = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def begin(self) -> None:
        self._count += 1

    def end(self) -> None:
        self._count -= 1
        if not self._count:
            self._waiting.unpark_all()

    async def wait_idle(self) -> None:
        """Wait until no activity is in progress. Several tasks may wait."""
        while self._count:
            await self._waiting.park()
