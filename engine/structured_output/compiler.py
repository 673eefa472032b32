"""Compile JSON schemas, Lark grammars and regexes with llguidance and compute token masks for a model's vocabulary.

A grammar is compiled once, in any thread, and each sequence starts its own constraint. The syntax is llguidance's
variant of Lark; `GrammarCompiler.json`, `.until` and `.token` write schemas and markers for its rules:

    start: thought answer
    thought: ...            until("thought", "</think>")
    answer: ...             json(schema)
"""

import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property, partial
from sys import getsizeof

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from engine.constraint import GrammarError
from engine.grammar import json_directive, json_grammar
from engine.json_schema import JSON, CheckedSchema, Schema, check, depth, faults
from engine.structured_output import exploration
from engine.structured_output.compile_cache import CompileCache
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.tokenizer import Vocabulary

MAX_CHARACTERS = 65_536
"""Characters of a grammar or a schema. Compiling as many takes a quarter of a second; twice as many take a second."""
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

# A state of the lexer takes 1 to 2 kB; a full lexer is replaced. /.*b/ in a quoted text takes 150,000 items over all
# tokens, and 15 ms; an optional property takes four items of a row. llguidance counts work, not time: 50,000 units of
# fuel take about 1 ms.
_LIMITS = LLParserLimits(
    max_lexer_states=50_000,
    step_lexer_fuel=5_000_000,
    max_grammar_size=100_000,
    max_items_in_row=8_000,
    step_max_items=1_000_000,
    verbose_errors=False,
)
_EXPLORED_LIMITS = LLParserLimits(
    max_lexer_states=50_000,
    step_lexer_fuel=1_000_000,
    max_grammar_size=100_000,
    max_items_in_row=5_000,
    step_max_items=500_000,
    verbose_errors=False,
)
"""Limits of a grammar that is explored. A token of an answer may take five times the work of any explored one."""


class GrammarCompiler:
    """Compiles grammars for one vocabulary. The first compilation takes 100 ms more, to index all tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled = CompileCache(self._compile, GrammarError, _compiled_size, MAX_COMPILED_BYTES)
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
        grammar = self._made(LLMatcher.grammar_from_lark(f"start: {rule}"), _EXPLORED_LIMITS)
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
        return self._compiled(LLMatcher.grammar_from_regex(pattern))

    def lark(self, text: str) -> CompiledGrammar:
        """Compile a Lark grammar. Raises GrammarError."""
        return self._compiled(LLMatcher.grammar_from_lark(text))

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

    def until(self, rule: str, marker: str) -> str:
        """Return a Lark rule for any text up to and including a marker, which may be a token's name."""
        token = self.token(marker)
        if token.startswith("<"):
            return f"{rule}: /(?s:.*)/ {token}"
        return f"{rule}[lazy]: /(?s:.*)/ {token}"

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

    def _compile(self, source: str) -> CompiledGrammar:
        if len(source) > MAX_CHARACTERS:
            raise GrammarError(f"it has {len(source)} characters; at most {MAX_CHARACTERS} are allowed")
        grammar = self._made(source, _LIMITS)
        first = grammar.start()
        first.compute_mask()  # most grammars that are too large or too deep fail here
        first.check()
        return grammar

    def _made(self, source: str, limits: LLParserLimits) -> CompiledGrammar:
        make = partial(LLMatcher, self._tokenizer, source, log_level=0, limits=limits)
        return CompiledGrammar(make, self._vocabulary, estimated_size(source), source)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        if not self._vocabulary.end_tokens:
            raise GrammarError("the model's file names no end token")
        return LLTokenizer(TokenizerWrapper(_Tokens(self._vocabulary)), eos_token=sorted(self._vocabulary.end_tokens))


class _Tokens:
    """A vocabulary with the attributes that llguidance's TokenizerWrapper reads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.end_tokens)
        self.bos_token_id = vocabulary.bos
        ids = range(len(vocabulary))
        self.special_token_ids = [id_ for id_ in ids if not vocabulary.bytes_of(id_)]
        self.tokens = [vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in ids]
        self._vocabulary = vocabulary

    def __call__(self, data: bytes) -> Sequence[int]:
        """Return the model's own tokens of a text. llguidance prefers them to other tokenizations."""
        return self._vocabulary.encode_bytes(data)


def estimated_size(text: str) -> int:
    """Return the estimated bytes of a compiled grammar.

    The schemas of a thousand real tools take 200 kB each and are estimated at 460 kB. Long constants, the costliest
    grammars found, take twice their estimate.
    """
    return 100_000 + 200 * len(text)


def _compiled_size(text: str, made: CompiledGrammar | None) -> int:
    return getsizeof(text) + (0 if made is None else made.size)


def _in_lark(checked: JSON) -> str:
    """Return the right side of a rule for a checked schema, with every escape in free texts."""
    return f"%lark {{\n{json_grammar(checked)}\n}}"


def _explored_size(key: tuple[str, bool], _: bool | None) -> int:
    return getsizeof(key[0])


def _written_size(schema: str, text: str | None) -> int:
    return getsizeof(schema) + getsizeof(text)
