"""Times of the tokens of a streamed answer, numbered by its chunks instead of by events. Pure."""

from collections.abc import Callable, Iterable, Sequence

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server.protocol.events import Event, ResponseCreated, ResponseInProgress
from server.protocol.response import Response, TokenTimes


class AnswerExtensions(Struct, frozen=True):
    """Facts about an answer for which OpenAI's API has no field."""

    token_times: TokenTimes


def whole_times(response: Response) -> AnswerExtensions | UnsetType:
    """Return the times of an answer in one piece, which has no chunks."""
    times = _times(response)
    if times is None:
        return UNSET
    return AnswerExtensions(replace(times, tokens=replace(times.tokens, event=(None,) * len(times.tokens.event))))


class ChunkNumbers:
    """Numbers of the chunks that carry the tokens of each event. All events pass, from the first one on."""

    def __init__(self) -> None:
        self._count = 0
        """Chunks so far."""
        self._of_events: dict[int, int] = {}
        """Sequence number of each event that has a chunk with tokens -> number of its chunk."""

    def join(self, events: Iterable[Event], frames_of: Callable[[Event], Iterable[bytes]]) -> bytes:
        """Return the frames of the next events, one for each chunk, and record their numbers."""
        frames: list[bytes] = []
        for event in events:
            begin = len(frames)
            frames += frames_of(event)
            if len(frames) > begin and not isinstance(event, ResponseCreated | ResponseInProgress):
                self._of_events[event.sequence_number] = self._count + len(frames) - 1
        self._count += len(frames)
        return b"".join(frames)

    def times(self, response: Response) -> AnswerExtensions | UnsetType:
        """Return the times of the response that ends the stream."""
        times = _times(response)
        if times is None:
            return UNSET
        return AnswerExtensions(replace(times, tokens=replace(times.tokens, event=self._chunks(times.tokens.event))))

    def _chunks(self, events: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return, for the last event that left with each token, the last chunk that did."""
        found: list[int | None] = []
        before, last = -1, None
        for number in events:
            if number is not None and number != before:
                chunks = [self._of_events[each] for each in range(before + 1, number + 1) if each in self._of_events]
                before, last = number, chunks[-1] if chunks else None
            found.append(None if number is None else last)
        return tuple(found)


def _times(response: Response) -> TokenTimes | None:
    return response.responsed.token_times if response.responsed else None
