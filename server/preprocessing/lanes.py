"""The lane of a request. Pure."""

from engine.job import Lane
from server.access import Caller
from server.protocol.request import Request


def lane_of(request: Request, caller: Caller) -> Lane:
    """Return the batch lane for background and flex requests, and for keys of that lane."""
    batch = caller.is_batch or request.background or request.service_tier == "flex"
    return Lane.BATCH if batch else Lane.INTERACTIVE
