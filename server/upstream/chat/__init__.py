"""The chat form: upstreams answer chat completions, and their output is verified here.

`UpstreamModel` makes the jobs of `ChatModel`, and `ask` runs one at an upstream: `ChatReader` makes inputs of the
stream machine of its chunks, under the checks of `output_checks`. `Probe` finds out which fields an upstream lacks.
"""

from server.upstream.chat.answer import ask
from server.upstream.chat.model import OPENAI_DEFAULTS, UpstreamModel
from server.upstream.chat.probe import Probe

__all__ = [
    "OPENAI_DEFAULTS",
    "Probe",
    "UpstreamModel",
    "ask",
]
