"""The narrow waist: what every backend meets."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]


class ModelError(Exception):
    """The model could not be loaded or could not evaluate a step. One sentence for a person."""


class EngineFault(ModelError):
    """An engine cannot run here, whatever the file: another engine may."""


class BackendOptions(Struct, frozen=True):
    """What a backend can do in more ways than one, each as right as the other. ctransformers has only one."""

    flash_attention: bool = True
    """Of llama.cpp: attention in one pass. Which way is quicker depends on the machine and the length."""


class ModelInfo(Struct, frozen=True):
    """What a loaded model is and can do."""

    engine: str
    n_ctx: int
    """Tokens a slot can hold."""
    n_slots: int
    n_vocab: int
    max_batch_tokens: int
    """Tokens a `decode` takes at most, over all chunks."""
    batched: bool
    """Whether `decode` takes several chunks, at less cost than one after the other."""
    copies_prefixes: bool
    """Whether `share` works."""
    multi_row_logits: bool
    """Whether a chunk may want more than one row of logits."""
    saves_state: bool
    """Whether `save` and `restore` work."""
    truncates: bool
    """Whether a slot can forget its last tokens; else it keeps all or nothing (recurrent models)."""
    attention_tile: int = 1
    """Tokens of a chunk that look through the slot together; fewer of them cost more each, the more it holds."""


class BatchEntry(Struct, frozen=True):
    """Tokens to evaluate in a slot from `position` on. What the slot held from there on is replaced."""

    slot: int
    position: int
    tokens: Sequence[int]
    logits: int
    """After how many of the last tokens logits are wanted: none, the last one, or, with guesses, some more."""


class Model(Protocol):
    """A model with its KV cache, divided into slots. Not thread-safe: one thread calls it."""

    @property
    def info(self) -> ModelInfo: ...

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        """Evaluate the chunks, at most one a slot. A `ModelError` leaves the batch's slots empty from `position` on."""

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        """(n_vocab,) of the slot's last chunk, the first row that was wanted being 0.

        Writable, valid until the next `decode`.
        """

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        """Copy the first `n` tokens of one slot to another, in place of all it held. Only where `info.shares`."""

    def save(self, slot: int) -> bytes:
        """All that a slot holds, for `restore`. Only where `info.saves`."""
        ...

    def restore(self, slot: int, state: bytes, n: int) -> None:
        """Make a slot hold `n` tokens that were saved by the same engine from the same model. Raises ModelError."""

    def use_threads(self, n: int) -> None:
        """How many threads the next decodes take. What has none does nothing."""

    def interrupt(self) -> None:
        """End a running `decode` early, with a ModelError; from any thread. Where that can't be, nothing."""

    def close(self) -> None:
        """Give the memory back. Nothing may be called afterwards."""
