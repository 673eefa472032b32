"""What the next token may be, over llguidance: JSON schemas, Lark grammars and regexes, on a model's own vocabulary.

A grammar is compiled once, in any thread, and started by each sequence. Lark is llguidance's variant of it; in its
rules, `GrammarCompiler.json`, `.until` and `.token` put schemas and markers together:

    start: thought answer
    thought: ...            until("thought", "</think>")
    answer: ...             json(schema)
"""

import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
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

MOST_CHARACTERS = 65_536
"""Of a grammar or a schema. One of so many takes a quarter of a second to compile; twice as many, a whole one."""
MOST_DEPTH = 100
"""Of brackets in a schema; llguidance's reader of JSON ends at 128, and puts some around."""
MOST_WRITTEN_OUT = 8_192
"""Characters of one schema's grammar in which free texts have every escape; in a larger one, the short escapes."""
MOST_COMPILED = 64 << 20
MOST_WRITTEN = 16 << 20
"""Bytes of the compiled grammars, and of the texts of schemas, for which another request may ask."""

# llguidance counts work, not time: 50,000 units of fuel are about a millisecond. Its own limits, but for memory, as a
# state takes 1 to 2 kB; and for items: /.*b/ in a quoted text takes 150,000 over all tokens, and 15 ms. An optional
# property is four items of a row.
_LIMITS = LLParserLimits(
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    max_items_in_row=5_000,
    step_max_items=500_000,
    verbose_errors=False,
)

STEPS = 32
"""Of a grammar that is tried: enough to come to a text in a call's arguments, byte for byte."""
DRAWS = 128
"""Tokens drawn from a schema that is tried."""
_ENDING = (b'"', b",", b":")
_MOST_TRIED = 100_000_000
"""Steps of a schema that is tried, times the bytes of its grammar: a step in a long constant takes 10 ms."""

ANY_OBJECT: JSON = {"type": "object"}


