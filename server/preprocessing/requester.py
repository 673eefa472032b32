"""The client and the transport of a request, as the stages before generation see them."""

from typing import Protocol

from server.access import Caller


class Requester(Protocol):
    """Request of a client: an exchange of HTTP, or a message of a WebSocket."""

    @property
    def id(self) -> str:
        """Id of the request in the log."""

    @property
    def path(self) -> str: ...

    @property
    def client(self) -> str:
        """Identity of the client."""

    @property
    def client_name(self) -> str:
        """Name of the client in the log."""

    @property
    def caller(self) -> Caller: ...

    @property
    def trace_id(self) -> str:
        """Trace id of the caller; empty if it gives none."""

    @property
    def client_request_id(self) -> str: ...

    @property
    def transport(self) -> str:
        """Name of the transport in the log; empty for HTTP."""
