"""Connection to an MCP server over streamable HTTP, by the package `mcp`, which is imported on first use.

Each operation has a connection of its own, so that a broken one costs one operation.
Redirects are not followed, and time and size of an answer are limited.
"""

import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import Raw, Struct

from server.mcp.answers import Answers
from server.mcp.conversation_items import names_fault
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
CLOSE_SECONDS = 1.0
"""Seconds for the end of the session with a server, after a result."""
LIST_SECONDS = 15.0
"""Seconds for the connection to a server and the list of its tools."""
LACKS_PACKAGE = "This server lacks the package `mcp`: the operator installs it by pip install 'responsed[mcp]'."
MAX_TOOLS = 512
"""Tools of a server."""
PARSE_ERROR, INVALID_REQUEST, INTERNAL_ERROR = -32700, -32600, -32603
"""JSON-RPC's codes, which the package also uses for answers that are not JSON-RPC, redirects, and other statuses."""

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
    call_seconds: float
    """Seconds for one call."""

    async def tools(self) -> tuple[McpListedTool, ...]:
        """Return the server's tools. Raises McpFailure."""
        return await _within(LIST_SECONDS, self._tools)

    async def call(self, name: str, arguments: str) -> McpCallFinished:
        """Call a tool with arguments, a JSON object as text; failures are results too."""
        try:
            values = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            return McpCallFinished(
                None, McpProtocolError(INVALID_PARAMS, f"The arguments are not a JSON object: {error}.")
            )
        try:
            return await _within(self.call_seconds, partial(self._call, name, values))
        except McpFailure as failure:
            return McpCallFinished(None, failure.error)

    async def _tools(self) -> tuple[McpListedTool, ...]:
        found: list[McpListedTool] = []
        cursor = None
        async with _connected(self) as client:
            while True:
                page = await client.list_tools(cursor=cursor)
                found += map(_listed, page.tools)
                if (fault := names_fault(found)) is not None:
                    raise McpFailure(McpHTTPError(502, f"The MCP server has {fault}."))
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
    log.debug("MCP: %s", type(error).__name__)  # its text may have content of an answer
    if isinstance(error, McpFailure):
        return error.error
    if isinstance(error, ImportError):
        return McpHTTPError(501, LACKS_PACKAGE)
    if type(error).__name__ == "ValidationError":
        return McpHTTPError(502, "The MCP server's answer is not of the form that the Model Context Protocol demands.")
    inner: Any = getattr(error, "error", None)
    if isinstance(getattr(inner, "code", None), int):
        if inner.code == PARSE_ERROR:
            return McpProtocolError(PARSE_ERROR, "The MCP server's answer is not valid JSON-RPC.")
        return McpProtocolError(inner.code, str(inner.message)[:500])
    return McpHTTPError(502, f"The MCP server cannot be used ({type(error).__name__}).")


def _explained(error: Exception, answers: Answers) -> Exception:
    """Return the failure of an operation with what its answers say about it, which the package hides."""
    found = _described(error)
    if answers.unusable is not None:
        return McpFailure(answers.unusable)
    vague = isinstance(found, McpHTTPError) or found.code in (INTERNAL_ERROR, INVALID_REQUEST)
    return error if answers.refusal is None or not vague else McpFailure(answers.refusal)


@cache
def _certificates(http: Any) -> Any:
    """Return the system's certificates, which are read once."""
    return http.create_ssl_context(trust_env=False)


@asynccontextmanager
async def _connected(server: McpClient) -> AsyncIterator[Any]:
    """Yield the package's client. The result stands when the block ends, however long the session takes to end."""
    mcp = importlib.import_module("mcp")
    transports = importlib.import_module("mcp.client.streamable_http")
    http = importlib.import_module("httpx2")
    answers = Answers(http)
    headers = {**server.headers, "Accept-Encoding": "identity"}  # a small answer must not become a large one
    timeout = http.Timeout(10, read=max(LIST_SECONDS, server.call_seconds))
    hooks = {"response": [answers]}
    try:
        with trio.CancelScope() as closing:
            async with (
                http.AsyncClient(
                    headers=headers,
                    follow_redirects=False,
                    max_redirects=0,  # the package follows those that stay on the server's host
                    timeout=timeout,
                    event_hooks=hooks,
                    verify=_certificates(http),
                    trust_env=False,
                ) as connection,
                mcp.Client(transports.streamable_http_client(server.url, http_client=connection), cache=None) as client,
            ):
                yield client
                closing.deadline = trio.current_time() + CLOSE_SECONDS
    except Exception as error:
        raise _explained(error, answers) from error
