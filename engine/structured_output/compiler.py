"""Compile JSON schemas, Lark grammars and regexes for a model's vocabulary; write schemas and markers for Lark's rules.

A grammar is compiled once, in any thread, and each sequence starts its own constraint. The syntax is llguidance's
variant of Lark.
"""

import itertools
import json
from contextlib import suppress
from copy import copy
from sys import getsizeof

from engine.constraint import GrammarError
from engine.grammar import json_directive, json_grammar
from engine.json_schema import JSON, CheckedSchema, Schema, check, depth, faults
from engine.structured_output import exploration
from engine.structured_output.compile_cache import CompileCache
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.source_compiler import SourceCompiler, lark_source, regex_source
from engine.tokenizer import Vocabulary

MAX_DEPTH = 100
"""Nested brackets in a schema. llguidance's JSON reader stops at 128 and adds some levels."""
MAX_WRITTEN_OUT = 32_768
"""Characters of a schema's grammar in which free texts have every escape. Larger schemas have the short escapes."""
MAX_COMPILED_BYTES = 64 << 20
"""Bytes of the cached compiled grammars."""
MAX_WRITTEN_BYTES = 16 << 20
"""Bytes of the cached grammar texts of schemas."""
MAX_EXPLORED_BYTES = 4 << 20
"""Bytes of the schemas that were explored."""


class GrammarCompiler:
    """Compiles grammars for one vocabulary, and caches them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._sources = SourceCompiler(vocabulary)
        self._compiled = CompileCache(self._sources.compile, GrammarError, _compiled_size, MAX_COMPILED_BYTES)
        self._written = CompileCache(self._write, GrammarError, _written_size, MAX_WRITTEN_BYTES)
        self._explored = CompileCache(self._explore, GrammarError, _explored_size, MAX_EXPLORED_BYTES)

    def with_short_escapes(self) -> "GrammarCompiler":
        """Return a compiler of shorter grammars, whose free texts have the short escapes only."""
        other = copy(self)
        other._written = CompileCache(
            lambda schema: json_directive(json.loads(schema)), GrammarError, _written_size, MAX_WRITTEN_BYTES
        )
        return other

    def json_schema(self, schema: JSON) -> CompiledGrammar:
        """Compile a schema. Raises GrammarError with the place of the faulty keyword."""
        checked = self._checked(schema)
        if (error := self._compile_error(checked.schema)) is not None:
            raise GrammarError(str(error), faults.place_of(checked, self._compile_error)) from error
        if (error := self._explore_error(checked.schema)) is not None:
            place = faults.place_of(checked, self._explore_error_in_object, faults.AROUND)
            raise GrammarError(str(error), place) from error
        return self._compile_schema(checked.schema)

    def relaxed(self, schema: JSON) -> CheckedSchema:
        """Return the schema without the keywords that cannot be enforced. Raises GrammarError if it is too deep."""
        compiled = faults.relaxed(self._checked(schema, relaxed=True), self._compile_error)
        return faults.relaxed(compiled, self._explore_error_in_object, faults.AROUND)

    def _checked(self, schema: JSON, relaxed: bool = False) -> CheckedSchema:
        """Check a schema. Raises GrammarError."""
        if depth(schema) > MAX_DEPTH:
            raise GrammarError(f"the schema is nested deeper than {MAX_DEPTH} levels")
        return check.checked(schema, relaxed)

    def _compile_error(self, checked: JSON) -> GrammarError | None:
        """Return the error of compiling a checked schema; None if it compiles."""
        try:
            self._compile_schema(checked)
        except GrammarError as error:
            return error
        return None

    def _explore_error(self, checked: JSON) -> GrammarError | None:
        """Return the error that would end an answer of a checked schema; None if exploring finds none."""
        try:
            self._explore_texts(checked, has_all_escapes=self._written(json.dumps(checked)).startswith("%lark"))
            if exploration.is_risky(checked):
                self._explored((self._written(json.dumps(checked)), False))
        except GrammarError as error:
            return error
        return None

    def _explore_texts(self, checked: JSON, has_all_escapes: bool) -> None:
        """Explore the costly texts of a schema. Raises GrammarError."""
        for text in exploration.bounded_texts(checked):
            self._explored((_in_lark(text) if has_all_escapes else json_directive(text), True))

    def _explore(self, key: tuple[str, bool]) -> bool:
        """Explore a grammar, given with "is of a text". Raises GrammarError."""
        rule, is_text = key
        grammar = self._sources.compile_for_exploration(lark_source(f"start: {rule}"))
        explore = exploration.explore_text if is_text else exploration.explore
        explore(grammar, self._vocabulary)
        return True

    def _explore_error_in_object(self, checked: JSON) -> GrammarError | None:
        """Explore a part of a schema, alone and as a property: some patterns take more work beside names."""
        whole: Schema = {"type": "object", "properties": {"x": checked}, "required": ["x"]}
        if isinstance(checked, dict) and "$defs" in checked:
            whole["$defs"] = checked["$defs"]
        return self._explore_error(checked) or self._explore_error(whole)

    def _compile_schema(self, checked: JSON) -> CompiledGrammar:
        """Compile a checked schema. Raises GrammarError."""
        return self.lark(f"start: {self._written(json.dumps(checked))}")

    def regex(self, pattern: str) -> CompiledGrammar:
        """Compile a regex that the whole text must match. Raises GrammarError."""
        return self._compiled(regex_source(pattern))

    def lark(self, text: str) -> CompiledGrammar:
        """Compile a Lark grammar. Raises GrammarError."""
        return self._compiled(lark_source(text))

    def json(self, schema: JSON) -> str:
        """Return the right side of a Lark rule for a schema. Raises GrammarError."""
        return self._written(json.dumps(self._checked(schema).schema))

    def _write(self, schema: str) -> str:
        """Return the grammar of a schema, with every escape in free texts if it is small enough."""
        checked: JSON = json.loads(schema)
        text = _in_lark(checked)
        if len(text) <= MAX_WRITTEN_OUT:
            with suppress(GrammarError):
                self.lark(f"start: {text}")
                self._explore_texts(checked, has_all_escapes=True)
                return text
        return json_directive(checked)

    def token(self, text: str) -> str:
        """Return a control token, given by its name, or else the literal text for the right side of a Lark rule."""
        id_ = self._vocabulary.control_id(text)
        return json.dumps(text, ensure_ascii=False) if id_ is None else f"<[{id_}]>"

    def literal(self, text: str) -> str:
        """Return the right side of a Lark rule for a text that may contain names of control tokens."""
        names = self._vocabulary.control.findall(text)
        texts = self._vocabulary.control.split(text)
        pieces = itertools.chain(*itertools.zip_longest(texts, names, fillvalue=""))
        return " ".join(self.token(piece) for piece in pieces if piece)


def _compiled_size(text: str, made: CompiledGrammar | None) -> int:
    return getsizeof(text) + (0 if made is None else made.size)


def _in_lark(checked: JSON) -> str:
    """Return the right side of a rule for a checked schema, with every escape in free texts."""
    return f"%lark {{\n{json_grammar(checked)}\n}}"


def _explored_size(key: tuple[str, bool], _: bool | None) -> int:
    return getsizeof(key[0])


def _written_size(schema: str, text: str | None) -> int:
    return getsizeof(schema) + getsizeof(text)
