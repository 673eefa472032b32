"""The state machine of a stream: inputs -> events. It assigns sequence numbers, and builds the response.

Legal orders follow Open Responses, "Streaming" ("Items are streamable"), and openai-python's `responses.stream()`. An
item opens, receives deltas and closes; items do not interleave; exactly one terminal event ends the stream. A
non-streaming request gets `response` after the last event.
"""

import itertools
from collections.abc import Iterator, Sequence
from enum import Enum, auto

from msgspec import UNSET
from msgspec.structs import replace

from server.protocol.builtin_calls import McpCall
from server.protocol.events import (
    Error,
    ErrorPayload,
    Event,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
)
from server.protocol.response import ErrorInfo, IncompleteDetails, Response, Usage, with_facts
from server.stream.cache_diagnostics import with_evictions
from server.stream.inputs import (
    ArgumentsAdded,
    Cancelled,
    Created,
    End,
    Failure,
    InProgress,
    ItemInput,
    McpCallFinished,
    McpListStarted,
    McpToolsListed,
    NotStored,
    PromptMade,
    Queued,
    ReasoningAdded,
    ReasoningSealed,
    ResponseInput,
    StreamInput,
    SummaryAdded,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from server.stream.open_item import Outcome
from server.stream.output import ResponseOutput


class State(Enum):
    NEW = auto()
    CREATED = auto()
    QUEUED = auto()
    RUNNING = auto()
    """No item has begun."""
    WRITING = auto()
    CALLING = auto()
    LISTING = auto()
    """An MCP server is asked for its tools."""
    CLOSED = auto()


_OPENS_ITEM: dict[type[StreamInput], State] = {
    TextAdded: State.WRITING,
    ReasoningAdded: State.WRITING,
    SummaryAdded: State.WRITING,
    ToolCallStarted: State.CALLING,
    McpListStarted: State.LISTING,
    McpToolsListed: State.WRITING,
}
_ABORTS: dict[type[StreamInput], State] = {Failure: State.CLOSED, Cancelled: State.CLOSED}
TRANSITIONS: dict[State, dict[type[StreamInput], State]] = {
    State.NEW: {Created: State.CREATED},
    State.CREATED: {Queued: State.QUEUED, InProgress: State.RUNNING},
    State.QUEUED: {InProgress: State.RUNNING, NotStored: State.QUEUED, **_ABORTS},
    State.RUNNING: {
        InProgress: State.RUNNING,
        NotStored: State.RUNNING,
        **_OPENS_ITEM,
        End: State.CLOSED,
        **_ABORTS,
    },
    State.WRITING: {
        **_OPENS_ITEM,
        ReasoningSealed: State.WRITING,
        McpCallFinished: State.WRITING,
        PromptMade: State.WRITING,
        NotStored: State.WRITING,
        End: State.CLOSED,
        **_ABORTS,
    },
    State.CALLING: {
        ArgumentsAdded: State.CALLING,
        ToolCallEnded: State.WRITING,
        NotStored: State.CALLING,
        End: State.CLOSED,
        **_ABORTS,
    },
    State.LISTING: {McpToolsListed: State.WRITING, NotStored: State.LISTING, **_ABORTS},
    State.CLOSED: {},
}


class Stream:
    """Events of one response, in order. An input that the table does not allow is our own error: it asserts."""

    def __init__(self, response: Response) -> None:
        """Begin with a response that is queued or in progress and has no output."""
        self.response = response
        self.state = State.NEW
        self._number = itertools.count().__next__
        self._output = ResponseOutput(response, self._number)

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED

    @property
    def silent(self) -> bool:
        """True if no item is open, or if the open one has no events until it is complete."""
        return self._output.silent

    @property
    def waits_for_server(self) -> bool:
        """True while an MCP server executes a call or lists its tools."""
        return self.state is State.LISTING or self.pending_call is not None

    @property
    def pending_call(self) -> McpCall | None:
        """Call of an MCP tool that waits for its execution."""
        return self._output.pending_call

    def feed(self, input_: StreamInput) -> list[Event]:
        state = TRANSITIONS[self.state].get(type(input_))
        assert state is not None, f"{type(input_).__name__} is not legal in state {self.state.name}"
        self.state = state
        if not isinstance(input_, ItemInput):
            return list(self._response_events(input_))
        events = list(self._output.events(input_))
        self._add_items()
        return events

    def without_store(self, closing: Sequence[Event]) -> list[Event]:
        """Return the closing events for a response that could not be stored; the terminal one reports that."""
        assert self.closed
        self.response = replace(self.response, store=False, conversation=UNSET)
        *others, last = closing
        return [*others, replace(last, response=self.response)]

    def _response_events(self, input_: ResponseInput) -> Iterator[Event]:
        match input_:
            case Created():
                yield ResponseCreated(self._number(), self.response)
            case Queued():
                yield ResponseQueued(self._number(), self.response)
            case InProgress(progress):
                self.response = replace(self.response, status="in_progress")
                yield ResponseInProgress(self._number(), self.response, progress or UNSET)
            case NotStored():
                self.response = replace(self.response, store=False, conversation=UNSET)
            case PromptMade():
                self._add_facts(input_)
            case End():
                yield from self._end(input_)
            case Cancelled(usage):
                yield from self._cancel(usage)
            case Failure(error, usage, fault):
                yield from self._fail(error, usage, fault)

    def _end(self, end: End) -> Iterator[Event]:
        """Close the stream. An empty output becomes an empty message, unless no token was generated (`prewarm`)."""
        if self._output.empty and end.usage.output_tokens:
            yield from self._output.open(TextAdded(""))
        self.response = with_evictions(self.response, end.usage)
        complete = end.incomplete is None and end.stop is None
        yield from self._close_output("completed" if complete else "incomplete")
        if not complete:
            details = None if end.incomplete is None else IncompleteDetails(end.incomplete)
            self.response = replace(self.response, status="incomplete", incomplete_details=details, usage=end.usage)
            if end.stop is not None:
                self.response = with_facts(self.response, stop=end.stop)
            yield ResponseIncomplete(self._number(), self.response)
        else:
            self.response = replace(self.response, status="completed", completed_at=end.now, usage=end.usage)
            yield ResponseCompleted(self._number(), self.response)

    def _cancel(self, usage: Usage | None) -> Iterator[Event]:
        """Close with `response.incomplete` and status `cancelled`; no specification has an event for it."""
        yield from self._close_output("incomplete")
        self.response = replace(self.response, status="cancelled", usage=usage)
        yield ResponseIncomplete(self._number(), self.response)

    def _fail(self, error: ErrorPayload, usage: Usage | None, fault: str | None) -> Iterator[Event]:
        """Close with `error` and `response.failed` (Open Responses, "Errors"); an open item ends incomplete."""
        self._output.fail_list(error.message)
        yield from self._close_output("incomplete")
        info = ErrorInfo(error.code or error.type, error.message)
        self.response = replace(self.response, status="failed", error=info, usage=usage)
        if fault is not None:
            self.response = with_facts(self.response, fault=fault)
        yield Error(self._number(), error.message, error.code, error.param, error)
        yield ResponseFailed(self._number(), self.response)

    def _add_facts(self, made: PromptMade) -> None:
        if made.unenforced:
            self.response = with_facts(self.response, unenforced=made.unenforced)
        if made.cache is not None:
            self.response = with_facts(self.response, cache=made.cache)
        if made.diagnostics is not None:
            self.response = replace(self.response, prompt_cache_diagnostics=made.diagnostics)

    def _close_output(self, status: Outcome) -> Iterator[Event]:
        yield from self._output.close(status)
        self._add_items()

    def _add_items(self) -> None:
        """Add the items that have closed to the response."""
        if len(self._output.items) > len(self.response.output):
            self.response = replace(self.response, output=self._output.items)