class GrammarCompiler:
    """A vocabulary's compiler. What it does first takes 100 ms more: it learns all tokens by heart."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled = CompileCache(self._compile, GrammarError, _compiled_size, MOST_COMPILED)
        self._written = CompileCache(self._write, GrammarError, _written_size, MOST_WRITTEN)

    def json_schema(self, schema: JSON) -> "CompiledGrammar":
        """What `schema` accepts, to the letter. Raises GrammarError, with the place."""
        accepted = self._accepted(schema)
        if (error := self._refusal(accepted.schema)) is not None:
            raise GrammarError(str(error), faults.place_of(accepted, self._refusal)) from error
        if (error := self._fault(accepted.schema)) is not None:
            place = faults.place_of(accepted, self._fault_in_object, faults.AROUND)
            raise GrammarError(str(error), place) from error
        return self._of_schema(accepted.schema)

    def relaxed(self, schema: JSON) -> CheckedSchema:
        """Leave out the keywords that can't be enforced. Raises GrammarError where no part can be."""
        accepted = faults.relaxed(self._accepted(schema, relaxed=True), self._refusal)
        return faults.relaxed(accepted, self._fault_in_object, faults.AROUND)

    def _accepted(self, schema: JSON, relaxed: bool = False) -> CheckedSchema:
        """Raises GrammarError."""
        if depth(schema) > MOST_DEPTH:
            raise GrammarError(f"the schema is nested deeper than {MOST_DEPTH} levels")
        return check.checked(schema, relaxed)

    def _refusal(self, accepted: JSON) -> GrammarError | None:
        """Return the error that refuses a schema."""
        try:
            self._of_schema(accepted)
        except GrammarError as error:
            return error
        return None

    def _fault(self, accepted: JSON) -> GrammarError | None:
        """Return the error that ends an answer of a schema soon."""
        try:
            self._of_schema(accepted).explore()
        except GrammarError as error:
            return error
        return None

    def _fault_in_object(self, accepted: JSON) -> GrammarError | None:
        """The same for a part of a schema, alone or as a property: some patterns take more work beside names."""
        whole: Schema = {"type": "object", "properties": {"x": accepted}, "required": ["x"]}
        if isinstance(accepted, dict) and "$defs" in accepted:
            whole["$defs"] = accepted["$defs"]
        return self._fault(accepted) or self._fault(whole)

    def _of_schema(self, accepted: JSON) -> "CompiledGrammar":
        """Raises GrammarError."""
        return self.lark(f"start: {self._written(json.dumps(accepted))}")

    def json_object(self) -> "CompiledGrammar":
        return self.json_schema(ANY_OBJECT)

    def regex(self, pattern: str) -> "CompiledGrammar":
        """A whole text. Raises GrammarError."""
        return self._compiled(LLMatcher.grammar_from_regex(pattern))

    def lark(self, text: str) -> "CompiledGrammar":
        """Raises GrammarError."""
        return self._compiled(LLMatcher.grammar_from_lark(text))

    def json(self, schema: JSON) -> str:
        """For the right side of a Lark rule. Raises GrammarError."""
        return self._written(json.dumps(self._accepted(schema).schema))

    def _write(self, schema: str) -> str:
        """With every escape in free texts, where the grammar is small enough for that."""
        accepted: JSON = json.loads(schema)
        text = f"%lark {{\n{json_grammar(accepted)}\n}}"
        if len(text) <= MOST_WRITTEN_OUT:
            with suppress(GrammarError):
                self.lark(f"start: {text}")
                return text
        return json_directive(accepted)

    def until(self, rule: str, marker: str) -> str:
        """A Lark rule for any text up to a marker, and the marker, which may be a token's name."""
        token = self.token(marker)
        if token.startswith("<"):
            return f"{rule}: /(?s:.*)/ {token}"
        return f"{rule}[lazy]: /(?s:.*)/ {token}"

    def token(self, text: str) -> str:
        """For the right side of a Lark rule: a control token by its name, or else the text itself."""
        id_ = self._vocabulary.control_id(text)
        return json.dumps(text, ensure_ascii=False) if id_ is None else f"<[{id_}]>"

    def literal(self, text: str) -> str:
        """The same for a text in which names of control tokens may stand."""
        names = self._vocabulary.control.findall(text)
        texts = self._vocabulary.control.split(text)
        pieces = itertools.chain(*itertools.zip_longest(texts, names, fillvalue=""))
        return " ".join(self.token(piece) for piece in pieces if piece)

    def _compile(self, source: str) -> "CompiledGrammar":
        if len(source) > MOST_CHARACTERS:
            raise GrammarError(f"it has {len(source)} characters, and {MOST_CHARACTERS} are allowed")
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=_LIMITS)
        first = GrammarConstraint(matcher.deep_copy(), len(self._vocabulary))
        first.compute_mask()  # most of what is too large or too deep shows here
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
        """Bytes, about."""
        self._explored = False

    def start(self) -> GrammarConstraint:
        return GrammarConstraint(self._matcher.deep_copy(), len(self._vocabulary))

    def dry_run(self, steps: int = STEPS) -> None:
        """Some steps of it, for what doesn't show before something is written. Raises GrammarError."""
        constraint = self.start()
        for _ in range(steps):
            if (token := constraint.last_allowed(self._vocabulary.end_tokens)) is None:
                return
            constraint.accept(token)
        constraint.compute_mask()
        constraint.check()

    def explore(self) -> None:
        """Attempt JSON, also with drawn tokens: half of them end a text or a number, which leads to the next value.

        Raises GrammarError.
        """
        if self._explored:
            return
        most = _MOST_TRIED // self.size
        self.dry_run(min(STEPS, most))
        random, constraint, ends = Random(0), self.start(), self._vocabulary.end_tokens
        ending = np.array([token for mark in _ENDING for token in self._vocabulary.exactly(mark)])
        for _ in range(min(DRAWS, most)):
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
        """Started, and `data` written; None where that may not be written."""
        constraint, ids = self.start(), self._vocabulary.exactly(data)
        spelled = b"".join(map(self._vocabulary.bytes_of, ids))
        return constraint if spelled == data and all(map(constraint.try_accept, ids)) else None

    def after_marker(self, data: bytes) -> GrammarConstraint | None:
        """Start behind a marker, with the rest of the token that ended it. White space there is the marker's."""
        return self.started_with(data) or self.started_with(data.lstrip())


class _Tokens:
    """A vocabulary, as llguidance wants to be told it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.end_tokens)
        self.bos_token_id = vocabulary.bos
        ids = range(len(vocabulary))
        self.special_token_ids = [id_ for id_ in ids if not vocabulary.bytes_of(id_)]
        self.tokens = [vocabulary.bytes_of(id_) or vocabulary.name_of(id_).encode() for id_ in ids]
        self._vocabulary = vocabulary

    def __call__(self, data: bytes) -> Sequence[int]:
        """How the model would write it: of several ways, llguidance prefers that one."""
        return self._vocabulary.exactly(data)


def estimated_size(text: str) -> int:
    """Estimate the bytes of a compiled grammar. The schemas of a thousand real tools take 200 kB each, and count 460;
    the costliest found, long constants, take twice their count."""
    return 100_000 + 200 * len(text)


def _compiled_size(text: str, made: CompiledGrammar | None) -> int:
    return getsizeof(text) + (0 if made is None else made.size)


def _written_size(schema: str, text: str | None) -> int:
    return getsizeof(schema) + getsizeof(text)
