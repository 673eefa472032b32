"""One operation of the API. Data only."""

from typing import Any

from msgspec import Struct


class Operation(Struct, frozen=True):
    """One method of a path."""

    method: str
    path: str
    id: str
    summary: str
    answer: Any = None
    """Struct or name of a component; None for plain text."""
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    events: Any = None
    """Struct or name of a component for the data of SSE events, if the answer may be a stream."""
    switches: bool = False
    """True if the connection switches to another protocol."""
