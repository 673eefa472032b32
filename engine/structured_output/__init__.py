"""Grammars at run time: the compiler, the tags that select a grammar, their assembly.

Imports `dialects`, `grammar`, `json_schema`, `notations`, `tokenizer` and the root.
"""

from engine.structured_output.assembly import GrammarAssembler, OutputGrammars
from engine.structured_output.compile_cache import CompileCache, K, V
from engine.structured_output.specs import ReasoningSpec
from engine.structured_output.structural_tag import StructuralTag

__all__ = [
    "CompileCache",
    "GrammarAssembler",
    "K",
    "OutputGrammars",
    "ReasoningSpec",
    "StructuralTag",
    "V",
]
