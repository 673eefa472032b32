"""Grammars at run time: the compiler, and which grammar applies when. Imports `grammar`, `notations` and below."""

from engine.structured_output.compile_cache import K, Memory, V
from engine.structured_output.compiler import Grammar, Grammars
from engine.structured_output.specs import Beginning, Thought, Trigger
from engine.structured_output.structural_tag import Phases

__all__ = [
    "Beginning",
    "Grammar",
    "Grammars",
    "K",
    "Memory",
    "Phases",
    "Thought",
    "Trigger",
    "V",
]
