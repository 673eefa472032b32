"""The inference thread and its trio side.

Imports `platform`, `prefix_cache`, `sampling`, `scheduler` and the root.
"""

from engine.runtime.engine import Engine, EngineStopped
from engine.runtime.kv_snapshots import Snapshots

__all__ = [
    "Engine",
    "EngineStopped",
    "Snapshots",
]
