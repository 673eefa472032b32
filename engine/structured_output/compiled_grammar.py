"""A grammar that is compiled for one vocabulary; see `engine.constraint`."""

import re
from collections.abc import Callable
from functools import cached_property

from llguidance import LLMatcher

from engine.grammar import portable
from engine.grammar.ebnf import ebnf
from engine.structured_output.grammar_constraint import GrammarConstraint
from engine.tokenizer import Vocabulary

DRY_RUN_TOKENS = 32
"""Tokens of a dry run: enough to reach a text in a call's arguments, byte by byte."""
_ESCAPES = re.compile(r', "json_allowed_escapes": "(?:[^"\\]|\\.)*"')
"""Option that older versions of llguidance do not read, such as llama.cpp's; it only forbids escapes."""


class CompiledGrammar:
    """See `engine.constraint`."""

    def __init__(self, make: Callable[[], LLMatcher], vocabulary: Vocabulary, size: int, source: str) -> None:
        """Compile a grammar by calling `make`. `source` is its text for llguidance."""
        self.source = source
        self._make = make
        self._matcher = make()
        self._vocabulary = vocabulary
        self.size = size
        """Estimated bytes."""

    @cached_property
    def portable(self) -> str:
        """Text of the grammar in Lark, for other engines, which allows at least the same; empty if there is none."""
        return "" if self.source.startswith("{") else portable(_ESCAPES.sub("", self.source))  # a regex is JSON

    @cached_property
    def ebnf(self) -> str:
        """Text of the grammar in XGrammar's EBNF, which allows at least the same; empty if there is none."""
        vocabulary = self._vocabulary
        return "" if self.source.startswith("{") else ebnf(self.source, vocabulary.name_of, vocabulary.end_tokens)

    def start(self) -> GrammarConstraint:
        return GrammarConstraint(self._matcher, len(self._vocabulary), self._renewed)

    def _renewed(self, full: LLMatcher) -> LLMatcher:
        """Return a matcher whose lexer is empty. Constraints that start from one matcher share its lexer."""
        if self._matcher is full:
            self._matcher = self._make()
        return self._matcher

    def dry_run(self, n_tokens: int = DRY_RUN_TOKENS) -> None:
        """Accept some tokens, to find faults that a grammar shows only then. Raises GrammarError."""
        constraint = self.start()
        for _ in range(n_tokens):
            if (token := constraint.allowed(self._vocabulary.end_tokens).last) is None:
                return
            constraint.accept(token)
        constraint.compute_mask()
        constraint.check()

    def started_with(self, data: bytes) -> GrammarConstraint | None:
        """Return a constraint that has accepted `data`; None if the grammar forbids it."""
        constraint, ids = self.start(), self._vocabulary.encode_bytes(data)
        encoded = b"".join(map(self._vocabulary.bytes_of, ids))
        return constraint if encoded == data and all(map(constraint.try_accept, ids)) else None

    def after_marker(self, data: bytes) -> GrammarConstraint | None:
        """Return a constraint after a marker, given the rest of the token that ended it. White space belongs to the
        marker if the grammar forbids it."""
        found = self.started_with(data)
        if found is None and data[:1].isspace():
            found = self.started_with(data.lstrip())
        return found
