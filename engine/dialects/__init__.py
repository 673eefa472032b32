"""Model families: the notation, markers and reasoning tags of each.

Imports `grammar`, `json_schema`, `notations` and the root.
"""

from engine.dialects.call_grammar import MAX_CALLS
from engine.dialects.dialect import Dialect, ReasoningTags
from engine.dialects.families import detect_dialect, with_generic
from engine.dialects.parser import Parser

__all__ = [
    "MAX_CALLS",
    "Dialect",
    "Parser",
    "ReasoningTags",
    "detect_dialect",
    "with_generic",
]
