"""Speculative decoding by prompt lookup: what followed the last time the same tokens stood there is a good guess.

A guess is evaluated in the same step as the token before it, and kept only if the sampler, at its place, draws that
very token: so the answer is distributed as without guesses. (Saxena, "Prompt Lookup Decoding", 2023; that sampling at
each place keeps the distribution: Leviathan et al., arXiv:2211.17192, for a drafter that is certain.)

How often guesses are right is learned also from those that were not made: every token says whether its guess would
have been right. So a text in which guessing doesn't pay costs nothing, and one that begins to repeat itself is noticed.
"""

from collections.abc import Sequence

GRAM = 3
"""Tokens that have to be the same."""
MOST = 8
"""Tokens guessed at once."""
FIRST_RIGHT = 0.4
"""How often a guess is right, before any was seen."""
WEIGHT = 0.15
"""Of a new outcome in the running mean."""


class Drafter:
    """Guesses one sequence's next tokens, and learns how good it is at that."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = GRAM
        self._right = FIRST_RIGHT
        self._guess: Sequence[int] = ()

    def draft(self, tokens: Sequence[int], cost: float, most: int = MOST) -> Sequence[int]:
        """The guess after `tokens`, as long as it pays; often empty.

        `cost` is that of a guessed token, where a token that goes alone costs 1.
        """
        self._index(tokens)
        start = self._after.get(tuple(tokens[-GRAM:]))
        self._guess = () if start is None else tokens[start : start + MOST]
        return self._guess[: self._length(cost, min(most, MOST))]

    def learn(self, tokens: Sequence[int]) -> None:
        """Take in what came. What stands behind a first wrong guess says nothing of the guesses."""
        for guess, token in zip(self._guess, tokens, strict=False):
            self._right += WEIGHT * ((guess == token) - self._right)
            if guess != token:
                break

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
