"""Relay of requests about responses that other servers of the same database generate.

The database has the URL of that server. If it dies, its responses become failed within `LEASE_SECONDS` and a few more,
and their streams end here with the terminal event from the database.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import trio
from msgspec import Struct, structs

from server.access import ANY_VERSION, VERSION
from server.generation import stopping
from server.http import Exchange, Headers
from server.protocol import sse
from server.protocol.errors import ApiError, Unavailable
from server.protocol.sse import Encode
from server.relay.frames import FrameReader
from server.relay.peer import RELAYED, PeerAnswer, PeerFailure, ask
from server.store import AsyncStore, Stored
from server.stream import replay

SILENT_SECONDS = 15.0
"""Seconds without a byte of a stream after which the database is asked if its server lives."""
RETRY_SECONDS = 0.5
FORWARDED = (b"authorization", b"x-client-request-id", b"traceparent")
"""Headers of the client that the other server needs."""
RETURNED = (b"content-type", b"retry-after")
"""Headers of the answer that the client gets."""


class RunningElsewhere(Struct, frozen=True):
    """A response that another server generates."""

    stored: Stored
    url: str
    """URL of its server."""


class Relay:
    def __init__(self, store: AsyncStore | None) -> None:
        self._store = store
        self._scopes: set[trio.CancelScope] = set()
        """Scopes of the streams that are relayed."""
        self._stopping = False

    async def find(self, stored: Stored) -> RunningElsewhere | Stored | None:
        """Return where an unfinished response runs, or the response if it has ended; None if it does neither.

        Raises StoreError.
        """
        if self._store is None:
            return None
        run, responses = self._store.run, self._store.responses
        if (url := await run(responses.owner, stored.id)) is not None:
            return RunningElsewhere(stored, url)
        if responses.shared:
            await run(responses.keep_alive, time.monotonic())  # ends it if its server has died
        again = await run(responses.get, stored.id, time.monotonic())
        return None if again is None or again.unfinished else again

    async def answer(self, exchange: Exchange, running: RunningElsewhere, otherwise: bytes | None = None) -> None:
        """Answer as the other server does. If that cannot be reached, answer `otherwise`, or raise Unavailable."""
        _check_not_relayed(exchange, running)
        try:
            async with ask(running.url, exchange.method, exchange.target, _forwarded(exchange)) as answer:
                body = await answer.body()
        except PeerFailure as failure:
            if otherwise is None:
                raise _unreachable(running, failure) from failure
            await exchange.answer(200, otherwise)
        else:
            exchange.outcome = "relayed"
            await exchange.answer(answer.status, body, _returned(answer))

    async def follow(self, exchange: Exchange, running: RunningElsewhere, number: int, encode: Encode) -> None:
        """Send the events after `number` as the other server sends them, and the last ones if it dies."""
        _check_not_relayed(exchange, running)
        frames = FrameReader(number)
        exchange.outcome = "relayed"
        with exchange.watch.until_disconnect(), self._until_stop():
            await exchange.start_stream(lambda error: _end(running.stored, frames.number, error.message, encode))
            await exchange.send(b"")
            await self._pass_on(exchange, running, frames, encode)
            while not frames.ended:
                match await self.find(running.stored):
                    case RunningElsewhere() as running:
                        await trio.sleep(RETRY_SECONDS)
                        await self._pass_on(exchange, running, frames, encode)
                    case Stored() as stored:
                        await exchange.send(replayed(stored, frames.number, encode))
                        break
                    case None:
                        raise ApiError(replay.STOPPED)
        await exchange.close(sse.DONE)

    def stop(self) -> None:
        """End all streams with an error: this server stops, and their clients can resume at another one."""
        self._stopping = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def _until_stop(self) -> Iterator[None]:
        """Raise Unavailable in the place of the block if the server stops."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.remove(scope)
        if scope.cancelled_caught:
            raise stopping()

    async def _pass_on(
        self, exchange: Exchange, running: RunningElsewhere, frames: FrameReader, encode: Encode
    ) -> None:
        """Send frames until the stream ends or breaks, or its server has died. Raises ApiError if it refuses."""
        target = f"/v1/responses/{quote(running.stored.id)}?stream=true&starting_after={frames.number}"
        try:
            async with ask(running.url, "GET", target, _asking_for_names(_forwarded(exchange), encode)) as answer:
                if 400 <= answer.status < 500:
                    raise ApiError(f"The server that generates this response refuses to send it ({answer.status}).")
                while answer.status == 200 and not frames.ended:
                    chunk = b""
                    with trio.move_on_after(SILENT_SECONDS) as scope:
                        chunk = await answer.chunk()
                    if chunk:
                        await exchange.send(frames.feed(chunk))
                    elif not (scope.cancelled_caught and await self._lives(running)):
                        return
        except PeerFailure:
            return

    async def _lives(self, running: RunningElsewhere) -> bool:
        return isinstance(await self.find(running.stored), RunningElsewhere)


def _check_not_relayed(exchange: Exchange, running: RunningElsewhere) -> None:
    if exchange.header(RELAYED) is not None:
        raise Unavailable(
            f"{running.url} is not the server that it should be: let --advertise name each server itself, no balancer.",
            reason="relay",
        )


def _unreachable(running: RunningElsewhere, failure: PeerFailure) -> ApiError:
    message = f"The server that generates {running.stored.id!r} does not answer: {failure}; try again later."
    return Unavailable(message, reason="relay")


def _forwarded(exchange: Exchange) -> Headers:
    found = ((name, exchange.header(name)) for name in FORWARDED)
    return [(name, value.encode("latin-1")) for name, value in found if value is not None]


def _asking_for_names(headers: Headers, encode: Encode) -> Headers:
    """Return the headers with a request for the names of events that this server has chosen for the client."""
    return [*headers, (VERSION, ANY_VERSION)] if encode is sse.encode_renamed else headers


def _returned(answer: PeerAnswer) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in answer.headers if name in RETURNED]


def replayed(stored: Stored, number: int, encode: Encode) -> bytes:
    """Return the frames of the events after `number` of a response that has ended, at least the terminal one."""
    return encode(replay.events_after(list(replay.events(stored.first, stored.inputs)), number))


def _end(stored: Stored, number: int, message: str, encode: Encode) -> bytes:
    """Return the last frames of a response whose end is not known."""
    inputs = replay.interrupted_response(stored.first, stored.inputs, message)[1]
    return replayed(structs.replace(stored, inputs=inputs), number, encode) + sse.DONE
