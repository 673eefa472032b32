"""The grammar of a job, applied to tokens that another server has chosen. Pure.

If a forbidden token is drawn again among the allowed ones, the distribution is that of sampling with a mask:
p(t) + P(forbidden) p(t)/P(allowed) = p(t)/P(allowed).
"""

from collections.abc import Collection, Sequence

import numpy as np

from engine.constraint import Constraint, Grammar

FULL_BIAS = 100.0
"""Bias that decides: OpenAI's API and vLLM limit it to that, and logits differ by less."""


class TokenGate:
    def __init__(self, grammar: Grammar | None, n_vocab: int, ends: Collection[int]) -> None:
        """`ends`: tokens that end the answer."""
        self._constraint: Constraint | None = None if grammar is None else grammar.start()
        self._logits = np.empty(n_vocab if grammar is not None else 0, np.float32)
        self._ends = list(ends)

    @property
    def mask_ready(self) -> bool:
        """True if `allows` takes no time."""
        return self._constraint is None or self._constraint.mask_ready

    def compute_mask(self) -> None:
        """Compute the mask of the next token; another thread may."""
        assert self._constraint is not None, "an answer without grammar has no masks"
        self._constraint.compute_mask()

    def allows(self, token: int) -> bool:
        """True if the answer may go on with a token that the model prefers. Raises GrammarError.

        A certain text may be split otherwise than here: the upstream has another grammar, and cannot know the split.
        """
        if self._allowed_of([token]) is not None:
            return True
        return self._constraint is not None and token not in self._ends and self._constraint.fits(token)

    def _allowed_of(self, tokens: list[int]) -> int | None:
        """Return the first of the tokens that is allowed if the model prefers these; None if none is."""
        if self._constraint is None:
            return tokens[0]
        self._logits.fill(0.0)
        self._logits[tokens] = 1.0  # a complete answer ends if the model prefers what it forbids
        self._constraint.apply_mask(self._logits)
        return next((token for token in tokens if self._logits[token] > -np.inf), None)

    @property
    def allowed(self) -> list[int]:
        """Tokens among which to choose instead of one that was refused last."""
        found: list[int] = np.flatnonzero(self._logits > -np.inf).tolist()
        return found

    @property
    def end(self) -> int | None:
        """An end token with which the answer may end now; None if it may not."""
        return self._allowed_of(self._ends)

    def accept(self, token: int) -> None:
        """Advance by a token. Raises GrammarError."""
        if self._constraint is not None:
            self._constraint.accept(token)

    def forced(self) -> Sequence[int]:
        """Return tokens that are certain to follow; see `Constraint`."""
        return () if self._constraint is None else self._constraint.forced()


def bias(allowed: Collection[int], n_vocab: int, wanted: dict[int, float]) -> dict[int, float]:
    """Return the biases for a choice among the allowed tokens, besides those that the request has.

    The smaller set is sent: the allowed tokens upwards, or all others downwards.
    """
    if 2 * len(allowed) <= n_vocab:
        return {id_: FULL_BIAS + wanted.get(id_, 0.0) for id_ in allowed}
    is_forbidden = np.ones(n_vocab, np.bool_)
    is_forbidden[list(allowed)] = False
    return wanted | dict.fromkeys(np.flatnonzero(is_forbidden).tolist(), -FULL_BIAS)
