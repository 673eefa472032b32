"""Pure planning of steps: slots, prefix cache, step budget and drafts. Imports the engine's root only."""

from engine.scheduler.scheduler import Scheduler
from engine.scheduler.slots import Key
from engine.scheduler.step import Step

__all__ = [
    "Key",
    "Scheduler",
    "Step",
]
