"""What the next token may be, over llguidance: JSON schemas, Lark grammars and regexes, on a model's own vocabulary.

A grammar is compiled once, in any thread, and started by each sequence. Lark is llguidance's variant of it; in its
rules, `GrammarCompiler.json`, `.until` and `.token` put schemas and markers together:

    start: thought answer
    thought: ...            until("thought", "</think>")
    answer: ...             json(schema)
"""

import itertools
import json
import re
from collections.abc import Sequence, Set
from contextlib import suppress
from functools import cached_property
from sys import getsizeof

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from engine.constraint import GrammarError
from engine.grammar import brief, json_grammar
from engine.json_schema import JSON, CheckedSchema, depth, faults
from engine.json_schema import check as json_schema
from engine.model import FloatArray
from engine.structured_output.compile_cache import CompileCache
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
# state takes 1 to 2 kB; and for items: /.*b/ in a quoted text takes 150,000 over all tokens, and 15 ms.
_LIMITS = LLParserLimits(
    max_lexer_states=50_000, max_grammar_size=100_000, step_max_items=500_000, verbose_errors=False
)

STEPS = 32
"""Of a grammar that is tried: enough to come to a text in a call's arguments, byte for byte."""

_CONTEXT = re.compile(r"^(at )?(\d+\(\d+\): )+|failed to compile JSON schema: |^Parser Error: ")

_NOTHING = "nothing can be written that it accepts"

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
        try:
            return self.lark(f"start: {self._written(json.dumps(accepted.schema))}")
        except GrammarError as error:
            raise GrammarError(str(error), faults.place_of(accepted, self._refusal)) from error

    def relaxed(self, schema: JSON) -> CheckedSchema:
        """Leave out the keywords that can't be enforced. Raises GrammarError where no part can be."""
        return faults.relaxed(self._accepted(schema, relaxed=True), self._refusal)

    def _accepted(self, schema: JSON, relaxed: bool = False) -> CheckedSchema:
        """Raises GrammarError."""
        if depth(schema) > MOST_DEPTH:
            raise GrammarError(f"the schema is nested deeper than {MOST_DEPTH} levels")
        return json_schema.checked(schema, relaxed)

    def _refusal(self, schema: JSON) -> GrammarError | None:
        try:
            self._compile(LLMatcher.grammar_from_lark(f"start: {brief(schema)}"))
        except GrammarError as error:
            return error
        return None

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
                self._compile(LLMatcher.grammar_from_lark(f"start: {text}"))
                return text
        return brief(accepted)

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

    def start(self) -> "GrammarConstraint":
        return GrammarConstraint(self._matcher.deep_copy(), len(self._vocabulary))

    def dry_run(self) -> None:
        """Some steps of it, for what doesn't show before something is written. Raises GrammarError."""
        constraint = self.start()
        for _ in range(STEPS):
            if (token := constraint.last_allowed(self._vocabulary.end_tokens)) is None:
                return
            constraint.accept(token)
        constraint.compute_mask()
        constraint.check()

    def started_with(self, data: bytes) -> "GrammarConstraint | None":
        """Started, and `data` written; None where that may not be written."""
        constraint, ids = self.start(), self._vocabulary.exactly(data)
        spelled = b"".join(map(self._vocabulary.bytes_of, ids))
        return constraint if spelled == data and all(map(constraint.try_accept, ids)) else None

    def after_marker(self, data: bytes) -> "GrammarConstraint | None":
        """Start behind a marker, with the rest of the token that ended it. White space there is the marker's."""
        return self.started_with(data) or self.started_with(data.lstrip())


class GrammarConstraint:
    """See `engine.constraint`."""

    def __init__(self, matcher: LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._bits = np.zeros((n_vocab + 31) // 32, np.int32)
        self._forbidden: NDArray[np.bool_] | None = None

    @property
    def mask_ready(self) -> bool:
        return self._forbidden is not None

    def compute_mask(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._forbidden = np.unpackbits(self._bits.view(np.uint8), bitorder="little") == 0

    def apply_mask(self, logits: FloatArray) -> None:
        if self._forbidden is None:
            self.compute_mask()
        self.check()
        assert self._forbidden is not None, "it was prepared"
        n = min(len(logits), len(self._forbidden))
        np.copyto(logits[:n], -np.inf, where=self._forbidden[:n])
        logits[n:] = -np.inf

    def last_allowed(self, but: Set[int]) -> int | None:
        """A token that may come: the last of them, for white space comes first. Raises GrammarError."""
        self.compute_mask()
        self.check()
        assert self._forbidden is not None, "it was prepared"
        return next((int(token) for token in np.flatnonzero(~self._forbidden)[::-1] if token not in but), None)

    @property
    def accepting(self) -> bool:
        """Whether what was written is whole; there may be more of it."""
        return bool(self._matcher.is_accepting())

    def try_accept(self, token: int) -> bool:
        """As `advance`, where it may come; else False, and all is as it was."""
        if self._matcher.try_consume_tokens([token]) != 1:
            return False
        self._forbidden = None
        return True

    def accept(self, token: int) -> None:
        self._forbidden = None
        if not self._matcher.consume_token(token):
            self.check()

    def check(self) -> None:
        """Raises GrammarError."""
        if self._matcher.is_error():
            raise GrammarError(_sentence(self._matcher.get_error()))
        if self._forbidden is not None and self._forbidden.all():
            raise GrammarError(_NOTHING)


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


def _sentence(error: str) -> str:
    """What is wrong, without where llguidance found it and what it would take instead: pages of grammar."""
    if error.startswith("NoExtensionBias"):
        return _NOTHING
    lines = [line.strip() for line in error.splitlines()]
    detail = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    line = _CONTEXT.sub("", lines[0] if lines else "").partition(". Enable ")[0].rstrip(":")
    return f"{line}: {detail}".strip(": .")[:300] or "the grammar failed"
