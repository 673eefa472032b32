"""Speculative decoding by prompt lookup: what followed the last time the same tokens stood there is a good guess.

A guess is evaluated in the same step as the token before it, and kept only if the sampler, at its place, draws that
very token: so the answer is distributed as without guesses. (Saxena, "Prompt Lookup Decoding", 2023; that sampling at
each place keeps the distribution: Leviathan et al., arXiv:2211.17192, for a drafter that is certain.)

How often guesses are right is learned also from those that were not made: every token says whether its guess would
have been right. So a text in which guessing doesn't pay costs nothing, and one that begins to repeat itself is noticed.
"""

from collections.abc import Callable, Sequence

NGRAM_SIZE = 3
"""Tokens that have to be the same."""
MAX_DRAFT_TOKENS = 8
"""Tokens guessed at once."""
INITIAL_ACCEPTANCE_RATE = 0.4
"""How often a guess is right, before any was seen."""
MEAN_WEIGHT = 0.15
"""Of a new outcome in the running mean."""


class NgramDrafter:
    """Guesses one sequence's next tokens, and learns how good it is at that."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = NGRAM_SIZE
        self._acceptance_rate = INITIAL_ACCEPTANCE_RATE
        self._draft: Sequence[int] = ()

    def draft(self, tokens: Sequence[int]) -> Sequence[int]:
        """What comes after `tokens`; often nothing."""
        self._index(tokens)
        start = self._after.get(tuple(tokens[-NGRAM_SIZE:]))
        self._draft = () if start is None else tokens[start : start + MAX_DRAFT_TOKENS]
        return self._draft

    def expected_acceptance(self, guesses: int) -> float:
        """How many tokens a step brings with so many of them: one, and those up to the first that is wrong."""
        return sum(self._acceptance_rate**right for right in range(min(guesses, len(self._draft)) + 1))

    def learn(self, tokens: Sequence[int]) -> None:
        """Take in what came, with a draft before it or without. What stands behind a first wrong guess says nothing of
        the guesses."""
        for guess, token in zip(self._draft, tokens, strict=False):
            self._acceptance_rate += MEAN_WEIGHT * ((guess == token) - self._acceptance_rate)
            if guess != token:
                break
        self._draft = ()

    def _index(self, tokens: Sequence[int]) -> None:
        """All but the last gram: what follows that one is the question."""
        for end in range(self._indexed, len(tokens)):
            self._after[tuple(tokens[end - NGRAM_SIZE : end])] = end
        self._indexed = max(self._indexed, len(tokens))


def choose_draft_length(drafters: Sequence[NgramDrafter], most: int, cost: Callable[[int], float]) -> int:
    """How many guesses each of them brings to a step, so that the most tokens come a second.

    `cost`: how long a step takes with so many guesses each, where one without takes 1.
    """
    return max(range(most + 1), key=lambda n: sum(drafter.expected_acceptance(n) for drafter in drafters) / cost(n))
