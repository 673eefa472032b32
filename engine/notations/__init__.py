"""Readers and grammar writers of tool calls, one syntax each. Imports `grammar` and `json_schema`."""

from engine.notations.argument_schema import UNDECLARED, ArgumentSchema, argument_schema, is_plain
from engine.notations.call_format import GENERIC_FORMAT, OBJECT, CallFormat, Function, json_arguments
from engine.notations.element_writers import element_arguments
from engine.notations.elements import elements
from engine.notations.gemma import FUNCTION_GEMMA, GEMMA_4, gemma, gemma_arguments
from engine.notations.json_objects import (
    SEPARATORS,
    Offered,
    Read,
    bare_objects,
    begins_bare,
    keyed_objects,
    named_arguments,
    objects,
    objects_but,
)
from engine.notations.json_values import emit_arguments
from engine.notations.parsed import (
    ParsedDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    merged,
)
from engine.notations.python_calls import pythonic, pythonic_arguments
from engine.notations.scanner import ReaderSteps, Scanner, marks
from engine.notations.spelling import element_spelling, gemma_spelling, pythonic_spelling, tagged_spelling
from engine.notations.tagged_calls import Tags, tagged
from engine.notations.tagged_writers import tagged_arguments

__all__ = [
    "FUNCTION_GEMMA",
    "GEMMA_4",
    "GENERIC_FORMAT",
    "OBJECT",
    "SEPARATORS",
    "UNDECLARED",
    "ArgumentSchema",
    "CallFormat",
    "Function",
    "Offered",
    "ParsedDelta",
    "Read",
    "ReaderSteps",
    "ReasoningDelta",
    "Scanner",
    "Tags",
    "TextDelta",
    "ToolCallArguments",
    "ToolCallEnd",
    "ToolCallStart",
    "argument_schema",
    "bare_objects",
    "begins_bare",
    "element_arguments",
    "element_spelling",
    "elements",
    "emit_arguments",
    "gemma",
    "gemma_arguments",
    "gemma_spelling",
    "is_plain",
    "json_arguments",
    "keyed_objects",
    "marks",
    "merged",
    "named_arguments",
    "objects",
    "objects_but",
    "pythonic",
    "pythonic_arguments",
    "pythonic_spelling",
    "tagged",
    "tagged_arguments",
    "tagged_spelling",
]
