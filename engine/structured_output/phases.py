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

import numpy as np

from engine.constraint import GrammarError
from engine.model import FloatArray
from engine.structured_output.bare_calls import BareCallDetector
from engine.structured_output.eager_stop import EagerStop, leave_only
from engine.structured_output.grammar_constraint import GrammarConstraint
from engine.structured_output.markers import CONTROL, Marker, MarkerMatcher, token_bytes, tokens
from engine.structured_output.tag_parts import TagParts
from engine.structured_output.tag_state import CallState, OpeningState, Phase


def first_phase(tag: TagParts) -> Phase:
    """Return the phase at the start of an answer."""
    reasoning = tag.reasoning
    if reasoning is not None and reasoning.opened:
        return ReasoningState(tag, 0)
    if tag.answer is None:
        return _free_text(tag, 0).feed(tag.prefix)
    if tag.open is not None and reasoning is not None and reasoning.budget != 0:
        opening = list(tokens(tag.vocabulary, tag.open.text))
        return OpeningState(tag.answer.start(), opening, ReasoningState(tag, 0), tag.ends)
    return EagerStop(tag.answer.start(), tag.ends)


def _free_text(tag: TagParts, spent: int) -> "FreeTextState":
    return BareCallState(tag, spent) if tag.bare_calls else FreeTextState(tag, spent)


def _after_reasoning(tag: TagParts, rest: bytes, spent: int) -> Phase:
    """Return the phase after closed reasoning; `rest` is already written."""
    if tag.answer is not None:
        return _answer(tag, tag.answer.after_marker(rest))
    after = tag.reasoning.after if tag.reasoning and tag.reasoning.is_spent(spent) else None
    if after is not None and (constraint := after.after_marker(rest)) is not None:
        return CallState(constraint, FreeTextState(tag, spent))
    return _free_text(tag, spent).feed(tag.prefix + rest)


def _after_interruption(tag: TagParts, marker: Marker, rest: bytes, spent: int) -> Phase:
    """Return the phase after a marker that ended the reasoning; `rest` is already written."""
    if tag.answer is not None:
        return _answer(tag, tag.resumed(marker.text, rest))
    return FreeTextState(tag, spent).feed(marker.text + rest)


def _answer(tag: TagParts, constraint: GrammarConstraint | None) -> EagerStop:
    """Return the phase of an answer that has begun; `constraint` is None if its beginning is wrong."""
    if constraint is None:
        raise GrammarError("the output after the reasoning does not match the grammar of the answer")
    return EagerStop(constraint, tag.ends)


class FreeTextState:
    """Free text, in which markers are recognized."""

    mask_ready = True

    def __init__(self, tag: TagParts, spent: int) -> None:
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

    def fits(self, token: int) -> bool:
        return False  # each split of a text is allowed

    def accept(self, token: int) -> Phase:
        return self.feed(token_bytes(self._tag.vocabulary, token))

    def forced(self) -> Sequence[int]:
        return ()

    def feed(self, data: bytes) -> Phase:
        self._close_lead(data)
        while found := self._markers.feed(data):
            marker, data = found
            if marker is self._tag.open:
                return ReasoningState(self._tag, self._spent).feed(data)
            grammar = self._tag.calls.get(marker)
            if grammar is not None and (constraint := grammar.after_marker(data)) is not None:
                return CallState(constraint, FreeTextState(self._tag, self._spent))
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


class BareCallState(FreeTextState):
    """Free text in which a call may begin without a marker."""

    def __init__(self, tag: TagParts, spent: int, after_call: bool = False) -> None:
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
                return CallState(constraint, BareCallState(tag, spent, after_call=True))
        elif not self._detector.is_text:
            return self
        return FreeTextState(tag, spent).feed(self._text)


class ReasoningState:
    """Reasoning up to the marker that closes it. The end token is masked if an answer must follow."""

    mask_ready = True

    def __init__(self, tag: TagParts, spent: int) -> None:
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

    def fits(self, token: int) -> bool:
        return False  # the marker's own tokens close the reasoning

    def accept(self, token: int) -> Phase:
        self._spent += 1
        return self.feed(token_bytes(self._tag.vocabulary, token))

    def feed(self, data: bytes) -> Phase:
        self._forbidden.feed(data)
        if (found := self._markers.feed(data)) is None:
            return self
        marker, rest = found
        if marker is self._close:
            return _after_reasoning(self._tag, rest, self._spent)
        return _after_interruption(self._tag, marker, rest, self._spent)

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
