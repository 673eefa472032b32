"""How much is going on, and a way to wait until nothing is."""

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
        """Several may wait."""
        while self._count:
            await self._waiting.park()
