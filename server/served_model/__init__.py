"""The loaded model and the constraints of its output. Imports `http`, `prompt`, `protocol` and `tools`."""

from server.served_model.model import RENDERINGS, ModelDetails, ServedModel
from server.served_model.output_constraints import UNCONSTRAINED, OutputConstraints

__all__ = [
    "RENDERINGS",
    "UNCONSTRAINED",
    "ModelDetails",
    "OutputConstraints",
    "ServedModel",
]
