"""Readers and grammar writers of tool calls, one syntax each. Imports `grammar` and `json_schema`."""

from engine.notations.argument_schema import UNDECLARED, Declared, declared
from engine.notations.call_format import GENERIC_FORM, OBJECT, Form, Function, Write, is_plain, json_arguments
from engine.notations.element_writers import element_arguments
from engine.notations.elements import elements
from engine.notations.gemma import FUNCTION_GEMMA, GEMMA_4, gemma
from engine.notations.gemma_writers import gemma_arguments
from engine.notations.json_objects import (
    BETWEEN,
    Offered,
    Read,
    bare_objects,
    begins_bare,
    keyed_objects,
    named,
    objects,
    telling,
)
from engine.notations.parameter_writers import pythonic_arguments, tagged_arguments
from engine.notations.parameters import Tags, pythonic, tagged
from engine.notations.parsed import Arguments, CallBegun, CallEnded, Reasoned, Said, Utterance, merged
from engine.notations.scanner import Reading, Scanner, marks

__all__ = [
    "BETWEEN",
    "FUNCTION_GEMMA",
    "GEMMA_4",
    "GENERIC_FORM",
    "OBJECT",
    "UNDECLARED",
    "Arguments",
    "CallBegun",
    "CallEnded",
    "Declared",
    "Form",
    "Function",
    "Offered",
    "Read",
    "Reading",
    "Reasoned",
    "Said",
    "Scanner",
    "Tags",
    "Utterance",
    "Write",
    "bare_objects",
    "begins_bare",
    "declared",
    "element_arguments",
    "elements",
    "gemma",
    "gemma_arguments",
    "is_plain",
    "json_arguments",
    "keyed_objects",
    "marks",
    "merged",
    "named",
    "objects",
    "pythonic",
    "pythonic_arguments",
    "tagged",
    "tagged_arguments",
    "telling",
]
