"""THE state machine: cues in -> events out. It owns numbers, indexes, ids and the final output.

Legal orders: Open Responses, "Streaming" ("Items are streamable"), and what openai-python's `responses.stream()`
insists on. An item opens, takes deltas, closes; items are never interleaved; exactly one terminal event ends it all.
What is not streamed is `response` after the last event.
"""

import itertools
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from msgspec import UNSET
from msgspec.structs import replace

from server.protocol.events import (
    Error,
    ErrorInfo,
    ErrorPayload,
    Event,
    IncompleteDetails,
    OutputItemDone,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
    Usage,
)
from server.protocol.extensions import extended
from server.stream.inputs import (
    ArgumentsAdded,
    Cancelled,
    Created,
    End,
    Failure,
    InProgress,
    NotStored,
    Queued,
    ReasoningAdded,
    StreamInput,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from server.stream.open_items import Opening, OpenItem, Outcome, kind_of, open_item


class State(Enum):
    NEW = auto()
    CREATED = auto()
    QUEUED = auto()
    RUNNING = auto()
    """Nothing of the answer is there yet."""
    WRITING = auto()
    CALLING = auto()
    CLOSED = auto()


_WRITES: dict[type[StreamInput], State] = {
    TextAdded: State.WRITING,
    ReasoningAdded: State.WRITING,
    ToolCallStarted: State.CALLING,
}
_BREAKS: dict[type[StreamInput], State] = {Failure: State.CLOSED, Cancelled: State.CLOSED}
TRANSITIONS: dict[State, dict[type[StreamInput], State]] = {
    State.NEW: {Created: State.CREATED},
    State.CREATED: {Queued: State.QUEUED, InProgress: State.RUNNING},
    State.QUEUED: {InProgress: State.RUNNING, NotStored: State.QUEUED, **_BREAKS},
    State.RUNNING: {
        InProgress: State.RUNNING,
        NotStored: State.RUNNING,
        **_WRITES,
        End: State.CLOSED,
        **_BREAKS,
    },
    State.WRITING: {**_WRITES, NotStored: State.WRITING, End: State.CLOSED, **_BREAKS},
    State.CALLING: {
        ArgumentsAdded: State.CALLING,
        ToolCallEnded: State.WRITING,
        NotStored: State.CALLING,
        End: State.CLOSED,
        **_BREAKS,
    },
    State.CLOSED: {},
}


class Stream:
    """The events of one response, in order. A cue that is not in the table is our own mistake: it asserts."""

    def __init__(self, response: Response) -> None:
        """`response` as it is at the beginning: queued or in progress, no output."""
        self.response = response
        self.state = State.NEW
        self._number = itertools.count().__next__
        self._item: OpenItem | None = None

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED

    def feed(self, cue: StreamInput) -> list[Event]:
        state = TRANSITIONS[self.state].get(type(cue))
        assert state is not None, f"{type(cue).__name__} is not legal in state {self.state.name}"
        self.state = state
        return list(self._play(cue))

    def without_store(self, closing: Sequence[Event]) -> list[Event]:
        """Return the closing events of a response that could not be stored: the terminal one says so."""
        assert self.closed
        self.response = replace(self.response, store=False, conversation=UNSET)
        *others, last = closing
        return [*others, replace(last, response=self.response)]

    def _play(self, cue: StreamInput) -> Iterator[Event]:
        match cue:
            case Created():
                yield ResponseCreated(self._number(), self.response)
            case Queued():
                yield ResponseQueued(self._number(), self.response)
            case InProgress(progress):
                self.response = replace(self.response, status="in_progress")
                yield ResponseInProgress(self._number(), self.response, progress or UNSET)
            case NotStored():
                self.response = replace(self.response, store=False, conversation=UNSET)
            case TextAdded(text, logprobs):
                yield from self._continued(cue)
                yield from self._current.delta(text, logprobs)
            case ReasoningAdded(text):
                yield from self._continued(cue)
                yield from self._current.delta(text)
            case ToolCallStarted():
                yield from self._opened(cue)
            case ArgumentsAdded(text):
                yield from self._current.delta(text)
            case ToolCallEnded():
                yield from self._closed("completed")
            case End():
                yield from self._end(cue)
            case Cancelled(usage):
                yield from self._cancel(usage)
            case Failure(error, usage):
                yield from self._fail(error, usage)

    def _end(self, end: End) -> Iterator[Event]:
        """An answer without anything still has its message."""
        if self._item is None and not self.response.output:
            yield from self._opened(TextAdded(""))
        whole = end.incomplete is None and end.stop is None
        yield from self._closed("completed" if whole else "incomplete")
        if not whole:
            details = None if end.incomplete is None else IncompleteDetails(end.incomplete)
            self.response = replace(self.response, status="incomplete", incomplete_details=details, usage=end.usage)
            if end.stop is not None:
                self.response = replace(self.response, responsed=extended(self.response.responsed, stop=end.stop))
            yield ResponseIncomplete(self._number(), self.response)
        else:
            self.response = replace(self.response, status="completed", completed_at=end.now, usage=end.usage)
            yield ResponseCompleted(self._number(), self.response)

    def _cancel(self, usage: Usage | None) -> Iterator[Event]:
        """There is no event `response.cancelled`, in neither specification: it is incomplete, and the status tells."""
        yield from self._closed("incomplete")
        self.response = replace(self.response, status="cancelled", usage=usage)
        yield ResponseIncomplete(self._number(), self.response)

    def _fail(self, error: ErrorPayload, usage: Usage | None) -> Iterator[Event]:
        """The error, then `response.failed` (Open Responses, "Errors"). An item that was begun ends incomplete."""
        yield from self._closed("incomplete")
        info = ErrorInfo(error.code or error.type, error.message)
        self.response = replace(self.response, status="failed", error=info, usage=usage)
        yield Error(self._number(), error.message, error.code, error.param, error)
        yield ResponseFailed(self._number(), self.response)

    @property
    def _current(self) -> OpenItem:
        assert self._item is not None, "an item is open"
        return self._item

    def _continued(self, cue: Opening) -> Iterator[Event]:
        """The item of that kind, a new one where it is not open."""
        if not isinstance(self._item, kind_of(cue)):
            yield from self._opened(cue)

    def _opened(self, cue: Opening) -> Iterator[Event]:
        """The one before it has ended with that."""
        yield from self._closed("completed")
        stem = self.response.id.removeprefix("resp_")
        self._item = open_item(cue, stem, len(self.response.output), self._number)
        yield from self._item.added()

    def _closed(self, status: Outcome) -> Iterator[Event]:
        if self._item is None:
            return
        for event in self._item.done(status):
            if isinstance(event, OutputItemDone):
                self.response = replace(self.response, output=(*self.response.output, event.item))
            yield event
        self._item = None
