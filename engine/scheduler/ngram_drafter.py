"""Speculative decoding by prompt lookup: draft the tokens that followed the last occurrence of the same n-gram.

Draft tokens are evaluated in the same step as the token before them. A draft token is accepted only if the sampler
draws that very token at its place, so the answer has the same distribution as without drafts. (Saxena, "Prompt Lookup
Decoding", 2023; for the distribution see Leviathan et al., arXiv:2211.17192, with a drafter of probability 1.)

The acceptance rate is also learned from drafts that were not evaluated: every token shows whether its draft would have
been accepted. Text in which drafts do not pay costs nothing, and text that begins to repeat itself is noticed.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

NGRAM_SIZE = 3
"""Number of tokens that must match."""
MAX_DRAFT_TOKENS = 8
"""Maximum number of draft tokens in one step."""
INITIAL_ACCEPTANCE_RATE = 0.4
"""Acceptance rate before any draft was verified."""
MEAN_WEIGHT = 0.15
"""Weight of a new outcome in the running mean."""


class NgramDrafter:
    """Drafts one sequence's next tokens by prompt lookup, and learns the acceptance rate of its drafts."""

    def __init__(self) -> None:
        self._acceptance_rate = INITIAL_ACCEPTANCE_RATE
        self._draft: Sequence[int] = ()
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = NGRAM_SIZE

    def expected_acceptance(self, n_draft: int) -> float:
        """Return the expected number of tokens from a step with that many draft tokens: one, and all up to the first
        wrong one."""
        return sum(self._acceptance_rate**accepted for accepted in range(min(n_draft, len(self._draft)) + 1))

    def learn(self, tokens: Sequence[int]) -> None:
        """Record the tokens that followed, with or without a draft. Tokens after the first wrong draft token prove
        nothing."""
        for drafted, token in zip(self._draft, tokens, strict=False):
            self._acceptance_rate += MEAN_WEIGHT * ((drafted == token) - self._acceptance_rate)
            if drafted != token:
                break
        self._draft = ()

    def draft(self, tokens: Sequence[int]) -> Sequence[int]:
        """Return tokens that may follow `tokens`; often none."""
        self._index(tokens)
        start = self._after.get(tuple(tokens[-NGRAM_SIZE:]))
        self._draft = () if start is None else tokens[start : start + MAX_DRAFT_TOKENS]
        return self._draft

    def _index(self, tokens: Sequence[int]) -> None:
        """Index all n-grams but the last, whose successor is unknown."""
        for end in range(self._indexed, len(tokens)):
            self._after[tuple(tokens[end - NGRAM_SIZE : end])] = end
        self._indexed = max(self._indexed, len(tokens))


class Expecting(Protocol):
    """A sequence that knows how many tokens a step gives."""

    def expected_acceptance(self, n_draft: int) -> float: ...


def choose_draft_length(sequences: Sequence[Expecting], max_length: int, cost: Callable[[int], float]) -> int:
    """Return the number of draft tokens for each sequence that gives the most tokens a second.

    `cost` returns the duration of a step with that many draft tokens each, relative to a step without any.
    """
    return max(range(max_length + 1), key=lambda n: sum(each.expected_acceptance(n) for each in sequences) / cost(n))
