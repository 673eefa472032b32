"""The model that answers: its interface, the loaded model behind it, and the constraints of its output."""

from server.served_model.embedded import EmbeddedModel, ModelDetails
from server.served_model.interface import AnsweringModel, JobParams, ModelCard, ModelSource, Prompt, check_name
from server.served_model.model import LoadedModel, ServedModel
from server.served_model.output_constraints import UNCONSTRAINED, OutputConstraints
from server.served_model.token_prompt import TokenPrompt

__all__ = [
    "UNCONSTRAINED",
    "AnsweringModel",
    "EmbeddedModel",
    "JobParams",
    "LoadedModel",
    "ModelCard",
    "ModelDetails",
    "ModelSource",
    "OutputConstraints",
    "Prompt",
    "ServedModel",
    "TokenPrompt",
    "check_name",
]
