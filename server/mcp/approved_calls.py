"""Calls that users have approved: each is made once, even if its approval is sent again, as clients do that retry.

The store remembers the calls, so that a crash or a restart repeats none; of responses that are not stored, only that
they were made. The memory of this run has the last results too.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256

import trio

from server.protocol.builtin_calls import McpCall, McpHTTPError
from server.protocol.response import Response
from server.store import LOST_RESULT, AsyncStore, StoreError
from server.stream import INTERRUPTED, McpCallFinished, result_of_approved_call

MAX_REMEMBERED = 1024
"""Maximum number of calls in memory."""
OUR_ID = re.compile(r"mcpr_[0-9a-f]{32}\d{2,}")
"""Id of an approval request that a response of this server has. It cannot be guessed; an id that a client made may
stand for any call."""
LOST = McpHTTPError(
    409,
    "The call was made before, by a response that is not stored, so its output is lost: ask for the call again, and "
    "approve the new request.",
)
log = logging.getLogger("responsed.mcp")


class _Execution:
    def __init__(self) -> None:
        self.ended = trio.Event()
        self.result = McpCallFinished(None, INTERRUPTED)


class ApprovedCalls:
    def __init__(self, store: AsyncStore | None) -> None:
        self._store = store
        self._calls: dict[str, _Execution] = {}

    async def make(
        self, call: McpCall, response: Response, execute: Callable[[], Awaitable[McpCallFinished]]
    ) -> McpCallFinished:
        """Execute the call of a response, or return the result of its first execution, once that has ended."""
        if OUR_ID.fullmatch(call.approval_request_id or "") is None:
            return await execute()
        key = _key(call)
        if (known := self._calls.get(key)) is not None:
            await known.ended.wait()
            return known.result
        made = self._calls[key] = _Execution()
        try:
            made.result = await self._earlier_result(key, call, response) or await execute()
        finally:
            made.ended.set()
            if len(self._calls) > MAX_REMEMBERED:
                del self._calls[next(iter(self._calls))]
        return made.result

    async def _earlier_result(self, key: str, call: McpCall, response: Response) -> McpCallFinished | None:
        """Return the result of a call that an earlier run has made; otherwise store that this response makes it."""
        if self._store is None:
            return None
        owner = response.id if response.store else None
        try:
            inputs = await self._store.run(self._store.responses.calls.claim, key, owner)
        except StoreError as error:
            log.warning("%s: the start of an MCP call cannot be stored: %s", response.id, error)
            return None
        if inputs is None:
            return None
        assert call.approval_request_id is not None, "only approved calls come here"
        if inputs == LOST_RESULT:
            return McpCallFinished(None, LOST)
        return result_of_approved_call(inputs, call.approval_request_id) or McpCallFinished(None, INTERRUPTED)


def _key(call: McpCall) -> str:
    """Return the identity of an approved call, without its arguments: a client may send others with the same id."""
    parts = (call.approval_request_id or "", call.server_label, call.name, call.arguments)
    return sha256("\0".join(parts).encode()).hexdigest()
