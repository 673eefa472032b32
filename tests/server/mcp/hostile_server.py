"""MCP server that answers one method with any bytes, in the test's own process; the others as it should."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import h11
import trio

Attack: TypeAlias = Callable[[trio.SocketStream, Any], Awaitable[None]]
"""Function of the connection and the id of the request; it sends the answer."""
TOOL = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object", "properties": {}}}


async def _request(stream: trio.SocketStream) -> tuple[bytes, bytes | None]:
    """Return method and body of a request; no body if the connection has ended before."""
    wire = h11.Connection(h11.SERVER)
    verb, body = b"", b""
    while not isinstance(event := wire.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
        if event is h11.NEED_DATA:
            wire.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            verb = event.method
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
    return verb, body if isinstance(event, h11.EndOfMessage) else None


@asynccontextmanager
async def hostile(method: str, attack: Attack, session: str = "") -> AsyncIterator[str]:
    """Serve, and yield the URL. `session`: id of a session whose end is never answered."""

    async def connected(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):  # the client left
            verb, body = await _request(stream)
            if verb == b"DELETE":
                await trio.sleep_forever()
            if body is not None:
                await answer(stream, json.loads(body or b"{}"))

    async def answer(stream: trio.SocketStream, message: dict[str, Any]) -> None:
        if message.get("method") == method:
            await attack(stream, message.get("id"))
        elif "id" not in message or "method" not in message:
            await send(stream, b"", "202 Accepted")
        else:
            headers = [f"Mcp-Session-Id: {session}"] if session else []
            await send(stream, encode(message["id"], **_result(message)), "200 OK", *headers)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, connected, 0)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/mcp"
        nursery.cancel_scope.cancel()


def _result(message: dict[str, Any]) -> dict[str, Any]:
    match message["method"]:
        case "initialize":
            version = message["params"]["protocolVersion"]
            info = {"name": "hostile", "version": "1"}
            return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
        case "tools/list":
            return {"result": {"tools": [TOOL]}}
        case "tools/call":
            return {"result": {"content": [{"type": "text", "text": "ok"}]}}
    return {"error": {"code": -32601, "message": "Method not found"}}


def encode(id_: Any, **fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, **fields}).encode()


async def send(stream: trio.SocketStream, body: bytes, status: str = "200 OK", *headers: str) -> None:
    """Send an answer, and close the connection."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}"]
    if not any(header.startswith("Content-Type") for header in headers):
        lines.append("Content-Type: application/json")
    await stream.send_all("\r\n".join([*lines, *headers, "", ""]).encode() + body)
    await stream.aclose()
