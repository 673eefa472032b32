"""Parts of a structural tag, as tokens and bytes: its markers, and the grammars that apply after them."""

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Self

import numpy as np
from msgspec.structs import replace

from engine.constraint import GrammarError
from engine.structured_output.compiled_grammar import CompiledGrammar
from engine.structured_output.grammar_constraint import GrammarConstraint
from engine.structured_output.markers import (
    Marker,
    encode_marker,
    forbidden_marker,
    name_overrun_tokens,
    overrun_tokens,
    token_bytes,
    tokens,
)
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.tokenizer import Vocabulary


class TagParts:
    """Encoded markers and compiled grammars of the parts of an answer.

    `answer` constrains the whole text except the reasoning. Without it, each trigger constrains the text after its
    marker.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        answer: CompiledGrammar | None = None,
        triggers: Sequence[Trigger] = (),
        reasoning: ReasoningSpec | None = None,
        bare_calls: Sequence[BareCallTrigger] = (),
        prefix: str = "",
        forbidden: Sequence[str] = (),
    ) -> None:
        """Encode the markers. Raises GrammarError.

        `prefix` is the start of the answer that the prompt already has. The markers of `forbidden` are masked.
        """
        self.vocabulary = vocabulary
        self.answer = answer
        self.reasoning = reasoning = self._continued(reasoning)
        self.ends = np.array(sorted(vocabulary.end_tokens))
        self.open = self._marker(reasoning.open, None) if reasoning is not None and reasoning.open else None
        self.close = None if reasoning is None else self._marker(reasoning.close, answer)
        self.bare_calls = {each.name: each.grammar for each in bare_calls}
        self.name_overrun_tokens = name_overrun_tokens(vocabulary) if bare_calls else {}
        self.prefix = encode_marker(vocabulary, prefix)
        self.calls = {self._marker(each.marker, each.grammar): each.grammar for each in triggers}
        self.forbidden = [forbidden_marker(vocabulary, text, prefix) for text in forbidden]
        self.interruptions = self._interruptions()

    def _continued(self, reasoning: ReasoningSpec | None) -> ReasoningSpec | None:
        """Return the reasoning; None if the marker after it would end the text before the answer."""
        if self.answer is None or reasoning is None or not self._ends_all(reasoning.close):
            return reasoning
        return None

    def with_budget(self, budget: int | None) -> Self:
        """Return a copy with another budget of reasoning tokens."""
        other = copy(self)
        other.reasoning = self.reasoning and replace(self.reasoning, budget=budget)
        return other

    def _marker(self, text: str, grammar: CompiledGrammar | None) -> Marker:
        """Encode a marker. `grammar` constrains the text after it. Raises GrammarError."""
        vocabulary, marker = self.vocabulary, encode_marker(self.vocabulary, text)
        if b"".join(token_bytes(vocabulary, token) for token in tokens(vocabulary, marker)) != marker:
            raise GrammarError(f"the model has no tokens for the marker {text!r}")
        if grammar is None:
            return Marker(marker)
        return Marker(marker, overrun_tokens(vocabulary, marker, lambda rest: grammar.after_marker(rest) is not None))

    def _interruptions(self) -> list[Marker]:
        """Return the markers that end reasoning besides its own. Markers that the answer can't continue are masked."""
        calls = {marker.text: marker for marker in self.calls}
        found = []
        for text in self.reasoning.interruptions if self.reasoning else ():
            marker = encode_marker(self.vocabulary, text)
            if self.answer is None:
                found.append(calls.get(marker, Marker(marker)))
            else:
                found.append(Marker(marker, overrun_tokens(self.vocabulary, marker, partial(self._resumes, marker))))
        return found

    def _resumes(self, marker: bytes, rest: bytes) -> bool:
        return self.resumed(marker, rest) is not None

    def resumed(self, marker: bytes, rest: bytes) -> GrammarConstraint | None:
        """Return the answer's constraint after a marker that ended the reasoning and the `rest` of its token."""
        assert self.answer is not None, "only an answer's grammar can resume"
        constraint = self.answer.start()
        if not all(map(constraint.try_accept, tokens(self.vocabulary, marker))):
            return None
        return constraint if all(map(constraint.try_accept, tokens(self.vocabulary, rest))) else None

    def _ends_all(self, marker: str) -> bool:
        vocabulary = self.vocabulary
        return not vocabulary.end_tokens.isdisjoint(tokens(vocabulary, encode_marker(vocabulary, marker)))
