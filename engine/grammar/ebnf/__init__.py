"""Lark grammars in the EBNF of XGrammar, which SGLang's default backend reads. Imports `grammar` and `json_schema`."""

from engine.grammar.ebnf.writer import MAX_EBNF, ebnf

__all__ = ["MAX_EBNF", "ebnf"]
