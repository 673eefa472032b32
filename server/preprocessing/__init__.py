"""From a body to all that generation needs: earlier items, references, tokens, constraints.

Imports `access`, `config`, `generation`, `http`, `mcp`, `postprocessing`, `prompt`, `prompt_comparison`, `protocol`,
`served_model`, `store`, `stream` and `work_thread`.
"""

from server.preprocessing.body_reader import BodyReader, DecodedBody
from server.preprocessing.entry_limits import EntryLimits
from server.preprocessing.generation_specs import SpecBuilder
from server.preprocessing.history import History, chain_items, conversation_not_found
from server.preprocessing.lanes import lane_of
from server.preprocessing.reasoning_seal import KEY_NAME, ReasoningSeal
from server.preprocessing.references import References
from server.preprocessing.request_reader import RequestReader
from server.preprocessing.requester import Requester

__all__ = [
    "KEY_NAME",
    "BodyReader",
    "DecodedBody",
    "EntryLimits",
    "History",
    "ReasoningSeal",
    "References",
    "RequestReader",
    "Requester",
    "SpecBuilder",
    "chain_items",
    "conversation_not_found",
    "lane_of",
]
