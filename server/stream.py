"""THE state machine: text in -> events out. It owns numbers, indexes, ids and the final output.

Legal orders: Open Responses, "Streaming" ("Items are streamable"), and what openai-python's `responses.stream()`
insists on. An item opens, takes deltas, closes; items are never interleaved; exactly one terminal event ends it all.
What is not streamed is `response` after the last event.
"""

import itertools
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Literal

from msgspec.structs import replace

from server.errors import ApiError
from server.events import (
    ContentPartAdded,
    ContentPartDone,
    Error,
    ErrorInfo,
    ErrorPayload,
    Event,
    IncompleteDetails,
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
    Usage,
)


class State(Enum):
    NEW = auto()
    OPEN = auto()
    CLOSED = auto()


TRANSITIONS = {
    State.NEW: {"start": State.OPEN},
    State.OPEN: {"feed": State.OPEN, "finish": State.CLOSED, "fail": State.CLOSED},
    State.CLOSED: {},
}


class MessageItem:
    """A message with one text part."""

    def __init__(self, id_: str, output_index: int, number: Callable[[], int]) -> None:
        self._id = id_
        self._index = output_index
        self._number = number
        self._texts: list[str] = []

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, Message(self._id, "in_progress", ()))
        yield ContentPartAdded(self._number(), self._id, self._index, 0, OutputText(""))

    def delta(self, text: str) -> Iterator[Event]:
        self._texts.append(text)
        yield OutputTextDelta(self._number(), self._id, self._index, 0, text)

    def done(self, status: Literal["completed", "incomplete"]) -> Iterator[Event]:
        part = OutputText("".join(self._texts))
        yield OutputTextDone(self._number(), self._id, self._index, 0, part.text)
        yield ContentPartDone(self._number(), self._id, self._index, 0, part)
        yield OutputItemDone(self._number(), self._index, Message(self._id, status, (part,)))


class Stream:
    """The events of one response, in order. A call that is not in the table is our own mistake: it asserts."""

    def __init__(self, response: Response) -> None:
        """`response` as it is at the beginning: in progress, no output."""
        self.response = response
        self._state = State.NEW
        self._number = itertools.count().__next__
        self._item: MessageItem | None = None

    @property
    def closed(self) -> bool:
        return self._state is State.CLOSED

    def start(self) -> list[Event]:
        self._step("start")
        return [
            ResponseCreated(self._number(), self.response),
            ResponseInProgress(self._number(), self.response),
        ]

    def feed(self, text: str) -> list[Event]:
        self._step("feed")
        return [*self._opened(), *self._current.delta(text)]

    def finish(self, now: int, usage: Usage, incomplete: str | None = None) -> list[Event]:
        """End well, or, with `incomplete` its reason, early. An answer without text still has its message."""
        self._step("finish")
        events = [*self._opened(), *self._closed("incomplete" if incomplete else "completed")]
        if incomplete is not None:
            details = IncompleteDetails(incomplete)
            self.response = replace(self.response, status="incomplete", incomplete_details=details, usage=usage)
            return [*events, ResponseIncomplete(self._number(), self.response)]
        self.response = replace(self.response, status="completed", completed_at=now, usage=usage)
        return [*events, ResponseCompleted(self._number(), self.response)]

    def fail(self, error: ApiError) -> list[Event]:
        """End badly: the error, then `response.failed` (Open Responses, "Errors"). What was begun is left out."""
        self._step("fail")
        code = error.code or error.type
        payload = ErrorPayload(error.type, error.code, error.message, error.param)
        self.response = replace(self.response, status="failed", error=ErrorInfo(code, error.message))
        return [
            Error(self._number(), error.message, error.code, error.param, payload),
            ResponseFailed(self._number(), self.response),
        ]

    @property
    def _current(self) -> MessageItem:
        assert self._item is not None, "an item is open"
        return self._item

    def _step(self, call: str) -> None:
        allowed = TRANSITIONS[self._state]
        assert call in allowed, f"{call}() is not legal in state {self._state.name}"
        self._state = allowed[call]

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
