"""Phases of an answer: which may follow which."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from engine.structured_output.phases import first_phase
from engine.structured_output.specs import ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from tests.engine.structured_output.test_structural_tag import BARE, CLOSE, DIGITS, GO, GO_12, OPEN, VOCABULARY, ids

pytestmark = pytest.mark.slow

NEXT = {
    "OpeningState": {"OpeningState", "ReasoningState", "EagerStop"},
    "ReasoningState": {"ReasoningState", "FreeTextState", "BareCallState", "CallState", "EagerStop"},
    "FreeTextState": {"FreeTextState", "ReasoningState", "CallState"},
    "BareCallState": {"BareCallState", "FreeTextState", "ReasoningState", "CallState"},
    "CallState": {"CallState", "FreeTextState", "BareCallState", "ReasoningState"},
    "EagerStop": {"EagerStop"},
}
"""Phase -> phases that apply after one more token."""

REASONING = ReasoningSpec("<|close|>", "<|open|>1", interruptions=("<|go|>",))
REASONINGS = (
    None,
    REASONING,
    replace(REASONING, open="<|open|>"),
    replace(REASONING, opened=True),
    replace(REASONING, opened=True, budget=1, after=DIGITS),
)
PIECES = [[OPEN], [CLOSE], [GO], *map(ids, ("1", "11", "x", '{"name":"f"', "1}"))]


def tags() -> Iterator[StructuralTag]:
    calls = [Trigger("<|go|>", DIGITS)]
    for reasoning in REASONINGS:
        yield StructuralTag(VOCABULARY, GO_12, reasoning=reasoning)
        yield StructuralTag(VOCABULARY, DIGITS, reasoning=reasoning)
        yield StructuralTag(VOCABULARY, triggers=calls, reasoning=reasoning)
        yield StructuralTag(VOCABULARY, triggers=calls, reasoning=reasoning, bare_calls=[BARE])


def passed(tag: StructuralTag, tokens: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield the phases before and after each token, up to the first forbidden one."""
    phase = first_phase(tag)
    for token in tokens:
        before = type(phase).__name__
        logits = np.zeros(len(VOCABULARY), np.float32)
        phase.apply_mask(logits)
        if logits[token]:
            break
        phase = phase.accept(token)
        yield before, type(phase).__name__


def test_phases_follow_one_another_as_drawn() -> None:
    texts = [[*itertools.chain(*pieces)] for pieces in itertools.product(PIECES, repeat=3)]
    seen = {pair for tag in tags() for text in texts for pair in passed(tag, text)}
    assert {before: {after for first, after in seen if first == before} for before, _ in seen} == NEXT
