"""State of the server at one time, for the metrics. Data only."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from engine.scheduler import Counters, EngineStats
from server.generation import GeneratingServer
from server.store import StoreUsage


class MetricsState(Struct, frozen=True):
    slots: int = 0
    queue: int = 0
    """Requests of each lane that may wait for a slot."""
    running: Mapping[str, int] = {}
    """Responses that have a slot, by lane."""
    waiting: Mapping[str, int] = {}
    """Responses that wait for a slot, by lane."""
    engine: EngineStats = Counters().snapshot()
    servers: Sequence[GeneratingServer] = ()
    """Other servers that generate."""
    store: StoreUsage | None = None
    """None if the server stores nothing, or if the store cannot be read."""
