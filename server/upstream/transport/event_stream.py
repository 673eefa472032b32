"""Decoder of server-sent events (WHATWG HTML, 9.2.6), as far as chat completions use them: the data. Pure."""

from collections.abc import Iterator

MAX_EVENT_BYTES = 4 << 20
"""Bytes of one event at most."""
DONE = b"[DONE]"
"""Data of the last event of a stream."""
BOM = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """An event has more than `MAX_EVENT_BYTES`."""


class EventData:
    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_first = True
        """True until the first line is complete, which may begin with a byte order mark."""
        self._after_return = False
        """True if a line feed would belong to the line before."""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is complete and not empty. Raises EventTooLong."""
        data = self._with_line_feeds(data)
        if b"\n" not in data:
            self._rest += data
        else:
            *lines, rest = (bytes(self._rest) + data if self._rest else data).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                if event := self._line(line):
                    yield event
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise EventTooLong

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Return the data with a line feed for each end of a line, which may also be CR or CR LF."""
        if self._after_return and data:
            self._after_return = False
            data = data.removeprefix(b"\n")
        if b"\r" not in data:
            return data
        self._after_return = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _line(self, line: bytes) -> bytes:
        """Take a line. Return the data of the event that it ends; nothing if it ends none."""
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(BOM)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(line)
        if line:
            return b""
        event = b"\n".join(self._data)
        self._data, self._size = [], 0
        return event
