"""A WebSocket client that sends any bytes, and checks what it reads."""

import base64
import json
import os
from collections.abc import Iterator
from typing import Any, Self

import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, Pong, TextMessage

from tests.support import wire
from tests.support.helpers import NAME, Client, Server

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
SESSION_EVENTS = ("response.steer.accepted", "response.steer.pending", "response.steer.failed")


def key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def handshake(*headers: str, path: str = "/v1/responses", host: str = "localhost") -> bytes:
    """A valid opening handshake, with further headers."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key()}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class SocketClient:
    """One connection in WebSocket mode."""

    def __init__(self, client: Client) -> None:
        self.http = client
        self.wire = Connection(ConnectionType.CLIENT)
        self._events: Iterator[Event] = iter(())
        self.pongs: list[bytes] = []
        self.pings = 0
        self.answers_pings = True

    @classmethod
    async def to(cls, running: Server, *headers: str) -> Self:
        client = await Client.to(running)
        await client.send(handshake(*headers))
        head = await client.head()
        assert head.status == 101, head
        return cls(client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.http.__aexit__()

    async def send(self, event: Event) -> None:
        await self.http.send(self.wire.send(event))

    async def json(self, value: Any) -> None:
        await self.send(TextMessage(json.dumps(value)))

    async def create(self, **body: Any) -> None:
        await self.json({"type": "response.create", "model": NAME} | body)

    async def event(self) -> dict[str, Any]:
        """The next message."""
        text = ""
        while True:
            found = await self.next_event()
            match found:
                case Message():
                    assert isinstance(found, TextMessage)
                    text += found.data
                    if found.message_finished:
                        event: dict[str, Any] = json.loads(text)
                        return event
                case CloseConnection():
                    raise AssertionError(f"closed: {found}")

    async def closed(self) -> tuple[int, str]:
        """Read on to the close frame, answer it, and return its code and reason; 1006 without one."""
        while not isinstance(found := await self.next_event(), CloseConnection):
            pass
        if found.code != 1006 and self.wire.state is ConnectionState.REMOTE_CLOSING:
            await self.send(found.response())
            assert await self.http.rest() == b"", "the server sends frames behind its close frame"
        return int(found.code), found.reason or ""

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Read on to an event of this type, and return all of them."""
        events = [await self.event()]
        while events[-1]["type"] != kind:
            events.append(await self.event())
        return events

    async def stream(self) -> list[dict[str, Any]]:
        """The events of a whole response, after all checks of `wire`."""
        events = [await self.event()]
        while events[-1]["type"] not in TERMINAL:
            events.append(await self.event())
        names = {event.pop("stream_id", None) for event in events}
        assert len(names) == 1, f"events of several lanes: {names}"
        wire.check_stream([event for event in events if event["type"] not in SESSION_EVENTS])
        return events

    async def response(self, **body: Any) -> dict[str, Any]:
        """Create a response and return its last state."""
        await self.create(**body)
        response: dict[str, Any] = (await self.stream())[-1]["response"]
        return response

    async def next_event(self) -> Event:
        """Return the next event; pings are answered."""
        while True:
            for event in self.wire.events():
                match event:
                    case Ping():
                        self.pings += 1
                        if self.answers_pings:
                            await self.send(event.response())
                    case Pong():
                        self.pongs.append(bytes(event.payload))
                        return event
                    case _:
                        return event
            try:
                data = await self.http.some()
            except trio.BrokenResourceError:
                data = b""
            self.wire.receive_data(data or None)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes | None = bytes(4), rsv: int = 0) -> bytes:
    """Any frame (RFC 6455, 5.2); unmasked if `mask` is None."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0 if mask is None else 0x80
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
