"""Speculative decoding by prompt lookup: what followed the last time the same tokens stood there is a good guess.

A guess is evaluated in the same step as the token before it, and kept only if the sampler, at its place, draws that
very token: so the answer is distributed as without guesses. (Saxena, "Prompt Lookup Decoding", 2023; that sampling at
each place keeps the distribution: Leviathan et al., arXiv:2211.17192, for a drafter that is certain.)
"""

from collections.abc import Sequence

GRAM = 3
"""Tokens that have to be the same."""
MOST = 8
"""Tokens guessed at once."""
HOPE = 0.6
"""How often a guess is right, before any was tried."""
WEIGHT = 0.15
"""Of a new outcome in the running mean."""
PATIENCE = 0.004
"""What is forgotten of bad luck with every token, so that a text that begins to repeat itself is noticed."""


class Drafter:
    """Guesses one sequence's next tokens, and learns how good it is at that."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = GRAM
        self._right = HOPE

    def draft(self, tokens: Sequence[int], cost: float, most: int = MOST) -> list[int]:
        """The guess after `tokens`; often empty. `cost` is that of a guessed token, where a token alone costs 1."""
        self._index(tokens)
        start = self._after.get(tuple(tokens[-GRAM:]))
        length = self._length(cost, min(most, MOST))
        return [] if start is None else list(tokens[start : start + length])

    def learn(self, guessed: int, right: int) -> None:
        """Take in how many of the guessed tokens were right; those behind the first wrong one say nothing."""
        for outcome in [1.0] * right + [0.0] * (right < guessed):
            self._right += WEIGHT * (outcome - self._right)
        if guessed == 0:
            self._right += PATIENCE * (HOPE - self._right)

    def _length(self, cost: float, most: int) -> int:
        """The last guessed token is right only if all before it are: it pays as long as that is likelier than dear."""
        length = 0
        while length < most and self._right ** (length + 1) > cost:
            length += 1
        return length

    def _index(self, tokens: Sequence[int]) -> None:
        """All but the last gram: what follows that one is the question."""
        for end in range(self._indexed, len(tokens)):
            self._after[tuple(tokens[end - GRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))
