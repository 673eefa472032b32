"""Transfers between the slots of a scripted model and the prefix tree."""

from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from engine.model import BatchEntry, ModelError, SavedState
from engine.runtime.host_cache import HostCache
from engine.scheduler import PrefixCopy, PrefixRestore, PrefixSave, Transfer

TOKENS = tuple(range(60))


class CountingModel(ScriptedModel):
    """Counts saves; may refuse to restore."""

    saves = 0
    broken = False

    def save(self, slot: int, start: int, end: int) -> SavedState:
        self.saves += 1
        return super().save(slot, start, end)

    def restore(self, slot: int, states: Any, n: int) -> None:
        if self.broken:
            raise ModelError("no")
        super().restore(slot, states, n)


def filled(limit: int) -> tuple[CountingModel, HostCache]:
    """Return a model with `TOKENS` in slot 0, and its cache."""
    model = CountingModel(n_slots=3, batched=True)
    model.decode([BatchEntry(0, 0, TOKENS, logits=0)])
    return model, HostCache(model, limit)


def restore(cache: HostCache, slot: int) -> PrefixRestore:
    assert cache.tree is not None
    match = cache.tree.match((*TOKENS, 1))
    assert match.n == len(TOKENS)
    return PrefixRestore(slot, TOKENS, match.states)


def test_carry_out_moves_a_prefix_from_slot_to_tree_to_slot() -> None:
    model, cache = filled(10**6)
    assert cache.carry_out([PrefixSave(0, TOKENS, len(TOKENS), "a")]) == ()
    assert cache.carry_out([restore(cache, 1), PrefixCopy(1, 2, 30)]) == ()
    assert model.save(2, 0, 30) == model.save(0, 0, 30)


def test_carry_out_returns_the_failed_restore_and_all_behind_it() -> None:
    model, cache = filled(10**6)
    cache.carry_out([PrefixSave(0, TOKENS, len(TOKENS), "a")])
    transfers: list[Transfer] = [PrefixSave(0, TOKENS, 0, "a"), restore(cache, 1), PrefixCopy(1, 2, 30)]
    model.broken = True
    assert cache.carry_out(transfers) == transfers[1:]
    assert cache.tree is not None
    assert cache.tree.size == 0, "it would fail again"


def test_save_of_a_run_above_the_limit_is_tried_once(caplog: pytest.LogCaptureFixture) -> None:
    model, cache = filled(100)
    for _ in range(3):
        cache.carry_out([PrefixSave(0, TOKENS, len(TOKENS), "a")])
    assert model.saves == 1
    assert caplog.messages == ["60 tokens do not fit into the prefix cache: a larger --cache-megabytes would help"]


def test_cache_of_0_bytes_has_no_tree() -> None:
    model, cache = filled(0)
    assert (cache.tree, cache.savable_runs([PrefixSave(0, TOKENS, len(TOKENS), "a")], 1000)) == (None, [])
    assert model.saves == 0
