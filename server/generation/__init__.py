"""One response being made, and all of them. Imports `protocol`, `store` and `stream`."""

from server.generation.activity import Busy
from server.generation.admission import Gate
from server.generation.generation import MISTAKE, STOPPING, Generation, Order, Patience
from server.generation.registry import Generations

__all__ = [
    "MISTAKE",
    "STOPPING",
    "Busy",
    "Gate",
    "Generation",
    "Generations",
    "Order",
    "Patience",
]
