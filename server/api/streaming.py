"""Last stage of a request: send the events of a generation as they arise, or its response when it has ended."""

import time
from collections.abc import Callable

import trio
from msgspec import UNSET, UnsetType

from server.generation import Generation, Generations
from server.http import ClientDisconnected, Exchange
from server.protocol import sse
from server.protocol.errors import ApiError, GrammarMismatch, Unavailable
from server.protocol.events import TERMINAL, Event
from server.protocol.response import ErrorInfo, Extensions, Response
from server.protocol.sse import Encode

BUSY = "upstream_busy"
"""The `fault` of a response whose request may work later."""
FAULT_STATUS = {"output_mismatch": 502, "upstream_error": 502, "upstream_timeout": 504}
"""Status of a request without a stream by the `fault` of its response, where it is not 500."""
END_SECONDS = 5.0
"""Seconds that a cancelled response may take to end: a step of the model, and a write to the store."""


async def deliver(
    exchange: Exchange,
    generations: Generations,
    generation: Generation,
    *,
    encode: Encode | None,
    render: Callable[[Response], bytes],
) -> None:
    """Start a generation and answer with its events, encoded by `encode`.

    Answer with its response, rendered by `render`, if `encode` is None. Raises ClientDisconnected, and ApiError for a
    response that failed.
    """
    if encode is not None:
        await stream_events(exchange, generation, start=generations.start, encode=encode)
    else:
        await exchange.answer(200, render(await run_to_end(exchange, generations, generation)))


async def run_to_end(exchange: Exchange, generations: Generations, generation: Generation) -> Response:
    """Start a generation and return its response, which is built from the same events as a stream.

    Raises ClientDisconnected, and ApiError for a response that failed.
    """
    with generation.reading(exchange), exchange.watch.until_disconnect():
        generations.start(generation)
        exchange.starts_generation = True
        await generation.ended.wait()
    if not generation.ended.is_set():
        exchange.outcome = "cancelled"
        raise ClientDisconnected
    exchange.outcome = generation.response.status
    if generation.error is not None:
        raise generation.error
    if generation.response.error is not None:
        raise _error_of(generation.response.error, generation.response.responsed)
    return generation.response


def _error_of(error: ErrorInfo, facts: Extensions | UnsetType) -> ApiError:
    """Return the error of a response that failed after its first output."""
    if error.code == GrammarMismatch.code:
        return GrammarMismatch(error.message)
    fault = None if facts is UNSET else facts.fault
    if fault == BUSY:
        return Unavailable(error.message, code=fault)
    found = ApiError(error.message, code=fault)
    found.status = FAULT_STATUS.get(fault or "", found.status)
    return found


async def stream_events(
    exchange: Exchange,
    generation: Generation,
    number: int = -1,
    start: Callable[[Generation], None] | None = None,
    encode: Encode = sse.encode,
) -> None:
    """Send the events after `number` as they arise. Call `start` once the first ones are sent.

    Raises ClientDisconnected before that.
    """

    def error_frames(error: ApiError) -> bytes:
        return encode(generation.error_events(error)) + sse.DONE

    last = None
    with generation.reading(exchange), exchange.watch.until_disconnect():
        await exchange.start_stream(error_frames)
        if generation.has_nothing_after(number):
            await exchange.send(b"")
        while True:
            events = await _next_events(exchange, generation, number)
            frames = encode(events)
            if (clock := generation.token_clock) is not None:
                clock.encoded(events[-1].sequence_number, time.perf_counter())
            await exchange.send(frames)
            if clock is not None:
                clock.written(events[-1].sequence_number, time.perf_counter())
            if start is not None:
                start(generation)
                exchange.starts_generation = True
                start = None
            last = events[-1]
            number = last.sequence_number
            if isinstance(last, TERMINAL):
                break
    if start is not None:  # it left before the first frames, and nothing would end
        raise ClientDisconnected
    if not isinstance(last, TERMINAL):
        await _send_end(exchange, generation, number, encode)
    exchange.outcome = generation.response.status
    await exchange.close(sse.DONE)


async def _next_events(exchange: Exchange, generation: Generation, number: int) -> list[Event]:
    """Return the next events. Send comments while waiting in silence."""
    while generation.has_nothing_after(number) and (seconds := generation.comment_seconds):
        with trio.move_on_after(seconds):
            return await generation.after(number)
        await exchange.send(sse.PING)
    return await generation.after(number)


async def _send_end(exchange: Exchange, generation: Generation, number: int, encode: Encode) -> None:
    """Send the end of a stream to a client that disconnected: it may have closed its own direction and still read."""
    if generation.abandoned:
        with trio.move_on_after(END_SECONDS):
            await generation.ended.wait()
    if generation.ended.is_set():
        await exchange.send(encode(await generation.after(number)))
