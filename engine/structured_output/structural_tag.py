"""What holds when: a Grammar made of phases. The model thinks, says what it likes, or is held to a grammar.

                      .--- close ---.           .---- it has come to its end ----.
                      v             |           v                                |
    thought begun: thinking      free: until a marker has come ---- trigger --> held to that trigger's grammar
                      |             ^
                      '--- close ---+--> with an answer to hold to: its grammar, from there to the end

A marker of a call or of the answer ends a thought too, in families that do so.

The same text leads through the same phases, however it is cut into tokens.
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
    forbidden,
    name_overrun_tokens,
    overrun_tokens,
    token_bytes,
    tokens,
)
from engine.structured_output.specs import BareCallTrigger, ReasoningSpec, Trigger
from engine.structured_output.tag_state import CallState, Phase, TagState
from engine.tokenizer import Vocabulary


class StructuralTag:
    """See `engine.constraint`. With `answer`, all but a thought is held to that; without it, what follows a trigger's
    marker. Making one takes some milliseconds, starting it microseconds."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        answer: CompiledGrammar | None = None,
        triggers: Sequence[Trigger] = (),
        thought: ReasoningSpec | None = None,
        beginnings: Sequence[BareCallTrigger] = (),
        begun: str = "",
        never: Sequence[str] = (),
    ) -> None:
        """`never`: markers that may not be written. Raises GrammarError."""
        self.vocabulary = vocabulary
        self.answer = answer
        if answer is not None and thought is not None and self._ends_all(thought.close):
            thought = None  # no answer would follow it
        self.thought = thought
        self.ends = np.array(sorted(vocabulary.end_tokens))
        self.open = self._marker(thought.open, None) if thought is not None and thought.open else None
        self.close = None if thought is None else self._marker(thought.close, answer)
        self.beginnings = {each.name: each.grammar for each in beginnings}
        self.name_overrun_tokens = name_overrun_tokens(vocabulary) if beginnings else {}
        self.begun = encode_marker(vocabulary, begun)
        self.calls = {self._marker(each.marker, each.grammar): each.grammar for each in triggers}
        self.never = [forbidden(vocabulary, text) for text in never]
        self.interruptions = self._interruptions()

    def within(self, budget: int | None) -> "StructuralTag":
        """The same, with so many tokens of thought."""
        other = copy(self)
        other.thought = self.thought and replace(self.thought, budget=budget)
        return other

    def start(self) -> "TagState":
        return TagState(self._first())

    def _marker(self, text: str, grammar: CompiledGrammar | None) -> Marker:
        """`grammar`: what has to follow, if anything."""
        vocabulary, marker = self.vocabulary, encode_marker(self.vocabulary, text)
        if b"".join(token_bytes(vocabulary, token) for token in tokens(vocabulary, marker)) != marker:
            raise GrammarError(f"the model has no tokens for {text!r}")
        if grammar is None:
            return Marker(marker)
        return Marker(marker, overrun_tokens(vocabulary, marker, lambda rest: grammar.after_marker(rest) is not None))

    def _interruptions(self) -> list[Marker]:
        """The markers that end a thought besides its own. One behind which the answer can't go on never comes."""
        calls = {marker.text: marker for marker in self.calls}
        found = []
        for text in self.thought.interruptions if self.thought else ():
            marker = encode_marker(self.vocabulary, text)
            if self.answer is None:
                found.append(calls.get(marker, Marker(marker)))
            else:
                found.append(Marker(marker, overrun_tokens(self.vocabulary, marker, partial(self._resumes, marker))))
        return found

    def _resumes(self, marker: bytes, rest: bytes) -> bool:
        return self.resumed(marker, rest) is not None

    def resumed(self, marker: bytes, rest: bytes) -> GrammarConstraint | None:
        """Return the answer's constraint behind a marker that ended a thought, and what has come behind that."""
        assert self.answer is not None, "a constraint is of something"
        constraint = self.answer.start()
        if not all(map(constraint.try_accept, tokens(self.vocabulary, marker))):
            return None
        return constraint if all(map(constraint.try_accept, tokens(self.vocabulary, rest))) else None

    def _ends_all(self, marker: str) -> bool:
        vocabulary = self.vocabulary
        return not vocabulary.end_tokens.isdisjoint(tokens(vocabulary, encode_marker(vocabulary, marker)))

    def interrupted(self, marker: Marker, rest: bytes, spent: int) -> Phase:
        """Return the phase behind a marker that ended a thought; `rest` is written already."""
        if self.answer is None:
            return _FreeText(self, spent).feed(marker.text + rest)
        constraint = self.resumed(marker.text, rest)
        if constraint is None:
            raise GrammarError("what follows the thought is not what the answer has to be")
        return EagerStop(constraint, self.ends)

    def _first(self) -> Phase:
        thought = self.thought
        if thought is not None and thought.begun:
            return _Reasoning(self, 0)
        if self.answer is None:
            return self.free(0).feed(self.begun)
        if self.open is not None and thought is not None and thought.budget != 0:
            return _OpeningMarker(self, self.answer.start(), list(tokens(self.vocabulary, self.open.text)))
        return EagerStop(self.answer.start(), self.ends)

    def free(self, spent: int) -> "_FreeText":
        return _BareCallStart(self, spent) if self.beginnings else _FreeText(self, spent)

    def thought_through(self, rest: bytes, spent: int) -> Phase:
        """What comes behind a thought; `rest` has come of it."""
        grammar = self.answer or (self.thought.after if self.thought and self.thought.over(spent) else None)
        constraint = None if grammar is None else grammar.after_marker(rest)
        if self.answer is None:
            return (
                CallState(constraint, _FreeText(self, spent))
                if constraint
                else self.free(spent).feed(self.begun + rest)
            )
        if constraint is None:
            raise GrammarError("what follows the thought is not what the answer has to be")
        return EagerStop(constraint, self.ends)


