"""Stages of a generation with MCP servers: lists of their tools, and calls, after which the model continues with the
output."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from server.generation import GenerationSpec, NextStage, Stage
from server.mcp import call_item
from server.postprocessing import Processor
from server.prompt import McpServers, PreparedRequest
from server.protocol.builtin_calls import McpCall, McpHTTPError
from server.protocol.errors import InvalidRequest
from server.protocol.response import Response
from server.stream import McpCallFinished, McpListStarted, StreamInput
from server.work_thread import WorkThread

T = TypeVar("T")
MAX_CALLS = 32
"""Calls of a response if the request has no `max_tool_calls`."""
TOO_LONG = McpHTTPError(413, "The tool's output is too long for the model's context: ask the tool for less.")
NextJob: TypeAlias = Callable[[PreparedRequest, int], Awaitable[Stage]]
"""Function that returns the stage that continues a prepared request, and the number of tokens written before."""
FirstStage: TypeAlias = Callable[[PreparedRequest, int], Awaitable[Stage]]
"""Function that returns the first stage of a prepared request after a number of approved calls."""


class McpStages:
    def __init__(
        self,
        prepared: PreparedRequest,
        processor: Processor,
        next_job: NextJob,
        work: WorkThread,
        made: int = 0,
    ) -> None:
        """`processor`: of the first job. `made`: calls that the response has made."""
        assert prepared.mcp, "a request with a call has servers"
        self._prepared = prepared
        self._session = prepared.mcp
        self._next_job = next_job
        self._work = work
        self._processor = processor
        self._written = 0
        """Tokens of all jobs: `max_output_tokens` limits them together."""
        self._left = (prepared.request.max_tool_calls or MAX_CALLS) - made

    async def follow(self, response: Response, call: McpCall | None) -> Stage | None:
        """Execute the call, and return the stage that answers with its output; None if no call waits."""
        if call is None:
            return None
        self._left -= 1
        self._written += self._processor.output_tokens
        called = await self._session.call(call, response)
        result, stage = await _fitting(called, partial(self._stage, response, call))
        self._processor = stage.processor
        return replace(stage, inputs=(result,), adds_usage=True, follow=self.follow)

    async def _stage(self, response: Response, call: McpCall, result: McpCallFinished) -> Stage:
        """Return the stage that answers with the result of a call. Raises InvalidRequest if that is too long."""
        items = [Raw(msgspec.json.encode(item)) for item in response.output]
        items.append(call_item(call.id, call.server_label, call.name, call.arguments, result))
        prepared = await _continued(self._work, self._prepared, self._session, items)
        return await self._next_job(after_call(prepared, calls=self._left > 0), self._written)


class ListStages:
    """Stages of a response that begins with lists of MCP servers' tools, one after another."""

    def __init__(
        self, prepared: PreparedRequest, spec: GenerationSpec, first_stage: FirstStage, work: WorkThread
    ) -> None:
        """`spec`: of a job that does not run."""
        assert prepared.mcp, "a request with a list has servers"
        self._prepared = prepared
        self._session = prepared.mcp
        self._spec = spec
        self._first_stage = first_stage
        self._work = work

    @property
    def inputs(self) -> tuple[StreamInput, ...]:
        """Inputs that begin the next list; none after the last one."""
        return tuple(map(McpListStarted, self._session.unlisted[:1]))

    async def follow(self, response: Response, call: McpCall | None) -> Stage:
        """Wait for the list that has begun, and return the stage after it. Raises ConnectorFailed.

        The prompt is made in a further step, so that the list's end is sent before it, and whatever it raises.
        """
        if not self._session.unlisted:
            return await self._after_lists()
        listed = await self._session.list_tools()
        self._session = self._session.with_list(listed)
        return self._without_job((listed, *self.inputs), self.follow)

    async def _after_lists(self) -> Stage:
        """Return the stage of the request that has all its tools. Raises InvalidRequest."""
        prepared = await _continued(self._work, self._prepared, self._session)
        if self._session.approved:
            calls = ApprovedStages(prepared, self._first_stage, self._work)
            return self._without_job(self._session.approved[0], calls.follow)
        return await self._first_stage(prepared, 0)

    def _without_job(self, inputs: tuple[StreamInput, ...], follow: NextStage) -> Stage:
        return Stage(job=self._spec.job, processor=self._spec.processor, inputs=inputs, runs=False, follow=follow)


class ApprovedStages:
    """Stages of calls that the user has approved, one after another, before the model's first job."""

    def __init__(self, prepared: PreparedRequest, first_stage: FirstStage, work: WorkThread) -> None:
        assert prepared.mcp, "a request with a call has servers"
        self._prepared = prepared
        self._session = prepared.mcp
        self._first_stage = first_stage
        self._work = work
        self._made = 0

    async def follow(self, response: Response, call: McpCall | None) -> Stage:
        """Execute the call, and return the stage that follows it."""
        assert call, "these stages begin with a call"
        self._made += 1
        called = await self._session.call(call, response)
        result, (self._session, stage) = await _fitting(called, partial(self._stage, call))
        return replace(stage, inputs=(result, *stage.inputs))

    async def _stage(self, call: McpCall, result: McpCallFinished) -> tuple[McpServers, Stage]:
        """Return the servers with the result of a call, and the stage after it. Raises InvalidRequest."""
        session = self._session.with_result(call, result)
        prepared = await _continued(self._work, self._prepared, session)
        limit = prepared.request.max_tool_calls or MAX_CALLS
        stage = await self._first_stage(after_call(prepared, calls=self._made < limit), self._made)
        if session.approved:  # the stage has shown that the result fits
            stage = replace(stage, inputs=session.approved[0], runs=False, follow=self.follow)
        return session, stage


async def _fitting(
    result: McpCallFinished, stage: Callable[[McpCallFinished], Awaitable[T]]
) -> tuple[McpCallFinished, T]:
    """Return the result of a call, or an error in its place if it is too long, and its stage."""
    try:
        return result, await stage(result)
    except InvalidRequest as error:
        if error.code != "context_length_exceeded":
            raise
    result = McpCallFinished(None, TOO_LONG)
    return result, await stage(result)


async def _continued(
    work: WorkThread, prepared: PreparedRequest, session: McpServers, items: Sequence[Raw] = ()
) -> PreparedRequest:
    """Return the request with its servers at present, and with further items after its input."""
    assert prepared.continued, "a request with servers can go on"
    size = sum(len(message.content) for message in prepared.messages)
    return await work.run(size, prepared.continued, session, items)


def after_call(prepared: PreparedRequest, calls: bool) -> PreparedRequest:
    """Return the request for the model's next words: it need not call a tool again, and without `calls` it cannot."""
    toolbox = prepared.toolbox
    specs = toolbox.specs if calls else ()
    return replace(prepared, toolbox=replace(toolbox, choice="auto" if calls else "none", specs=specs))
