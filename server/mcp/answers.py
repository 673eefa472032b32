"""HTTP responses of an MCP server: their size, encoding and status, which the package `mcp` hides."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from server.protocol.builtin_calls import McpHTTPError

MAX_ANSWER_BYTES = 1_000_000
"""Bytes of all answers of one operation."""


class UnusableAnswer(Exception):
    """The answers of an operation are too large or compressed."""


class Answers:
    """Hook of a connection's answers."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self._left = MAX_ANSWER_BYTES
        self.unusable: McpHTTPError | None = None
        """Reason for the end of the operation."""
        self.refusal: McpHTTPError | None = None
        """Status of the last request, unless that succeeded."""

    async def __call__(self, response: Any) -> None:
        if response.request.method == "POST":
            status = response.status_code
            redirect = " Redirects are not followed." if status < 400 else ""
            message = f"The MCP server answered with status {status}.{redirect}"
            self.refusal = McpHTTPError(status, message) if status >= 300 else None
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self._end("The MCP server's answer is compressed, which was not asked for.")
        response.stream = self._limited(response.stream)

    def _end(self, message: str) -> UnusableAnswer:
        self.unusable = McpHTTPError(502, message)
        return UnusableAnswer(message)

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._end(f"The MCP server's answer is larger than {MAX_ANSWER_BYTES} bytes.")

    def _limited(self, whole: Any) -> Any:
        """Return a stream that bounds the bytes of all answers together."""
        count = self._count

        class LimitedStream(self._http.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                async with aclosing(whole.__aiter__()) as chunks:
                    async for chunk in chunks:
                        count(len(chunk))
                        yield chunk

            async def aclose(self) -> None:
                await whole.aclose()

        return LimitedStream()