class _FreeText:
    """Anything may come, and markers are looked for."""

    mask_ready = True

    def __init__(self, phases: StructuralTag, spent: int) -> None:
        """`spent`: tokens of thought."""
        self._phases = phases
        self._spent = spent
        self._watch = MarkerMatcher([*phases.calls, *phases.never, *filter(None, [phases.open])])
        self._lead: bytes | None = b""
        """Text so far, as long as a thought may begin behind it."""

    def compute_mask(self) -> None:
        pass

    def apply_mask(self, logits: FloatArray) -> None:
        self._watch.forbid(logits)

    def accept(self, token: int) -> Phase:
        return self.feed(token_bytes(self._phases.vocabulary, token))

    def feed(self, data: bytes) -> Phase:
        self._look_for_words(data)
        while found := self._watch.feed(data):
            marker, data = found
            if marker is self._phases.open:
                return _Reasoning(self._phases, self._spent).feed(data)
            grammar = self._phases.calls.get(marker)
            if grammar is not None and (constraint := grammar.after_marker(data)) is not None:
                return CallState(constraint, _FreeText(self._phases, self._spent))
        return self

    def _look_for_words(self, data: bytes) -> None:
        """Behind words, the opening of a thought is text, as `Parser` has it; unless a control token is part of it."""
        opening = self._phases.open
        if opening is None or self._lead is None or CONTROL in opening.text:
            return
        self._lead = (self._lead + data).lstrip()
        if not (opening.text.startswith(self._lead) or self._lead.startswith(opening.text)):
            self._lead = None
            self._watch.forget(opening)


class _BareCallStart(_FreeText):
    """The same where a call may begin without a marker."""

    def __init__(self, phases: StructuralTag, spent: int, again: bool = False) -> None:
        """`again`: whether a call came before."""
        super().__init__(phases, spent)
        self._naming = BareCallDetector(phases.beginnings, again)
        self._text = b""

    def apply_mask(self, logits: FloatArray) -> None:
        super().apply_mask(logits)
        logits[self._phases.name_overrun_tokens[self._naming.within]] = -np.inf

    def feed(self, data: bytes) -> Phase:
        phases, spent = self._phases, self._spent
        self._text += data
        if found := self._naming.feed(data):
            name, rest = found
            # White space may come in other ways than the grammar has it.
            if (constraint := phases.beginnings[name].started_with(b"".join(rest.split()))) is not None:
                return CallState(constraint, _BareCallStart(phases, spent, again=True))
        elif not self._naming.over:
            return self
        return _FreeText(phases, spent).feed(self._text)


class _Reasoning:
    """Anything may come, up to the marker that closes the thought; but no end, where an answer has to follow."""

    mask_ready = True

    def __init__(self, phases: StructuralTag, spent: int) -> None:
        assert phases.thought is not None, "it has markers"
        assert phases.close is not None, "it has markers"
        self._phases = phases
        self._spent = spent
        self._thought = phases.thought
        self._close = phases.close
        self._watch = MarkerMatcher([phases.close, *phases.interruptions])
        self._never = MarkerMatcher(phases.never)

    def compute_mask(self) -> None:
        pass

    def apply_mask(self, logits: FloatArray) -> None:
        marker, there = self._close.text, self._there()
        # A control token of the marker ends the thought for who reads it: nothing but the rest may follow.
        if self._thought.over(self._spent) or CONTROL in marker[:there]:
            leave_only(logits, next(tokens(self._phases.vocabulary, marker[there:])))
            return
        self._watch.forbid(logits)
        self._never.forbid(logits)
        if self._phases.answer is not None:
            logits[self._phases.ends] = -np.inf

    def accept(self, token: int) -> Phase:
        self._spent += 1
        return self.feed(token_bytes(self._phases.vocabulary, token))

    def feed(self, data: bytes) -> Phase:
        self._never.feed(data)
        if (found := self._watch.feed(data)) is None:
            return self
        marker, rest = found
        if marker is self._close:
            return self._phases.thought_through(rest, self._spent)
        return self._phases.interrupted(marker, rest, self._spent)

    def _there(self) -> int:
        """How much of the marker is there, in bytes."""
        marker = self._close.text
        return next(n for n in reversed(range(len(marker))) if self._watch.tail.endswith(marker[:n]))


class _OpeningMarker:
    """The first words are a thought's or the answer's. As long as they may be either, both are followed."""

    def __init__(self, phases: StructuralTag, answer: GrammarConstraint, opening: list[int]) -> None:
        self._phases = phases
        self._answer: GrammarConstraint | None = answer
        self._opening = opening

    @property
    def mask_ready(self) -> bool:
        return self._answer is None or self._answer.mask_ready

    def compute_mask(self) -> None:
        if self._answer is not None:
            self._answer.compute_mask()

    def apply_mask(self, logits: FloatArray) -> None:
        token = self._opening[0]
        if self._answer is None:
            leave_only(logits, token)
            return
        wish = logits[token]
        self._answer.apply_mask(logits)
        logits[token] = wish

    def accept(self, token: int) -> Phase:
        if self._answer is not None and not self._answer.try_accept(token):
            self._answer = None
        if token == self._opening[0]:
            self._opening = self._opening[1:]
            return self if self._opening else _Reasoning(self._phases, 0)
        if self._answer is None:
            raise GrammarError("what was written begins neither a thought nor the answer")
        return EagerStop(self._answer, self._phases.ends)
