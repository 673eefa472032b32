"""Grammar text in Lark, without a compiler. Imports `json_schema` and the root."""

from engine.grammar.json_grammar import brief, json_grammar
from engine.grammar.json_strings import quoted
from engine.grammar.lark import Notation, Rules, pattern, plain, without

__all__ = [
    "Notation",
    "Rules",
    "brief",
    "json_grammar",
    "pattern",
    "plain",
    "quoted",
    "without",
]
