"""Texts for requests: pseudo-random words whose beginning no server has seen."""

import random

WORDS = ("river", "stone", "garden", "winter", "market", "letter", "window", "bridge", "island", "copper")
TASK = "Write a long story with these words."
"""Sentence at the end of a prompt: the answer is as long as it may be."""


class Texts:
    """Texts of a fixed seed. Each begins with a unique word, so that a prefix cache does not help by accident.

    It does help if a seed is played again to a running server.
    """

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(seed)
        self._heads: set[int] = set()

    def words(self, count: int) -> str:
        """Return that many words, about four tokens to three words as in prose: every third word has a comma."""
        drawn = self.rng.choices(WORDS, k=count - 1)
        return " ".join([self._head(), *(word + "," * (index % 3 == 1) for index, word in enumerate(drawn))])

    def prompt(self, count: int) -> str:
        """Return that many words, followed by the task."""
        return f"{self.words(count)}. {TASK}"

    def _head(self) -> str:
        while (head := self.rng.randrange(16**6)) in self._heads:
            pass
        self._heads.add(head)
        return f"{head:06x}"
