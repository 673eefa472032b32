"""Model families: the notation, markers and reasoning tags of each. Imports `grammar` and `notations`."""

from engine.dialects.call_grammar import MOST_CALLS
from engine.dialects.dialect import Dialect, Parser, Think
from engine.dialects.families import detect_dialect, with_generic

__all__ = [
    "MOST_CALLS",
    "Dialect",
    "Parser",
    "Think",
    "detect_dialect",
    "with_generic",
]
