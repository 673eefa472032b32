"""`GET /v1/responses`: WebSocket mode."""

from collections.abc import Callable

from server.http import Exchange
from server.session import Responder, Session, SessionTurn
from server.websocket import WebSocketLimits


class WebSocketHandler:
    def __init__(
        self,
        responder: Responder,
        limits: WebSocketLimits,
        authorize: Callable[[Exchange], None],
        record: Callable[[SessionTurn, float], None],
    ) -> None:
        """`authorize` raises ApiError if the key of a handshake is no longer valid; `record` logs a request."""
        self._responder = responder
        self.limits = limits
        self._authorize = authorize
        self._record = record

    async def connect(self, exchange: Exchange) -> None:
        socket = await exchange.accept_websocket(self.limits)
        session = Session(socket, exchange, self._responder, lambda: self._authorize(exchange), self._record)
        exchange.outcome = f"closed {await session.run()}"
