"""Facts about an answer beside its text. The times of its tokens are numbered by chunks instead of by events. Pure."""

from collections.abc import Callable, Iterable, Sequence

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server.protocol.events import Event, ResponseCreated, ResponseInProgress
from server.protocol.response import Response, TokenTimes


class AnswerExtensions(Struct, frozen=True, omit_defaults=True):
    """Facts about an answer for which OpenAI's API has no field: members of `responsed` in a response."""

    skipped: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()
    token_times: TokenTimes | None = None


def whole_extensions(response: Response) -> AnswerExtensions | UnsetType:
    """Return the facts about an answer in one piece, which has no chunks."""
    return _extensions(response, lambda events: (None,) * len(events))


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

    def extensions(self, response: Response) -> AnswerExtensions | UnsetType:
        """Return the facts about the response that ends the stream."""
        return _extensions(response, self._chunks)

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


def _extensions(
    response: Response, chunks: Callable[[Sequence[int | None]], tuple[int | None, ...]]
) -> AnswerExtensions | UnsetType:
    """Return the facts that a chat has too. `chunks` returns the number of the chunk for each number of an event."""
    if not response.responsed:
        return UNSET
    facts, times = response.responsed, response.responsed.token_times
    if times is not None:
        times = replace(times, tokens=replace(times.tokens, event=chunks(times.tokens.event)))
    found = AnswerExtensions(facts.skipped, facts.unenforced, times)
    return UNSET if found == AnswerExtensions() else found
