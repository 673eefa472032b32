"""Lark grammars in the EBNF of XGrammar, which SGLang's default backend reads. Pure."""

from engine.grammar.ebnf.writer import MAX_EBNF, ebnf

__all__ = ["MAX_EBNF", "ebnf"]
