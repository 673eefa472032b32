"""Times of one response as its client read it."""

from typing import Any


class ClientTimes:
    """Times of the events of one response, by `sequence_number`, or of its chunks, by their number from 0."""

    def __init__(self, start: float) -> None:
        """`start`: time at which the request was sent, in seconds of CLOCK_MONOTONIC, which `perf_counter` reads."""
        self._start = start
        self._count = 0
        self._numbers: list[int] = []
        self._times: list[float] = []
        self._parse: list[float] = []
        self._server: dict[str, Any] | None = None

    def add(self, event: dict[str, Any], time: float, parse: float) -> None:
        """Add an event that was read `time` seconds after the start and took `parse` seconds to parse."""
        self._numbers.append(event.get("sequence_number", self._count))
        self._count += 1
        self._times.append(round(time, 6))
        self._parse.append(round(parse, 7))
        response = event.get("response") or event
        self._server = (response.get("responsed") or {}).get("token_times") or self._server

    def beside_server(self) -> dict[str, Any] | None:
        """Return `Record.server_times`; None if the server sent no times."""
        if self._server is None:
            return None
        client = {"start": self._start, "numbers": self._numbers, "times": self._times, "parse": self._parse}
        return {"server": self._server, "client": client}
