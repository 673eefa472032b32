"""Decoder of server-sent events (WHATWG HTML, 9.2.6), as far as chat completions use them: the data. Pure."""

from collections.abc import Iterator

MAX_EVENT_BYTES = 4 << 20
"""Bytes of one event at most."""


class EventTooLong(Exception):
    """An event has more than `MAX_EVENT_BYTES`."""


class EventData:
    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is complete. Raises EventTooLong."""
        *lines, rest = (bytes(self._rest) + data).split(b"\n") if b"\n" in data else (self._rest + data,)
        self._rest = bytearray(rest)
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(bytes(line[5:].removeprefix(b" ")))
                self._size += len(line)
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data, self._size = [], 0
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise EventTooLong
