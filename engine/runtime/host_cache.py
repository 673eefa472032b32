"""The prefix cache beside the slots: carries out transfers between a model's slots and the prefix tree.

Saved state is an optimization, so an error never ends a job: a prefix that cannot be saved, copied or restored is
evaluated again, and the log has a line.
"""

import logging
import time
from collections.abc import Iterable, Sequence

from engine.model import Model, ModelError
from engine.prefix_cache import CachedRun, PrefixTree
from engine.scheduler import PrefixCopy, PrefixRestore, PrefixSave, Transfer

MAX_COPIES_SHARE = 0.25
"""Share of the memory for copies of tokens that slots still have. Such a copy is of no use if the slot's next job
continues its tokens, so it must not replace much that is nowhere else."""

log = logging.getLogger("responsed.engine")


class HostCache:
    """Saved states of slots, and their transfers. Only the inference thread uses it."""

    def __init__(self, model: Model, limit: int) -> None:
        """`limit`: bytes of saved state in memory; 0 turns the cache off."""
        self._model = model
        info = model.info
        enabled = limit > 0 and info.saves_state
        self._limit = limit
        self._row_bytes = 0.0
        """Bytes of a token's rows in the last saved run."""
        self._tail_bytes = 0
        """Bytes of its tail, which does not grow with its tokens."""
        self.tree = PrefixTree(limit, model.split, cuts_state=info.cuts_state) if enabled else None

    def advance_clock(self) -> None:
        """Set the tree's clock, before jobs are admitted."""
        if self.tree is not None:
            self.tree.now = time.monotonic()

    def statistics(self) -> tuple[int, int, int]:
        """Return the bytes of the cache, their limit, and the number of evictions."""
        return (0, 0, 0) if self.tree is None else (self.tree.size, self._limit, self.tree.evictions)

    def carry_out(self, transfers: Sequence[Transfer]) -> Sequence[Transfer]:
        """Carry out transfers in their order. Return those that were not: a failed copy or restore, and all after
        it."""
        for done, transfer in enumerate(transfers):
            match transfer:
                case PrefixSave():
                    self.save(transfer)
                case PrefixCopy() if not self._copy(transfer):
                    return transfers[done:]
                case PrefixRestore() if not self._restore(transfer):
                    return transfers[done:]
        return ()

    def save(self, save: PrefixSave) -> None:
        """Put a slot's tokens into the tree."""
        if self.tree is None or (start := self.tree.missing(save.tokens)) is None:
            return
        n = len(save.tokens) - start
        if self._size(n) > self._limit:
            return  # copying it would only delay the next job
        try:
            state = self._model.save(save.slot, start, len(save.tokens))
            run = CachedRun(save.tokens, start, state, frozenset({save.affinity} - {""}))
            self._row_bytes, self._tail_bytes = len(state.rows) / n, len(state.tail)
            self.tree.insert(run, save.savable, keep_until=save.keep_until)
            if run.size > self._limit:
                log.warning("%d tokens do not fit into the prefix cache: a larger --cache-megabytes would help", n)
        except Exception as error:
            log.warning("a prefix of the KV cache cannot be saved: %s", error, exc_info=_unexpected(error))

    def tokens_in(self, size: int) -> int:
        """Return the tokens whose state has so many bytes; those of a context before any state was saved."""
        rows = size - self._tail_bytes
        if rows < 0:
            return 0
        return int(rows / self._row_bytes) if self._row_bytes else self._model.info.n_ctx

    def has_room_for_copies(self, lengths: Iterable[int]) -> bool:
        """True if copies of slots, which still have so many tokens, replace little else."""
        return self.tree is not None and sum(map(self._size, lengths)) <= MAX_COPIES_SHARE * self._limit

    def savable_runs(self, unsaved: Iterable[PrefixSave], limit: int) -> list[CachedRun]:
        """Save slots, and return the most useful runs that may be written to a disk and fit into the limit."""
        if self.tree is None:
            return []
        for save in unsaved:
            self.save(save)
        return self.tree.savable_runs(limit)

    def adopt(self, run: CachedRun) -> None:
        """Add a run of an earlier process."""
        if self.tree is None:
            return
        try:
            self.tree.insert(run, len(run.tokens), past=True)
        except Exception as error:
            log.warning("a snapshot is skipped: %s", error, exc_info=_unexpected(error))

    def drop(self, group: str | None) -> None:
        """Forget the savable runs of an affinity group; None: of all."""
        if self.tree is not None:
            self.tree.drop(group)

    def _size(self, tokens: int) -> float:
        """Return the bytes of the state of so many tokens, an estimate by the last saved run."""
        return tokens * self._row_bytes + self._tail_bytes

    def _copy(self, copy: PrefixCopy) -> bool:
        """Copy a prefix between slots. Return False if that fails."""
        try:
            self._model.copy_prefix(copy.source, copy.target, copy.n)
        except Exception as error:
            log.warning("a prefix of another slot is evaluated again: %s", error, exc_info=_unexpected(error))
            return False
        return True

    def _restore(self, restore: PrefixRestore) -> bool:
        """Put saved tokens into a slot. Return False if they cannot be restored; then they are forgotten."""
        try:
            self._model.restore(restore.target, restore.states, len(restore.tokens))
        except Exception as error:
            log.warning("a saved prefix is evaluated again: %s", error, exc_info=_unexpected(error))
            if self.tree is not None:
                self.tree.forget(restore.tokens)
            return False
        return True


def _unexpected(error: Exception) -> bool:
    return not isinstance(error, ModelError)
