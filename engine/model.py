"""The interface that every backend implements."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
Buffer: TypeAlias = bytes | memoryview


class ModelError(Exception):
    """The model could not be loaded or could not evaluate a step. The message is one sentence for a person."""


class OptionError(ModelError):
    """An option does not fit the file or the machine."""


class TooLittleMemory(ModelError):
    """The model with its settings does not fit into the memory of this machine."""


class TooLittleDisk(ModelError):
    """The disk has no room for the model or its copy."""


class EngineFault(ModelError):
    """An engine cannot run on this machine, whatever the file; another engine may."""


KV_TYPES = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types of the KV cache's numbers, by ggml's names, from the most precise to the smallest."""


class BackendOptions(Struct, frozen=True):
    """Options of llama.cpp that trade speed, memory and precision. ctransformers has only the defaults."""

    flash_attention: bool = True
    """True to compute attention in one pass. The faster setting depends on the machine and the context length."""
    kv_type: str = "f16"
    """One of `KV_TYPES`. All but f16 require flash attention, and cost precision."""


class ThreadCounts(Struct, frozen=True):
    """Numbers of threads for steps of one token and for steps of several, such as prompts, drafts and batches."""

    decode: int
    batch: int
    decode_is_fixed: bool = True
    """True if the user chose `decode`. Otherwise it is the maximum, and fewer threads may run."""
    batch_is_fixed: bool = True


class ModelInfo(Struct, frozen=True):
    """Properties and capabilities of a loaded model."""

    engine: str
    n_ctx: int
    """Capacity of a slot, in tokens."""
    n_slots: int
    n_vocab: int
    max_batch_tokens: int
    """Maximum tokens of one `decode`, over all batch entries."""
    batched: bool
    """True if `decode` evaluates several entries at less cost than one after the other."""
    copies_prefixes: bool
    """True if `copy_prefix` works."""
    multi_row_logits: bool
    """True if a batch entry may request more than one row of logits."""
    saves_state: bool
    """True if `save`, `restore` and `split` work."""
    cuts_state: bool
    """True if saved states can be cut between any two tokens. Otherwise states have tails, and a slot can only be
    restored up to the end of a state with one (attention windows, recurrent models)."""
    truncates: bool
    """True if a slot can drop its last tokens; otherwise it can only drop all of them (recurrent models)."""
    attention_tile: int = 1
    """Tokens of an entry that share one pass over the slot's KV cache. Smaller entries cost more per token."""


class SavedState(Struct, frozen=True):
    """The state of a slot's tokens [start, end)."""

    rows: Buffer
    """Rows of the full-attention KV cache: they can be cut between tokens and joined."""
    tail: Buffer
    """Everything else that is needed to continue at `end` (attention windows, recurrent state). May be empty."""

    @property
    def size(self) -> int:
        """Bytes of both parts."""
        return len(self.rows) + len(self.tail)


class BatchEntry(Struct, frozen=True):
    """Tokens to evaluate in a slot from `position` on. They replace the slot's tokens from there on."""

    slot: int
    position: int
    tokens: Sequence[int]
    logits: int
    """Number of last tokens whose logits are requested: 0, 1, or more with draft tokens."""


class Model(Protocol):
    """A model with its KV cache, divided into slots. Not thread-safe: only one thread calls it."""

    @property
    def info(self) -> ModelInfo:
        """Properties and capabilities of the model."""
        ...

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        """Evaluate the entries, at most one a slot.

        A `ModelError` leaves their slots empty from `position` on, or entirely if the model cannot truncate.
        """

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        """Return the (n_vocab,) logits of the slot's last entry; row 0 is the first requested one.

        The array is writable and valid until the next `decode`.
        """

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        """Replace the target slot by the first `n` tokens of the source. Requires `info.copies_prefixes`.

        A ModelError leaves the target empty.
        """

    def save(self, slot: int, start: int, end: int) -> SavedState:
        """Return the state of a slot's tokens [start, end), at least one. The slot loses the tokens after them, such as
        rejected drafts. Requires `info.saves_state`, as do the next two. Each raises ModelError."""
        ...

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        """Replace a slot's tokens by the first `n` of consecutive states, which begin with token 0 and come from the
        same engine and model.

        Unless `info.cuts_state`, `n` must be the end of the last state, and that must have a tail. A ModelError leaves
        the slot empty.
        """

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        """Cut a state after its first `at` tokens; both parts have some. The left part has no tail."""
        ...

    def use_threads(self, decode: int, batch: int) -> None:
        """Set the numbers of threads for later decodes: of one token, and of several. Backends without threads ignore
        it."""

    def interrupt(self) -> None:
        """End a running `decode` early with a ModelError; any thread may call it. Backends that cannot interrupt ignore
        it."""

    def close(self) -> None:
        """Free the memory. No method may be called afterwards."""
