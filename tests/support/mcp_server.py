"""An MCP server for tests, a process of its own: `python -m tests.support.mcp_server PORT`."""

import itertools
import sys
import time

import anyio
from mcp.server.mcpserver import MCPServer

server = MCPServer("calculator")
calls = itertools.count(1)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("it broke")


@server.tool()
def sleep(seconds: float) -> str:
    """Answers late."""
    time.sleep(seconds)
    return "awake"


@server.tool()
def shout(size: int) -> str:
    """Answers with a long text."""
    return "A" * size


@server.tool()
def count() -> int:
    """Counts its calls."""
    return next(calls)


@server.tool()
async def slow_count(seconds: float) -> int:
    """Counts its calls, late."""
    number = next(calls)
    await anyio.sleep(seconds)
    return number


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
