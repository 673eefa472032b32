"""Grammar text in Lark, without a compiler. Imports `json_schema` and the root."""

from engine.grammar.json_grammar import brief, json_grammar
from engine.grammar.json_strings import inside_json_string
from engine.grammar.lark import Notation, Rules, excluding, pattern, string_literal

__all__ = [
    "Notation",
    "Rules",
    "brief",
    "excluding",
    "inside_json_string",
    "json_grammar",
    "pattern",
    "string_literal",
]
