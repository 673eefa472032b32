"""The narrow waist: what every backend meets."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]


class ModelError(Exception):
    """The model could not be loaded or could not evaluate a step. One sentence for a person."""


class ModelInfo(Struct, frozen=True):
    """What a loaded model is and can do."""

    engine: str
    n_ctx: int
    """Tokens a slot can hold."""
    n_slots: int
    n_vocab: int
    batched: bool
    """Whether one `decode` of several chunks costs less than several of one."""


class Chunk(Struct, frozen=True):
    """Tokens to evaluate in a slot from `position` on. What the slot held from there on is replaced."""

    slot: int
    position: int
    tokens: Sequence[int]
    logits: bool
    """Whether the logits after the last token are wanted."""


class Model(Protocol):
    """A model with its KV cache, divided into slots. Not thread-safe: one thread calls it."""

    @property
    def info(self) -> ModelInfo: ...

    def decode(self, batch: Sequence[Chunk]) -> None:
        """Evaluate the chunks, at most one a slot. A `ModelError` leaves the batch's slots empty from `position` on."""

    def logits(self, slot: int) -> FloatArray:
        """(n_vocab,) after the slot's last chunk; writable, valid until the next `decode`."""

    def close(self) -> None:
        """Give the memory back. Nothing may be called afterwards."""
