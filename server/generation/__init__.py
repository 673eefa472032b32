"""Generation of responses: one of them, their registry, admission, and heartbeats."""

from server.generation.activity import ActivityCount
from server.generation.admission import AdmissionControl
from server.generation.failures import STOPPING, as_api_error, stopping
from server.generation.generation import Generation
from server.generation.generator import GeneratingServer, Generator, GeneratorJob
from server.generation.registry import Generations
from server.generation.spec import GenerationSpec, NextStage, Stage, Timeouts
from server.generation.summary import EarlierPrompt, GenerationSummary, Origin, notes
from server.generation.timings import output_rate

__all__ = [
    "STOPPING",
    "ActivityCount",
    "AdmissionControl",
    "EarlierPrompt",
    "GeneratingServer",
    "Generation",
    "GenerationSpec",
    "GenerationSummary",
    "Generations",
    "Generator",
    "GeneratorJob",
    "NextStage",
    "Origin",
    "Stage",
    "Timeouts",
    "as_api_error",
    "notes",
    "output_rate",
    "stopping",
]
