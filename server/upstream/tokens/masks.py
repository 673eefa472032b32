"""The masks of one answer, computed in a thread where they take long, so that other answers go on."""

from time import perf_counter

import trio

from server.upstream.tokens.gate import TokenGate

SLOW_SECONDS = 0.001
"""Seconds of a mask that is slow. Most take 0.05 ms, and a thread costs 0.1 ms; a costly regex takes up to 100 ms."""

_limiter = trio.CapacityLimiter(1)
"""One core at most."""


class Masks:
    def __init__(self, gate: TokenGate) -> None:
        self._gate = gate
        self._is_slow = False
        """True if the last mask took long: the next one probably does too."""

    async def prepare(self) -> None:
        """Compute the mask of the next token."""
        if self._gate.mask_ready:
            return
        if self._is_slow:
            await trio.to_thread.run_sync(self._compute, limiter=_limiter)
        else:
            self._compute()

    def _compute(self) -> None:
        began = perf_counter()
        self._gate.compute_mask()
        self._is_slow = perf_counter() - began > SLOW_SECONDS
