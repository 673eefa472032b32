"""One connection of the bench's client: connecting, TLS, sending a request, and finding the end of a response."""

import re
import selectors
import socket
from enum import Enum

from transport.endpoint import Endpoint

_LAST_CHUNK = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_MAX_HEAD = 100_000


class ConnectionPhase(Enum):
    """The state of a connection, with the `error_kind` of a failure in it."""

    CONNECT = 1, "connect"
    HANDSHAKE = 2, "connect"
    SEND = 3, "send"
    RECEIVE = 4, "closed"


class ResponseEnd:
    """Finds the end of one response in its reads, by its head."""

    def __init__(self) -> None:
        self.reusable = False
        """True if the connection may carry another request."""
        self.framed = False
        """True if the head announces an end; else the response ends when the server closes."""
        self._head: bytes | None = b""
        self._tail = b""
        self._left: int | None = None

    def feed(self, data: bytes) -> bool:
        """True if the response is complete with these bytes."""
        if self._head is not None:
            data = self._read_head(self._head + data)
            if self._head is not None:
                return False
        if self._left is not None:
            self._left -= len(data)
            return self._left <= 0
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        return self._tail == _LAST_CHUNK

    def _read_head(self, data: bytes) -> bytes:
        """Return the bytes after the head; `_head` is None once it is complete."""
        head, found, rest = data.partition(b"\r\n\r\n")
        self._head = data
        if not found and len(data) < _MAX_HEAD:
            return b""
        if head[9:10] == b"1":  # an interim response, such as 103, comes before the response
            self._head = b""
            return self._read_head(rest)
        self._head = None
        length = _LENGTH.search(head)
        if _CHUNKED.search(head):
            self._tail = b"\r\n"
        elif length:
            self._left = int(length[1])
        self.framed = bool(self._tail or length)
        self.reusable = self.framed and head.startswith(b"HTTP/1.1") and not _CLOSES.search(head)
        return rest


class ClientConnection:
    """A connection, and the request that is sent on it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.socket: socket.socket = endpoint.connect()
        self.phase = ConnectionPhase.CONNECT
        self.wants = selectors.EVENT_WRITE
        self._endpoint = endpoint
        self._unsent = b""
        self._end = ResponseEnd()

    @property
    def reusable(self) -> bool:
        """True if the response is complete and another request may follow."""
        return self._end.reusable and not self._unsent

    @property
    def awaits_more(self) -> bool:
        """True if the head announces an end that has not come."""
        return self._end.framed

    def alive(self) -> bool:
        """True if an idle connection is still open: neither its end nor unexpected data came."""
        try:
            self.socket.recv(1)
        except OSError as error:
            return isinstance(error, BlockingIOError) or error.__class__.__name__ == "SSLWantReadError"
        return False

    def request(self, data: bytes) -> None:
        """Set the request that is sent next."""
        self._unsent, self._end = data, ResponseEnd()
        if self.phase is ConnectionPhase.RECEIVE:
            self.phase, self.wants = ConnectionPhase.SEND, selectors.EVENT_WRITE

    def advance(self) -> bytes | None:
        """Do the next step. Return bytes that came, b"" if the server closed, None if nothing came. Raises OSError."""
        try:
            if self.phase is ConnectionPhase.RECEIVE:
                return self.socket.recv(65536)
            if self.phase is ConnectionPhase.CONNECT:
                self._connected()
            if self.phase is ConnectionPhase.HANDSHAKE:
                self.socket.do_handshake()  # type: ignore[attr-defined]  # an SSLSocket
                self.phase = ConnectionPhase.SEND
            self.wants = selectors.EVENT_WRITE
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return None
        except OSError as error:
            return self._again(error)
        if not self._unsent:
            self.phase, self.wants = ConnectionPhase.RECEIVE, selectors.EVENT_READ
        return None

    def complete(self, data: bytes) -> bool:
        """True if these bytes complete the response."""
        return self._end.feed(data)

    def pending(self) -> bool:
        """True if TLS has decrypted bytes that the selector does not know of."""
        return self._endpoint.context is not None and bool(self.socket.pending())  # type: ignore[attr-defined]

    def _connected(self) -> None:
        if status := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(status, "")
        self.phase = ConnectionPhase.SEND
        if context := self._endpoint.context:
            self.phase = ConnectionPhase.HANDSHAKE
            self.socket = context.wrap_socket(
                self.socket, server_hostname=self._endpoint.host, do_handshake_on_connect=False
            )

    def _again(self, error: OSError) -> bytes | None:
        """Wait for what TLS needs; after a failed send, read the answer that the server sent before it closed."""
        match error.__class__.__name__:
            case "SSLWantReadError":
                self.wants = selectors.EVENT_READ
                return None
            case "SSLWantWriteError":
                self.wants = selectors.EVENT_WRITE
                return None
        if self.phase is ConnectionPhase.SEND:
            try:
                if data := self.socket.recv(65536):
                    return data
            except OSError:
                pass
        raise error
