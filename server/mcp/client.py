"""Connection to an MCP server over streamable HTTP, by the package `mcp`, which is imported on first use.

Each operation has a connection of its own, so that a broken one costs one operation.
Redirects are not followed, and time and size of an answer are limited.
"""

import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import Raw, Struct

from server.protocol.builtin_calls import (
    McpExecutionError,
    McpHTTPError,
    McpListedTool,
    McpProtocolError,
)
from server.stream import McpCallFinished

T = TypeVar("T")
INVALID_PARAMS = -32602
"""JSON-RPC's code for wrong arguments."""
LIST_SECONDS = 15.0
"""Seconds for the connection to a server and the list of its tools."""
CALL_SECONDS = 120.0
"""Seconds for one call."""
MAX_ANSWER_BYTES = 1_000_000
"""Bytes of all answers of one operation."""
LACKS_PACKAGE = "This server lacks the package `mcp`: the operator installs it by pip install 'responsed[mcp]'."
MAX_TOOLS = 512
"""Tools of a server."""

log = logging.getLogger("responsed.mcp")


class McpFailure(Exception):
    """The server could not be reached, or its answer cannot be used."""

    def __init__(self, error: McpHTTPError | McpProtocolError) -> None:
        super().__init__(error.message)
        self.error = error


class McpClient(Struct, frozen=True):
    """One server, with the headers that a request sends to it. They are secrets: never log or store them."""

    url: str
    headers: Mapping[str, str]

    async def tools(self) -> tuple[McpListedTool, ...]:
        """Return the server's tools. Raises McpFailure."""
        return await _within(LIST_SECONDS, self._tools)

    async def call(self, name: str, arguments: str) -> McpCallFinished:
        """Call a tool with arguments, a JSON object as text; failures are results too."""
        try:
            values = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            return McpCallFinished(
                None, McpProtocolError(INVALID_PARAMS, f"The arguments are no JSON object: {error}.")
            )
        try:
            return await _within(CALL_SECONDS, partial(self._call, name, values))
        except McpFailure as failure:
            return McpCallFinished(None, failure.error)

    async def _tools(self) -> tuple[McpListedTool, ...]:
        found: list[McpListedTool] = []
        cursor = None
        async with _connected(self) as client:
            while True:
                page = await client.list_tools(cursor=cursor)
                found += map(_listed, page.tools)
                if len(found) > MAX_TOOLS:
                    raise McpFailure(McpHTTPError(502, f"The MCP server has more than {MAX_TOOLS} tools."))
                cursor = page.next_cursor
                if cursor is None:
                    break
        return tuple(found)

    async def _call(self, name: str, arguments: dict[str, Any]) -> McpCallFinished:
        async with _connected(self) as client:
            return _result(await client.call_tool(name, arguments))


async def _within(seconds: float, operation: Callable[[], Awaitable[T]]) -> T:
    """Return the result of an operation on a server. Raises McpFailure."""
    try:
        with trio.fail_after(seconds):
            return await operation()
    except trio.TooSlowError:
        raise McpFailure(McpHTTPError(504, f"The MCP server did not answer within {seconds:g} s.")) from None
    except Exception as error:
        raise McpFailure(_described(error)) from error


def _listed(tool: Any) -> McpListedTool:
    annotations = tool.annotations
    return McpListedTool(
        tool.name,
        Raw(msgspec.json.encode(tool.input_schema)),
        tool.description,
        None if annotations is None else Raw(annotations.model_dump_json(exclude_none=True, by_alias=True).encode()),
    )


def _result(result: Any) -> McpCallFinished:
    parts = [part.model_dump(mode="json", exclude_none=True, by_alias=True) for part in result.content]
    texts = [str(part["text"]) if part.get("type") == "text" else f"[{part.get('type')}]" for part in parts]
    if not result.is_error:
        return McpCallFinished("\n".join(texts))
    return McpCallFinished(None, McpExecutionError(tuple(Raw(msgspec.json.encode(part)) for part in parts)))


def _described(error: Exception) -> McpHTTPError | McpProtocolError:
    """Return the error for a failure of the connection or of the protocol, without addresses or headers."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    log.debug("MCP: %r", error)
    if isinstance(error, McpFailure):
        return error.error
    if isinstance(error, ImportError):
        return McpHTTPError(501, LACKS_PACKAGE)
    if isinstance(error, _TooLarge):
        return McpHTTPError(502, f"The MCP server's answer is larger than {MAX_ANSWER_BYTES} bytes.")
    inner: Any = getattr(error, "error", None)
    if isinstance(getattr(inner, "code", None), int):
        return McpProtocolError(inner.code, str(inner.message)[:500])
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return McpHTTPError(status, f"The MCP server answered with status {status}.")
    return McpHTTPError(502, f"The MCP server cannot be used ({type(error).__name__}).")


class _TooLarge(Exception):
    """The answers of an operation are too large."""


@asynccontextmanager
async def _connected(server: McpClient) -> AsyncIterator[Any]:
    mcp = importlib.import_module("mcp")
    transports = importlib.import_module("mcp.client.streamable_http")
    http = importlib.import_module("httpx2")
    async with (
        http.AsyncClient(
            headers=dict(server.headers),
            follow_redirects=False,
            timeout=http.Timeout(10, read=CALL_SECONDS),
            event_hooks={"response": [_limit(http)]},
            trust_env=False,
        ) as connection,
        mcp.Client(transports.streamable_http_client(server.url, http_client=connection), cache=None) as client,
    ):
        yield client


def _limit(http: Any) -> Callable[[Any], Awaitable[None]]:
    """Return a hook that bounds the bytes of all answers of a connection together."""
    left = MAX_ANSWER_BYTES

    class LimitedStream(http.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal left
            async with aclosing(self._stream.__aiter__()) as chunks:
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        raise _TooLarge
                    yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def limit(response: Any) -> None:
        response.stream = LimitedStream(response.stream)

    return limit
