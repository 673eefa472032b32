"""Transfers between the slots of a scripted model and the prefix tree."""

from typing import Any

import pytest
from msgspec.structs import replace

from engine.backends.scripted import ScriptedModel
from engine.model import BatchEntry, ModelError, SavedState
from engine.runtime.host_cache import HostCache
from engine.scheduler import PrefixCopy, PrefixRestore, PrefixSave, Transfer

TOKENS = tuple(range(60))


class CountingModel(ScriptedModel):
    """Counts saves; may refuse to copy and to restore."""

    saves = 0
    broken = False

    def save(self, slot: int, start: int, end: int) -> SavedState:
        self.saves += 1
        return super().save(slot, start, end)

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        if self.broken:
            raise ModelError("no")
        super().copy_prefix(source, target, n)

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


def test_carry_out_returns_the_failed_copy_and_all_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    model, cache = filled(0)
    transfers: list[Transfer] = [PrefixSave(0, TOKENS, 0, "a"), PrefixCopy(0, 1, 30), PrefixCopy(1, 2, 30)]
    model.broken = True
    assert cache.carry_out(transfers) == transfers[1:]
    assert caplog.messages == ["a prefix of another slot is evaluated again: no"]


def test_save_of_a_run_above_the_limit_is_tried_once(caplog: pytest.LogCaptureFixture) -> None:
    model, cache = filled(100)
    for _ in range(3):
        cache.carry_out([PrefixSave(0, TOKENS, len(TOKENS), "a")])
    assert model.saves == 1
    assert caplog.messages == ["60 tokens do not fit into the prefix cache: a larger --cache-megabytes would help"]


class TailedModel(CountingModel):
    """Saves a tail with each state, as models with an attention window do."""

    def __init__(self, tail: bytes) -> None:
        super().__init__(n_slots=2, batched=True)
        self.info = replace(self.info, cuts_state=False)
        self._tail = tail

    def save(self, slot: int, start: int, end: int) -> SavedState:
        return replace(super().save(slot, start, end), tail=self._tail)


def test_save_of_few_tokens_with_a_tail_leaves_room_for_many() -> None:
    """A tail of 10,000 bytes for one token does not mean 10,000 bytes a token."""
    model = TailedModel(bytes(10_000))
    cache = HostCache(model, 100_000)
    longer = (*TOKENS, 1)
    for slot, tokens in enumerate((longer, other := tuple(range(100, 200)))):
        model.decode([BatchEntry(slot, 0, tokens, logits=0)])
    for save in (PrefixSave(0, longer, 0, "a"), PrefixSave(0, TOKENS, 0, "a")):
        cache.save(save)
        assert cache.has_room_for_copies([61, 100])
        assert not cache.has_room_for_copies([20] * 3), "three tails are more than a quarter"
        assert (cache.tokens_in(9_999), cache.tokens_in(100_000) >= 100) == (0, True)
    cache.save(PrefixSave(1, other, 0, "b"))
    assert cache.tree is not None
    assert cache.tree.match((*other, 1)).n == len(other)


def test_cache_of_0_bytes_has_no_tree() -> None:
    model, cache = filled(0)
    assert (cache.tree, cache.savable_runs([PrefixSave(0, TOKENS, len(TOKENS), "a")], 1000)) == (None, [])
    assert model.saves == 0
