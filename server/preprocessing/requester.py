"""The client and the transport of a request, as the stages before generation see them."""

from typing import Protocol

from server.access import Caller
from server.generation import Origin


class Requester(Protocol):
    """Request of a client: an exchange of HTTP, or a message of a WebSocket."""

    @property
    def id(self) -> str:
        """Id of the request in the log."""

    @property
    def began(self) -> float:
        """Time at which the request was received, by `time.perf_counter`."""

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
    def fronts(self) -> tuple[str, ...]:
        """Names of the fronts that the request has passed."""

    @property
    def client_request_id(self) -> str: ...

    @property
    def transport(self) -> str:
        """Name of the transport in the log; empty for HTTP."""


def origin_of(requester: Requester, skipped: tuple[str, ...]) -> Origin:
    """Return the origin of a generation for the log. `skipped`: names that had no effect."""
    return Origin(
        requester.id,
        requester.client_name,
        requester.path,
        requester.caller.name,
        skipped,
        requester.trace_id,
        requester.client_request_id,
        requester.transport,
    )
