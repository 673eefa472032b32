"""The loaded model and the constraints of its output. Imports `http`, `prompt`, `protocol` and `tools`."""

from server.served_model.model import RENDERINGS, Models, Served
from server.served_model.output_constraints import FREE, Hold

__all__ = [
    "FREE",
    "RENDERINGS",
    "Hold",
    "Models",
    "Served",
]
