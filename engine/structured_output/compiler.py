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
from functools import cached_property
from random import Random
from sys import getsizeof

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from engine.constraint import GrammarError
from engine.grammar import json_directive, json_grammar
from engine.json_schema import JSON, CheckedSchema, Schema, check, depth, faults
from engine.structured_output.compile_cache import CompileCache
from engine.structured_output.grammar_constraint import GrammarConstraint
from engine.tokenizer import Vocabulary

MAX_CHARACTERS = 65_536
"""Characters of a grammar or a schema. Compiling as many takes a quarter of a second; twice as many take a second."""
MAX_DEPTH = 100
"""Nested brackets in a schema. llguidance's JSON reader stops at 128 and adds some levels."""
MAX_WRITTEN_OUT = 8_192
"""Characters of a schema's grammar in which free texts have every escape. Larger schemas have the short escapes."""
MAX_COMPILED_BYTES = 64 << 20
"""Bytes of the cached compiled grammars."""
MAX_WRITTEN_BYTES = 16 << 20
"""Bytes of the cached grammar texts of schemas."""

# These are llguidance's defaults, except for memory (a state takes 1 to 2 kB) and items: /.*b/ in a quoted text takes
# 150,000 items over all tokens, and 15 ms; an optional property takes four items of a row. llguidance counts work, not
# time: 50,000 units of fuel take about 1 ms.
_LIMITS = LLParserLimits(
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    max_items_in_row=5_000,
    step_max_items=500_000,
    verbose_errors=False,
)

DRY_RUN_TOKENS = 32
"""Tokens of a dry run: enough to reach a text in a call's arguments, byte by byte."""
EXPLORED_TOKENS = 128
"""Random tokens that explore a schema's grammar."""
_ENDING = (b'"', b",", b":")
_MAX_EXPLORED = 100_000_000
"""Explored tokens times the bytes of the grammar: a token in a long constant takes 10 ms."""


class GrammarCompiler:
    """Compiles grammars for one vocabulary. The first compilation takes 100 ms more, to index all tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled = CompileCache(self._compile, GrammarError, _compiled_size, MAX_COMPILED_BYTES)
        self._written = CompileCache(self._write, GrammarError, _written_size, MAX_WRITTEN_BYTES)

    def with_short_escapes(self) -> "GrammarCompiler":
        """Return a compiler of shorter grammars, whose free texts have the short escapes only."""
        other = copy(self)
        other._written = CompileCache(
            lambda schema: json_directive(json.loads(schema)), GrammarError, _written_size, MAX_WRITTEN_BYTES
        )
        return other

    def json_schema(self, schema: JSON) -> "CompiledGrammar":
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
        """Return the error that would soon end an answer of a checked schema; None if exploring finds none."""
        try:
            self._compile_schema(checked).explore()
        except GrammarError as error:
            return error
        return None

    def _explore_error_in_object(self, checked: JSON) -> GrammarError | None:
        """Explore a part of a schema, alone and as a property: some patterns take more work beside names."""
        whole: Schema = {"type": "object", "properties": {"x": checked}, "required": ["x"]}
        if isinstance(checked, dict) and "$defs" in checked:
            whole["$defs"] = checked["$defs"]
        return self._explore_error(checked) or self._explore_error(whole)

    def _compile_schema(self, checked: JSON) -> "CompiledGrammar":
        """Compile a checked schema. Raises GrammarError."""
        return self.lark(f"start: {self._written(json.dumps(checked))}")

    def regex(self, pattern: str) -> "CompiledGrammar":
        """Compile a regex that the whole text must match. Raises GrammarError."""
        return self._compiled(LLMatcher.grammar_from_regex(pattern))

    def lark(self, text: str) -> "CompiledGrammar":
        """Compile a Lark grammar. Raises GrammarError."""
        return self._compiled(LLMatcher.grammar_from_lark(text))

    def json(self, schema: JSON) -> str:
        """Return the right side of a Lark rule for a schema. Raises GrammarError."""
        return self._written(json.dumps(self._checked(schema).schema))

    def _write(self, schema: str) -> str:
        """Return the grammar of a schema, with every escape in free texts if it is small enough."""
        checked: JSON = json.loads(schema)
        text = f"%lark {{\n{json_grammar(checked)}\n}}"
        if len(text) <= MAX_WRITTEN_OUT:
            with suppress(GrammarError):
                self.lark(f"start: {text}")
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

    def _compile(self, source: str) -> "CompiledGrammar":
        if len(source) > MAX_CHARACTERS:
            raise GrammarError(f"it has {len(source)} characters; at most {MAX_CHARACTERS} are allowed")
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=_LIMITS)
        first = GrammarConstraint(matcher.deep_copy(), len(self._vocabulary))
        first.compute_mask()  # most grammars that are too large or too deep fail here
        first.check()
        return CompiledGrammar(matcher, self._vocabulary, estimated_size(source))

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        if not self._vocabulary.end_tokens:
            raise GrammarError("the model's file names no end token")
        return LLTokenizer(TokenizerWrapper(_Tokens(self._vocabulary)), eos_token=sorted(self._vocabulary.end_tokens))


class CompiledGrammar:
    """See `engine.constraint`."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, size: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self.size = size
        """Estimated bytes."""
        self._explored = False

    def start(self) -> GrammarConstraint:
        return GrammarConstraint(self._matcher.deep_copy(), len(self._vocabulary))

    def dry_run(self, n_tokens: int = DRY_RUN_TOKENS) -> None:
        """Accept some tokens, to find faults that a grammar shows only then. Raises GrammarError."""
        constraint = self.start()
        for _ in range(n_tokens):
            if (token := constraint.last_allowed(self._vocabulary.end_tokens)) is None:
                return
            constraint.accept(token)
        constraint.compute_mask()
        constraint.check()

    def explore(self) -> None:
        """Accept the tokens of a dry run, then random tokens. Raises GrammarError.

        Half of the random tokens end a text or a number, which leads to the next value.
        """
        if self._explored:
            return
        max_tokens = _MAX_EXPLORED // self.size
        self.dry_run(min(DRY_RUN_TOKENS, max_tokens))
        random, constraint, ends = Random(0), self.start(), self._vocabulary.end_tokens
        ending = np.array([token for mark in _ENDING for token in self._vocabulary.encode_bytes(mark)])
        for _ in range(min(EXPLORED_TOKENS, max_tokens)):
            allowed = constraint.allowed(ends)
            found = ending[allowed[ending]] if random.random() < 0.5 else ending[:0]
            if not found.size:
                found = np.flatnonzero(allowed)
            if found.size:
                constraint.accept(int(random.choice(found)))
            else:
                constraint = self.start()
        constraint.compute_mask()
        constraint.check()
        self._explored = True

    def started_with(self, data: bytes) -> GrammarConstraint | None:
        """Return a constraint that has accepted `data`; None if the grammar forbids it."""
        constraint, ids = self.start(), self._vocabulary.encode_bytes(data)
        encoded = b"".join(map(self._vocabulary.bytes_of, ids))
        return constraint if encoded == data and all(map(constraint.try_accept, ids)) else None

    def after_marker(self, data: bytes) -> GrammarConstraint | None:
        """Return a constraint after a marker, given the rest of the token that ended it. White space belongs to the
        marker if the grammar forbids it."""
        return self.started_with(data) or self.started_with(data.lstrip())


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


def _written_size(schema: str, text: str | None) -> int:
    return getsizeof(schema) + getsizeof(text)
