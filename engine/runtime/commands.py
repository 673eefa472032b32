"""The commands of the inference thread."""

from typing import TypeAlias

from msgspec import Struct

from engine.job import Job
from engine.prefix_cache import CachedRun
from engine.scheduler import Key


class Submit(Struct, frozen=True):
    """Start a job."""

    key: Key
    job: Job


class Cancel(Struct, frozen=True):
    """Stop a job."""

    key: Key


class Adopt(Struct, frozen=True):
    """Put a run of the last process into the prefix cache."""

    run: CachedRun


class Adopting(Struct, frozen=True):
    """Announce whether further runs of the last process follow."""

    active: bool


class Drop(Struct, frozen=True):
    """Forget the cached tokens of an affinity group, or of all that may be on the disk: a stored response was
    deleted."""

    group: str | None


class LimitSteps(Struct, frozen=True):
    """Set the seconds of the longest step; see `scheduler.step_budget`."""

    seconds: float


Command: TypeAlias = Submit | Cancel | Adopt | Adopting | Drop | LimitSteps | None
"""A command for the thread; None ends it."""
