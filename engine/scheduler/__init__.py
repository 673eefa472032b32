"""Planning of steps: slots, reuse of prefixes, step budget and drafts. Imports `prefix_cache` and the root."""

from engine.scheduler.scheduler import Scheduler
from engine.scheduler.slots import Key
from engine.scheduler.stats import Counters, EngineStats, Histogram, Times
from engine.scheduler.step import PrefixCopy, PrefixRestore, PrefixSave, Step, Transfer
from engine.scheduler.thread_governor import ThreadGovernor

__all__ = [
    "Counters",
    "EngineStats",
    "Histogram",
    "Key",
    "PrefixCopy",
    "PrefixRestore",
    "PrefixSave",
    "Scheduler",
    "Step",
    "ThreadGovernor",
    "Times",
    "Transfer",
]
