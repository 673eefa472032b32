"""Draft the tokens between forced ones: punctuation and white space, which a grammar leaves to the model.

JSON may be written with or without white space. A model that has chosen a style repeats it after every key, but the
keys differ, so that a lookup of n-grams finds nothing. In the skeleton of an answer one mark stands for a run of forced
tokens, whatever they are: `"FORCED": "FORCED",\n  "FORCED": `.
"""

from collections.abc import Iterator, Sequence

from engine.scheduler.ngram_drafter import MAX_DRAFT_TOKENS, Drafter

FORCED = -1
"""Stands for a run of forced tokens."""
_ANY = -2
"""Stands for the token before a run: the first one of an enum's value."""
_LONGEST = 4
"""Tokens of the longest context."""


class SkeletonDrafter(Drafter):
    """Drafts the tokens that followed the last similar place of one constrained answer."""

    def __init__(self) -> None:
        super().__init__()
        self._recent: list[int] = []
        self._next: dict[tuple[int, ...], tuple[int, bool]] = {}
        """Context -> the token that followed last, and True if the time before it was the same one."""

    def add(self, token: int) -> None:
        """Record the next token of the answer, or FORCED."""
        for context in _contexts(self._recent):
            followed, _ = self._next.get(context, (token, True))
            self._next[context] = token, followed == token
        self._recent = [*self._recent[1 - _LONGEST :], token]

    def draft(self) -> Sequence[int]:
        """Return tokens that may follow, up to forced ones."""
        recent, draft = self._recent, list[int]()
        while len(draft) < MAX_DRAFT_TOKENS and (token := self._predicted(recent)) is not None and token != FORCED:
            draft.append(token)
            recent = [*recent, token]
        self._draft = draft
        return draft

    def _predicted(self, recent: Sequence[int]) -> int | None:
        for context in _contexts(recent):
            if context in self._next:
                token, is_certain = self._next[context]
                return token if is_certain else None
        return None


def _contexts(recent: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the contexts of the next token, the longest first."""
    if len(recent) >= 3:
        yield tuple(recent[-3:])
    if len(recent) >= 4 and recent[-1] == FORCED:
        yield (*recent[-4:-2], _ANY, FORCED)
    if len(recent) >= 2:
        yield tuple(recent[-2:])
