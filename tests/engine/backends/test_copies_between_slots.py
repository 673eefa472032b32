"""Copies of prefixes between slots are complete before other transfers of the same step overwrite or read the slots.

llama.cpp postpones some copies until the next decode.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.backends.llamacpp import kv_rows
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.model import LlamaCpp
from engine.model import BatchEntry, FloatArray, ModelError, SavedState
from tests.support.tiny_models import write

N = 40
"""Tokens of a copied prefix; windows have 16."""
FIRST = [5 + at * 7 % 230 for at in range(N + 1)]
SECOND = [9 + at * 11 % 230 for at in range(N + 1)]
UNKNOWN_LAYOUT = "qwen3 with an unknown layout of saved states"


def llamacpp(path: Path, n_ctx: int = 128) -> LlamaCpp:
    return LlamaCpp(libllama.load(libllama.find(None)), path, n_ctx=n_ctx, n_slots=3, threads=1)


@pytest.fixture(params=["qwen3", "gemma3", UNKNOWN_LAYOUT])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaCpp]:
    family: str = request.param
    if family == UNKNOWN_LAYOUT:
        monkeypatch.setattr(kv_rows, "read", unreadable)
    model = llamacpp(write(tmp_path / "model.gguf", family.split()[0]))
    yield model
    model.close()


def unreadable(_: kv_rows.Bytes) -> kv_rows.Rows:
    raise ModelError("unknown layout")


def continued(model: LlamaCpp, tokens: list[int], slot: int, n: int = N) -> FloatArray:
    """Return a copy of the logits after `tokens`, of which the slot contains the first `n`."""
    model.decode([BatchEntry(slot, n, tokens[n:], logits=1)])
    return model.logits(slot).copy()


def evaluated(model: LlamaCpp, tokens: list[int], slot: int) -> FloatArray:
    """Evaluate all but the last token, then the last one. Return a copy of the logits."""
    model.decode([BatchEntry(slot, 0, tokens[:-1], logits=0)])
    return continued(model, tokens, slot, len(tokens) - 1)


def prepared(model: LlamaCpp) -> tuple[FloatArray, FloatArray, SavedState]:
    """Put `FIRST` into slot 0. Return the logits after `FIRST` and `SECOND`, and the state of `SECOND`."""
    second = evaluated(model, SECOND, 2)
    state = model.save(2, 0, N)
    model.decode([BatchEntry(2, 0, [1], logits=0)])
    return evaluated(model, FIRST, 0), second, state


@pytest.mark.parametrize("slot", [0, 1], ids=["source", "target"])
def test_restore_into_a_slot_of_a_copy_leaves_the_other_one_unchanged(model: LlamaCpp, slot: int) -> None:
    first, second, state = prepared(model)
    model.copy_prefix(0, 1, N)
    model.restore(slot, [state], N)
    assert np.allclose(continued(model, FIRST, 1 - slot), first, atol=1e-4)
    assert np.allclose(continued(model, SECOND, slot), second, atol=1e-4)


def test_save_of_the_target_of_a_copy_is_the_copied_prefix(model: LlamaCpp) -> None:
    first, _, _ = prepared(model)
    model.copy_prefix(0, 1, N)
    state = model.save(1, 0, N)
    model.restore(2, [state], N)
    assert np.allclose(continued(model, FIRST, 2), first, atol=1e-4)


def test_copy_that_fails_leaves_the_target_empty(model: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    if not model.info.cuts_state:
        pytest.skip("copies of whole buffers cannot fail")
    first, second, _ = prepared(model)
    with monkeypatch.context() as patch:
        patch.setattr(model._lib, "llama_memory_seq_pos_max", lambda *_: N)
        with pytest.raises(ModelError, match=r"^llama\.cpp could not restore 40 tokens into slot 1$"):
            model.copy_prefix(0, 1, N)
    assert np.allclose(evaluated(model, SECOND, 1), second, atol=1e-4)
    assert np.allclose(continued(model, FIRST, 0), first, atol=1e-4)


def test_copies_one_after_the_other_keep_their_order(model: LlamaCpp) -> None:
    """A copy of a copy, and a copy into the first one's source."""
    first, second, state = prepared(model)
    model.restore(2, [state], N)
    model.copy_prefix(0, 1, N)
    model.copy_prefix(2, 0, N)
    model.copy_prefix(1, 2, N)
    assert np.allclose(continued(model, FIRST, 1), first, atol=1e-4)
    assert np.allclose(continued(model, SECOND, 0), second, atol=1e-4)
    assert np.allclose(continued(model, FIRST, 2), first, atol=1e-4)


def test_gemma_3_answers_from_the_copied_prefix_after_a_restore_into_its_source(gemma3: Path) -> None:
    model = llamacpp(gemma3)
    first, second, state = prepared(model)
    model.copy_prefix(0, 1, N)
    model.restore(0, [state], N)
    assert np.abs(continued(model, FIRST, 1) - first).max() < 1
    assert np.abs(continued(model, SECOND, 0) - second).max() < 1
    model.close()
