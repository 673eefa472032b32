"""The one place that sends."""

from collections.abc import Mapping
from typing import Any

import trio

from server.exchange import Exchange


async def test_an_answer_that_hypercorn_gives_by_itself_is_no_mistake_of_ours() -> None:
    """As it does where a client hangs up within a chunk of its body, just as it is refused."""

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        raise trio.BusyResourceError("another task is currently sending data on this SocketStream")

    scope = {"method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": (), "client": None}
    exchange = Exchange(scope, receive, send, "req_1")
    await exchange.answer(200, b"{}")
    assert exchange.status == 200
