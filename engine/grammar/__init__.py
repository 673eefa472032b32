"""Builders and writers of grammar text; they compile nothing. Imports `json_schema` and the root."""

from engine.grammar.json_grammar import json_directive, json_grammar
from engine.grammar.json_patterns import text_pattern
from engine.grammar.json_strings import inside_json_string
from engine.grammar.lark import Rules, SchemaWriter, excluding, pattern, string_literal
from engine.grammar.lark_common import LARK_COMMON
from engine.grammar.portable import portable

__all__ = [
    "LARK_COMMON",
    "Rules",
    "SchemaWriter",
    "excluding",
    "inside_json_string",
    "json_directive",
    "json_grammar",
    "pattern",
    "portable",
    "string_literal",
    "text_pattern",
]
