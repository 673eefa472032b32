"""One request of a connection, as the stages before generation, the log and the metrics see it."""

import time

from server.access import Caller
from server.http import Exchange


class SessionTurn:
    """Request by a message, where HTTP has an Exchange. The connection's handshake identifies its client."""

    transport = "websocket"
    method = "WEBSOCKET"

    def __init__(self, handshake: Exchange, id_: str) -> None:
        self.id = id_
        self.began = time.perf_counter()
        self.path = handshake.path
        self.target = handshake.target
        self.route = handshake.route
        self.trace_id = handshake.trace_id
        self.fronts = handshake.fronts
        self.client_request_id = handshake.client_request_id
        self.status = 0
        """Status that the request would have over HTTP."""
        self.skipped: tuple[str, ...] = ()
        self.starts_generation = False
        """True if a generation logs the outcome."""
        self.refusal = ""
        """Reason of the error if the request has no response."""
        self.outcome = ""
        """Final status of the response, or code of the error."""
        self._handshake = handshake

    @property
    def caller(self) -> Caller:
        """Owner of the connection's key, whose settings may change meanwhile."""
        return self._handshake.caller

    @property
    def disconnect_reason(self) -> str:
        return self._handshake.disconnect_reason

    @property
    def client(self) -> str:
        return self._handshake.client

    @property
    def client_name(self) -> str:
        return self._handshake.client_name
