"""Saved state of every kind of model: windows and recurrent state continue at the end of any saved part."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.model import LlamaCpp
from engine.model import BatchEntry, FloatArray, ModelError, SavedState
from tests.support.tiny_models import FAMILIES, write

ENDS = (40, 70, 75)
"""Ends of the saved parts; windows have 16 tokens."""
TOKENS = [5 + at * 7 % 230 for at in range(90)]


def llamacpp(path: Path, n_ctx: int = 128) -> LlamaCpp:
    return LlamaCpp(libllama.load(libllama.find(None)), path, n_ctx=n_ctx, n_slots=3, threads=1)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCpp]:
    model = llamacpp(write(tmp_path / "model.gguf", request.param))
    yield model
    model.close()


def evaluate(model: LlamaCpp, tokens: list[int], slot: int, start: int) -> FloatArray:
    """Return a copy of the logits after `tokens[start:]`."""
    for position in range(start, len(tokens), 512):
        part = tokens[position : position + 512]
        model.decode([BatchEntry(slot, position, part, logits=int(position + 512 >= len(tokens)))])
    return model.logits(slot).copy()


def saved_parts(model: LlamaCpp, tokens: list[int], ends: tuple[int, ...]) -> tuple[list[SavedState], list[FloatArray]]:
    """Return the states of the parts that end there, and the logits after all tokens, evaluated from each end on."""
    parts: list[SavedState] = []
    for start, end in zip((0, *ends), ends, strict=False):
        evaluate(model, tokens[:end], 0, start)
        parts.append(model.save(0, start, end))
    last = evaluate(model, tokens, 0, ends[-1])  # slot 0 has taken the steps of the last end already
    expected = []
    for n in range(1, len(ends)):  # in the same steps: others round otherwise
        for start, end in zip((0, *ends[:n]), (*ends[:n], len(tokens)), strict=True):
            logits = evaluate(model, tokens[:end], 1, start)
        expected.append(logits)
    return parts, [*expected, last]


@pytest.mark.parametrize("slot", range(3))
def test_restore_up_to_any_tail_continues_as_evaluated(model: LlamaCpp, slot: int) -> None:
    parts, expected = saved_parts(model, TOKENS, ENDS)
    for n in (3, 1, 2, 3):
        model.restore(slot, parts[:n], ENDS[n - 1])
        continued = evaluate(model, TOKENS, slot, ENDS[n - 1])
        assert np.allclose(continued, expected[n - 1], atol=1e-4)
        assert continued.argmax() == expected[n - 1].argmax()


def test_restore_of_a_split_state_continues_as_evaluated(model: LlamaCpp) -> None:
    parts, expected = saved_parts(model, TOKENS, ENDS)
    model.restore(2, [parts[0], *model.split(parts[1], 7)], ENDS[1])
    assert np.allclose(evaluate(model, TOKENS, 2, ENDS[1]), expected[1], atol=1e-4)


def test_restore_without_a_tail_works_only_if_states_can_be_cut(model: LlamaCpp) -> None:
    parts, expected = saved_parts(model, TOKENS, ENDS)
    left, _ = model.split(parts[1], 7)
    if model.info.cuts_state:
        model.restore(2, [parts[0], left], ENDS[0] + 7)
        assert np.abs(evaluate(model, TOKENS, 2, ENDS[0] + 7) - expected[0]).max() < 0.1
    else:
        with pytest.raises(ModelError):
            model.restore(2, [parts[0], left], ENDS[0] + 7)
    assert np.allclose(evaluate(model, TOKENS[: ENDS[0]], 2, 0), evaluate(model, TOKENS[: ENDS[0]], 1, 0), atol=1e-4)


def test_restore_of_gemma_3_continues_behind_its_window(gemma3: Path) -> None:
    """The first part is outside the window of 512 tokens at the end of the second one. Logits, of -20 to 20, change by
    up to 2 with the build and the sizes of the steps: activations are rounded to 8 bits."""
    model = llamacpp(gemma3, n_ctx=1024)
    text = (Path(__file__).parents[3] / "LICENSE").read_text()
    tokens = model.tokenizer(text)[:550]
    ends = (20, 540)
    parts, expected = saved_parts(model, tokens, ends)
    for n in (1, 2):
        model.restore(2, parts[:n], ends[n - 1])
        continued = evaluate(model, tokens, 2, ends[n - 1])
        assert np.abs(continued - expected[n - 1]).max() < 3
        assert continued.argmax() == expected[n - 1].argmax()
    model.close()
