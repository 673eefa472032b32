"""One response being made, and all of them. Imports `protocol`, `store` and `stream`."""

from server.generation.activity import ActivityCount
from server.generation.admission import AdmissionControl
from server.generation.generation import MISTAKE, STOPPING, Generation, GenerationSpec, Timeouts
from server.generation.registry import Generations

__all__ = [
    "MISTAKE",
    "STOPPING",
    "ActivityCount",
    "AdmissionControl",
    "Generation",
    "GenerationSpec",
    "Generations",
    "Timeouts",
]
