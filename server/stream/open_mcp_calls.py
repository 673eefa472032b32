"""Items of MCP servers while they stream; this server executes the calls, so each stays open until it returns. Pure."""

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec.structs import replace

from server.protocol.builtin_calls import (
    McpApprovalRequest,
    McpCall,
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
    McpCallCompleted,
    McpCallFailed,
    McpCallInProgress,
    McpHTTPError,
    McpListTools,
    McpListToolsCompleted,
    McpListToolsFailed,
    McpListToolsInProgress,
)
from server.protocol.events import Event, OutputItemAdded, OutputItemDone
from server.protocol.output_items import Logprob
from server.stream.inputs import McpCallFinished, McpListStarted, McpToolsListed, ToolCallStarted
from server.stream.open_item import NextNumber, Opening, Outcome

LIST_INTERRUPTED = "The list was interrupted: the next request asks for it again."
INTERRUPTED = McpHTTPError(500, "The call was interrupted: it may have had an effect, or none.")


class OpenMcpCall:
    """Call that this server executes."""

    prefix = "mcp"

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        approval = input_.approval_request_id if isinstance(input_, ToolCallStarted) else None
        self.call = McpCall(id_, *_label_and_name(input_), "", "in_progress", approval_request_id=approval)
        """The call so far."""
        self.pending = False
        """True once its arguments are complete, until its output is."""

    @property
    def silent(self) -> bool:
        """True while the call is executed, which may take minutes."""
        return self.pending

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, self.call)
        yield McpCallInProgress(self._number(), self._index, self.call.id)

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        yield McpCallArgumentsDelta(self._number(), self._index, self.call.id, text)

    def arguments_done(self) -> Iterator[Event]:
        """Return the event after which the call waits for its output."""
        self.pending = True
        self.call = replace(self.call, arguments="".join(self._texts))
        yield McpCallArgumentsDone(self._number(), self._index, self.call.id, self.call.arguments)

    def finish(self, finished: McpCallFinished) -> None:
        status: Literal["completed", "failed"] = "completed" if finished.error is None else "failed"
        self.call = replace(self.call, output=finished.output, error=finished.error, status=status)

    def done(self, status: Outcome) -> Iterator[Event]:
        executed = self.pending
        if not executed:
            yield from self.arguments_done()
        self.pending = False
        if self.call.status == "in_progress":  # cut, or its execution was interrupted
            self.call = replace(self.call, status="incomplete", error=INTERRUPTED if executed else None)
        else:
            kind = McpCallCompleted if self.call.status == "completed" else McpCallFailed
            yield kind(self._number(), self._index, self.call.id)
        yield OutputItemDone(self._number(), self._index, self.call)


class OpenMcpApproval:
    """Request for the approval of a call. The specification has no events for its arguments."""

    prefix = "mcpr"
    silent = True

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        self._index = output_index
        self._number = number
        self._texts: list[str] = []
        self._request = McpApprovalRequest(id_, *_label_and_name(input_), "")

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, self._request)

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._texts.append(text)
        yield from ()

    def done(self, status: Outcome) -> Iterator[Event]:
        request = replace(self._request, arguments="".join(self._texts))
        yield OutputItemDone(self._number(), self._index, request)


class OpenMcpList:
    """List of a server's tools, which this server asks for."""

    prefix = "mcpl"
    silent = True

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        assert isinstance(input_, McpListStarted | McpToolsListed), "only these inputs open a list"
        self._index = output_index
        self._number = number
        self._item = McpListTools(id_, input_.server_label, ())

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, self._item)
        yield McpListToolsInProgress(self._number(), self._index, self._item.id)

    def finish(self, listed: McpToolsListed) -> None:
        self._item = replace(self._item, tools=listed.tools)

    def fail(self, error: str) -> None:
        self._item = replace(self._item, error=error)

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        yield from ()

    def done(self, status: Outcome) -> Iterator[Event]:
        if status == "incomplete" and self._item.error is None:
            self.fail(LIST_INTERRUPTED)
        kind = McpListToolsCompleted if self._item.error is None else McpListToolsFailed
        yield kind(self._number(), self._index, self._item.id)
        yield OutputItemDone(self._number(), self._index, self._item)


def _label_and_name(input_: Opening) -> tuple[str, str]:
    assert isinstance(input_, ToolCallStarted), "only this input opens a call"
    return input_.namespace or "", input_.name
