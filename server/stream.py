"""THE state machine: cues in -> events out. It owns numbers, indexes, ids and the final output.

Legal orders: Open Responses, "Streaming" ("Items are streamable"), and what openai-python's `responses.stream()`
insists on. An item opens, takes deltas, closes; items are never interleaved; exactly one terminal event ends it all.
What is not streamed is `response` after the last event.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Literal

from msgspec import UNSET
from msgspec.structs import replace

from server.cues import Cancelled, Created, Cue, End, Failure, Queued, Running, Text, Unstored
from server.events import (
    ContentPartAdded,
    ContentPartDone,
    Error,
    ErrorInfo,
    ErrorPayload,
    Event,
    IncompleteDetails,
    Logprob,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
    Usage,
)


class State(Enum):
    NEW = auto()
    CREATED = auto()
    QUEUED = auto()
    RUNNING = auto()
    """Nothing of the answer is there yet."""
    WRITING = auto()
    CLOSED = auto()


_BREAKS: dict[type[Cue], State] = {Failure: State.CLOSED, Cancelled: State.CLOSED}
TRANSITIONS: dict[State, dict[type[Cue], State]] = {
    State.NEW: {Created: State.CREATED},
    State.CREATED: {Queued: State.QUEUED, Running: State.RUNNING},
    State.QUEUED: {Running: State.RUNNING, Unstored: State.QUEUED, **_BREAKS},
    State.RUNNING: {
        Running: State.RUNNING,
        Unstored: State.RUNNING,
        Text: State.WRITING,
        End: State.CLOSED,
        **_BREAKS,
    },
    State.WRITING: {Text: State.WRITING, Unstored: State.WRITING, End: State.CLOSED, **_BREAKS},
    State.CLOSED: {},
}


class MessageItem:
    """A message with one text part."""

    def __init__(self, id_: str, output_index: int, number: Callable[[], int]) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        self._logprobs: list[Logprob] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, Message(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, OutputText(""))

    def delta(self, text: str, logprobs: Sequence[Logprob]) -> Iterator[Event]:
        self._texts.append(text)
        self._logprobs += logprobs
        yield OutputTextDelta(self._number(), self._id, self._index, 0, text, tuple(logprobs))

    def done(self, status: Literal["completed", "incomplete"]) -> Iterator[Event]:
        part = OutputText("".join(self._texts), logprobs=tuple(self._logprobs))
        yield OutputTextDone(self._number(), self._id, self._index, 0, part.text, part.logprobs)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, Message(self._id, status, (part,)))


class Stream:
    """The events of one response, in order. A cue that is not in the table is our own mistake: it asserts."""

    def __init__(self, response: Response) -> None:
        """`response` as it is at the beginning: queued or in progress, no output."""
        self.response = response
        self.state = State.NEW
        self._number = itertools.count().__next__
        self._item: MessageItem | None = None

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED

    def feed(self, cue: Cue) -> list[Event]:
        state = TRANSITIONS[self.state].get(type(cue))
        assert state is not None, f"{type(cue).__name__} is not legal in state {self.state.name}"
        self.state = state
        return list(self._play(cue))

    def _play(self, cue: Cue) -> Iterator[Event]:
        match cue:
            case Created():
                yield ResponseCreated(self._number(), self.response)
            case Queued():
                yield ResponseQueued(self._number(), self.response)
            case Running(progress):
                self.response = replace(self.response, status="in_progress")
                yield ResponseInProgress(self._number(), self.response, progress or UNSET)
            case Unstored():
                self.response = replace(self.response, store=False, conversation=UNSET)
            case Text(text, logprobs):
                yield from self._opened()
                yield from self._current.delta(text, logprobs)
            case End():
                yield from self._end(cue)
            case Cancelled(usage):
                yield from self._cancel(usage)
            case Failure(error):
                yield from self._fail(error)

    def _end(self, end: End) -> Iterator[Event]:
        """An answer without text still has its message."""
        yield from self._opened()
        yield from self._closed("incomplete" if end.incomplete else "completed")
        if end.incomplete is not None:
            details = IncompleteDetails(end.incomplete)
            self.response = replace(self.response, status="incomplete", incomplete_details=details, usage=end.usage)
            yield ResponseIncomplete(self._number(), self.response)
        else:
            self.response = replace(self.response, status="completed", completed_at=end.now, usage=end.usage)
            yield ResponseCompleted(self._number(), self.response)

    def _cancel(self, usage: Usage | None) -> Iterator[Event]:
        """There is no event `response.cancelled`, in neither specification: it is incomplete, and the status tells."""
        if self._item is not None:
            yield from self._closed("incomplete")
        self.response = replace(self.response, status="cancelled", usage=usage)
        yield ResponseIncomplete(self._number(), self.response)

    def _fail(self, error: ErrorPayload) -> Iterator[Event]:
        """The error, then `response.failed` (Open Responses, "Errors"). What was begun is left out."""
        info = ErrorInfo(error.code or error.type, error.message)
        self.response = replace(self.response, status="failed", error=info)
        yield Error(self._number(), error.message, error.code, error.param, error)
        yield ResponseFailed(self._number(), self.response)

    @property
    def _current(self) -> MessageItem:
        assert self._item is not None, "an item is open"
        return self._item

    def _opened(self) -> Iterator[Event]:
        if self._item is None:
            # Ids are derived, not drawn: unique as the response's is, and the same input gives the same bytes.
            index = len(self.response.output)
            self._item = MessageItem(f"msg_{self.response.id.removeprefix('resp_')}{index:02}", index, self._number)
            yield from self._item.added()

    def _closed(self, status: Literal["completed", "incomplete"]) -> Iterator[Event]:
        for event in self._current.done(status):
            if isinstance(event, OutputItemDone):
                self.response = replace(self.response, output=(*self.response.output, event.item))
            yield event
        self._item = None
