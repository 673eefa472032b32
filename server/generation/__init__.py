"""Generation of responses: one of them, their registry, admission, and heartbeats."""

from server.generation.activity import ActivityCount
from server.generation.admission import AdmissionControl
from server.generation.generation import INTERNAL_ERROR, STOPPING, Generation, GenerationSpec, Timeouts
from server.generation.registry import Generations
from server.generation.summary import GenerationSummary, Origin, notes

__all__ = [
    "INTERNAL_ERROR",
    "STOPPING",
    "ActivityCount",
    "AdmissionControl",
    "Generation",
    "GenerationSpec",
    "GenerationSummary",
    "Generations",
    "Origin",
    "Timeouts",
    "notes",
]
