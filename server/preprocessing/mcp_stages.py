"""Stages of a generation whose model calls MCP tools: each call is executed, and the model goes on with its output."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from server.generation import Stage
from server.mcp import call_item
from server.prompt import PreparedRequest
from server.protocol.builtin_calls import McpCall
from server.protocol.response import Response

MAX_CALLS = 32
"""Calls of a response if the request has no `max_tool_calls`."""
NextJob: TypeAlias = Callable[[PreparedRequest], Awaitable[Stage]]
"""Function that returns the stage that continues a prepared request."""


class McpStages:
    def __init__(self, prepared: PreparedRequest, next_job: NextJob) -> None:
        self._prepared = prepared
        self._next_job = next_job
        self._left = prepared.request.max_tool_calls or MAX_CALLS

    async def follow(self, response: Response, call: McpCall | None) -> Stage | None:
        """Execute the call, and return the stage that answers with its output; None if no call waits."""
        session, continued = self._prepared.mcp, self._prepared.continued
        if call is None or session is None or continued is None:
            return None
        self._left -= 1
        result = await session.call(call.server_label, call.name, call.arguments)
        items = [Raw(msgspec.json.encode(item)) for item in response.output]
        items.append(call_item(call.id, call.server_label, call.name, call.arguments, result))
        prepared = _after_call(continued(session.shown(items)), calls=self._left > 0)
        stage = await self._next_job(prepared)
        return replace(stage, inputs=(result,), adds_usage=True, follow=self.follow)


def _after_call(prepared: PreparedRequest, calls: bool) -> PreparedRequest:
    """Return the request for the model's next words: it need not call a tool again, and without `calls` it cannot."""
    toolbox = prepared.toolbox
    specs = toolbox.specs if calls else ()
    return replace(prepared, toolbox=replace(toolbox, choice="auto" if calls else "none", specs=specs))
