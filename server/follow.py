"""A client that follows a stream."""

from collections.abc import Callable

from server import sse
from server.errors import ApiError
from server.events import TERMINAL
from server.exchange import Exchange
from server.generation import Generation
from server.sse import Encode


async def follow(
    exchange: Exchange,
    generation: Generation,
    number: int = -1,
    start: Callable[[Generation], None] | None = None,
    encode: Encode = sse.encode,
) -> None:
    """The events behind `number`, as they come. `start` is called when the first ones have left."""

    def last_words(error: ApiError) -> bytes:
        return encode(generation.broken(error)) + sse.DONE

    with generation.reading():
        async with exchange.until_hang_up():
            await exchange.start_stream(last_words)
            if generation.silent(number):
                await exchange.push(b"")
            while True:
                events = await generation.after(number)
                await exchange.push(encode(events))
                if start is not None:
                    start(generation)
                    start = None
                if isinstance(events[-1], TERMINAL):
                    break
                number = events[-1].sequence_number
    await exchange.close(sse.DONE)
