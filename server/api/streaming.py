"""A client that follows a stream."""

from collections.abc import Callable

import trio

from server.generation import Generation
from server.http import Exchange
from server.protocol import sse
from server.protocol.errors import ApiError
from server.protocol.events import TERMINAL, Event
from server.protocol.sse import Encode

END_SECONDS = 5.0
"""Time that a cancelled response may take to end: a step of the model, and a write to the store."""


async def stream_events(
    exchange: Exchange,
    generation: Generation,
    number: int = -1,
    start: Callable[[Generation], None] | None = None,
    encode: Encode = sse.encode,
) -> None:
    """The events behind `number`, as they come. `start` is called when the first ones have left."""

    def last_words(error: ApiError) -> bytes:
        return encode(generation.error_events(error)) + sse.DONE

    last = None
    with generation.reading():
        async with exchange.until_hang_up():
            await exchange.start_stream(last_words)
            if generation.has_nothing_after(number):
                await exchange.send(b"")
            while True:
                events = await _next(exchange, generation, number)
                await exchange.send(encode(events))
                if start is not None:
                    start(generation)
                    start = None
                last = events[-1]
                number = last.sequence_number
                if isinstance(last, TERMINAL):
                    break
    if not isinstance(last, TERMINAL):
        await _finish(exchange, generation, number, encode)
    exchange.outcome = generation.response.status
    await exchange.close(sse.DONE)


async def _next(exchange: Exchange, generation: Generation, number: int) -> list[Event]:
    """The next events. Before the first item, comments break the silence; later ones would cost time per token."""
    while generation.heartbeat and not generation.writing:
        with trio.move_on_after(generation.heartbeat):
            return await generation.after(number)
        await exchange.send(sse.PING)
    return await generation.after(number)


async def _finish(exchange: Exchange, generation: Generation, number: int, encode: Encode) -> None:
    """The end of a stream whose client has left: it may have closed its own direction only, and still read."""
    if generation.abandoned:
        with trio.move_on_after(END_SECONDS):
            await generation.ended.wait()
    if generation.ended.is_set():
        await exchange.send(encode(await generation.after(number)))
