"""Beginnings of one string: whether a string that matches its schema may begin so. Pure."""

from collections.abc import Collection, Sequence

from server.verification.prefixes import Prefixes


class StringWatch:
    """The string so far. It is made for each string that not everything may begin."""

    def __init__(
        self,
        allowed: Collection[str] | None,
        automata: Sequence[Prefixes],
        max_length: float,
        complaint: str = "it begins none of the allowed values",
    ) -> None:
        """`allowed`: whole strings; None for any. The string must match all of the `automata`."""
        self._allowed = allowed
        self._runs = [(each, each.start) for each in automata]
        self._max_length = max_length
        self._complaint = complaint
        self._seen = 0

    def fault(self, text: str) -> str | None:
        """Return the reason for which no string that begins with `text` matches; None if there may be one.

        Each `text` goes on from the one before.
        """
        if self._allowed is not None and not any(each.startswith(text) for each in self._allowed):
            return self._complaint
        if len(text) > self._max_length:
            return "it is too long"
        added, self._seen = text[self._seen :], len(text)
        for index, (automaton, states) in enumerate(self._runs):
            for character in added:
                states = automaton.step(states, character)
            if not states:
                return "no text that begins so matches its pattern"
            self._runs[index] = automaton, states
        return None
