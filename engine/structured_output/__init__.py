"""Grammars at run time: the compiler, the tags that select a grammar, their assembly. Imports `dialects` and below."""

from engine.structured_output.assembly import GrammarAssembler, OutputGrammars
from engine.structured_output.compile_cache import CompileCache, K, V
from engine.structured_output.compiler import CompiledGrammar, GrammarCompiler
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag

__all__ = [
    "BareCallTrigger",
    "CompileCache",
    "CompiledGrammar",
    "GrammarAssembler",
    "GrammarCompiler",
    "K",
    "OutputGrammars",
    "ReasoningSpec",
    "StructuralTag",
    "Trigger",
    "V",
]
