"""Select the grammar that applies to each part of an answer: reasoning, free text, or constrained text.

    reasoning ---- close ----> free text ---- marker of a call ----> grammar of that call
       |  ^                     |     ^                                   |
       |  '------- open --------'     '------ the grammar accepts --------'
       |
       '---- close, if an answer's grammar is set ----> that grammar, to the end

In some families, a marker of a call or of the answer ends the reasoning too. A text passes through the same phases
however it is split into tokens.
"""

from collections.abc import Sequence
from copy import copy
from functools import partial

import numpy as np
from msgspec.structs import replace

from engine.constraint import GrammarError
from engine.model import FloatArray
from engine.structured_output.bare_calls import BareCallDetector
from engine.structured_output.compiler import CompiledGrammar
from engine.structured_output.eager_stop import EagerStop, leave_only
from engine.structured_output.grammar_constraint import GrammarConstraint
from engine.structured_output.markers import (
    CONTROL,
    Marker,
    MarkerMatcher,
    encode_marker,
    forbidden_marker,
    name_overrun_tokens,
    overrun_tokens,
    token_bytes,
    tokens,
)
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.structured_output.tag_state import CallState, OpeningState, Phase, TagState
from engine.tokenizer import Vocabulary


class StructuralTag:
    """A grammar of phases; see `engine.constraint`.

    `answer` constrains the whole text except the reasoning. Without it, each trigger constrains the text after its
    marker. Building a tag takes some milliseconds, starting it microseconds.
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
        """Build a tag. Raises GrammarError.

        `prefix` is the start of the answer that the prompt already has. The markers of `forbidden` are masked.
        """
        self.vocabulary = vocabulary
        self.answer = answer
        if answer is not None and reasoning is not None and self._ends_all(reasoning.close):
            reasoning = None  # no answer could follow the reasoning
        self.reasoning = reasoning
        self.ends = np.array(sorted(vocabulary.end_tokens))
        self.open = self._marker(reasoning.open, None) if reasoning is not None and reasoning.open else None
        self.close = None if reasoning is None else self._marker(reasoning.close, answer)
        self.bare_calls = {each.name: each.grammar for each in bare_calls}
        self.name_overrun_tokens = name_overrun_tokens(vocabulary) if bare_calls else {}
        self.prefix = encode_marker(vocabulary, prefix)
        self.calls = {self._marker(each.marker, each.grammar): each.grammar for each in triggers}
        self.forbidden = [forbidden_marker(vocabulary, text) for text in forbidden]
        self.interruptions = self._interruptions()

    def with_budget(self, budget: int | None) -> "StructuralTag":
        """Return a copy with another budget of reasoning tokens."""
        other = copy(self)
        other.reasoning = self.reasoning and replace(self.reasoning, budget=budget)
        return other

    def start(self) -> "TagState":
        return TagState(self._first())

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

    def interrupted(self, marker: Marker, rest: bytes, spent: int) -> Phase:
        """Return the phase after a marker that ended the reasoning; `rest` is already written."""
        if self.answer is None:
            return _FreeText(self, spent).feed(marker.text + rest)
        constraint = self.resumed(marker.text, rest)
        if constraint is None:
            raise GrammarError("the output after the reasoning does not match the grammar of the answer")
        return EagerStop(constraint, self.ends)

    def _first(self) -> Phase:
        reasoning = self.reasoning
        if reasoning is not None and reasoning.opened:
            return _Reasoning(self, 0)
        if self.answer is None:
            return self.free(0).feed(self.prefix)
        if self.open is not None and reasoning is not None and reasoning.budget != 0:
            opening = list(tokens(self.vocabulary, self.open.text))
            return OpeningState(self.answer.start(), opening, _Reasoning(self, 0), self.ends)
        return EagerStop(self.answer.start(), self.ends)

    def free(self, spent: int) -> "_FreeText":
        return _BareCallStart(self, spent) if self.bare_calls else _FreeText(self, spent)

    def after_reasoning(self, rest: bytes, spent: int) -> Phase:
        """Return the phase after closed reasoning; `rest` is already written."""
        grammar = self.answer or (self.reasoning.after if self.reasoning and self.reasoning.is_spent(spent) else None)
        constraint = None if grammar is None else grammar.after_marker(rest)
        if self.answer is None:
            return (
                CallState(constraint, _FreeText(self, spent))
                if constraint
                else self.free(spent).feed(self.prefix + rest)
            )
        if constraint is None:
            raise GrammarError("the output after the reasoning does not match the grammar of the answer")
        return EagerStop(constraint, self.ends)


class _FreeText:
    """Free text, in which markers are recognized."""

    mask_ready = True

    def __init__(self, tag: StructuralTag, spent: int) -> None:
        """Begin after `spent` tokens of reasoning."""
        self._tag = tag
        self._spent = spent
        self._markers = MarkerMatcher([*tag.calls, *tag.forbidden, *filter(None, [tag.open])])
        self._lead: bytes | None = b""
        """Text so far, while reasoning may still open after it; None afterwards."""

    def compute_mask(self) -> None:
        pass

    def apply_mask(self, logits: FloatArray) -> None:
        self._markers.forbid(logits)

    def accept(self, token: int) -> Phase:
        return self.feed(token_bytes(self._tag.vocabulary, token))

    def forced(self) -> Sequence[int]:
        return ()

    def feed(self, data: bytes) -> Phase:
        self._close_lead(data)
        while found := self._markers.feed(data):
            marker, data = found
            if marker is self._tag.open:
                return _Reasoning(self._tag, self._spent).feed(data)
            grammar = self._tag.calls.get(marker)
            if grammar is not None and (constraint := grammar.after_marker(data)) is not None:
                return CallState(constraint, _FreeText(self._tag, self._spent))
        return self

    def _close_lead(self, data: bytes) -> None:
        """Stop looking for the opening marker after other text, as `Parser` does, unless it has a control token."""
        opening = self._tag.open
        if opening is None or self._lead is None or CONTROL in opening.text:
            return
        self._lead = (self._lead + data).lstrip()
        if not (opening.text.startswith(self._lead) or self._lead.startswith(opening.text)):
            self._lead = None
            self._markers.forget(opening)


class _BareCallStart(_FreeText):
    """Free text in which a call may begin without a marker."""

    def __init__(self, tag: StructuralTag, spent: int, after_call: bool = False) -> None:
        """Set `after_call` if the text follows a call."""
        super().__init__(tag, spent)
        self._detector = BareCallDetector(tag.bare_calls, after_call)
        self._text = b""

    def apply_mask(self, logits: FloatArray) -> None:
        super().apply_mask(logits)
        logits[self._tag.name_overrun_tokens[self._detector.in_name]] = -np.inf

    def feed(self, data: bytes) -> Phase:
        tag, spent = self._tag, self._spent
        self._text += data
        if found := self._detector.feed(data):
            name, rest = found
            # The model may write white space that the grammar does not have.
            if (constraint := tag.bare_calls[name].started_with(b"".join(rest.split()))) is not None:
                return CallState(constraint, _BareCallStart(tag, spent, after_call=True))
        elif not self._detector.is_text:
            return self
        return _FreeText(tag, spent).feed(self._text)


class _Reasoning:
    """Reasoning up to the marker that closes it. The end token is masked if an answer must follow."""

    mask_ready = True

    def __init__(self, tag: StructuralTag, spent: int) -> None:
        assert tag.reasoning is not None, "reasoning has a spec"
        assert tag.close is not None, "reasoning has a closing marker"
        self._tag = tag
        self._spent = spent
        self._reasoning = tag.reasoning
        self._close = tag.close
        self._markers = MarkerMatcher([tag.close, *tag.interruptions])
        self._forbidden = MarkerMatcher(tag.forbidden)

    def compute_mask(self) -> None:
        pass

    def apply_mask(self, logits: FloatArray) -> None:
        if forced := self.forced():
            leave_only(logits, forced[0])
            return
        self._markers.forbid(logits)
        self._forbidden.forbid(logits)
        if self._tag.answer is not None:
            logits[self._tag.ends] = -np.inf

    def accept(self, token: int) -> Phase:
        self._spent += 1
        return self.feed(token_bytes(self._tag.vocabulary, token))

    def feed(self, data: bytes) -> Phase:
        self._forbidden.feed(data)
        if (found := self._markers.feed(data)) is None:
            return self
        marker, rest = found
        if marker is self._close:
            return self._tag.after_reasoning(rest, self._spent)
        return self._tag.interrupted(marker, rest, self._spent)

    def forced(self) -> Sequence[int]:
        """Return the next token of the closing marker if only the marker may follow."""
        marker, written = self._close.text, self._written()
        # The parser ends the reasoning at the marker's first control token: only the rest of the marker may follow.
        if self._reasoning.is_spent(self._spent) or CONTROL in marker[:written]:
            return [next(tokens(self._tag.vocabulary, marker[written:]))]
        return ()

    def _written(self) -> int:
        """Return the bytes of the closing marker that are already written."""
        marker = self._close.text
        return next(n for n in reversed(range(len(marker))) if self._markers.tail.endswith(marker[:n]))
