"""The backend over ctransformers: llama.cpp of September 2023, driven call by call.

Each of its objects has one KV cache; it cannot batch across objects and cannot interrupt a call. Each slot is an object
of its own; they share the mapped weights. Its tokenizer and its `generate` stay unused: the tokenizer ignores special
tokens, and `generate` evaluates a token before it returns it.

Its wheel installs everywhere but has libraries for x86-64 only. Therefore it is imported only when a model is opened.
"""

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from engine.model import BatchEntry, EngineFault, FloatArray, ModelError, ModelInfo, SavedState
from engine.platform import explain_load_error, instruction_sets
from engine.wording import counted

if TYPE_CHECKING:
    from ctransformers.llm import LLM

NAME = "ctransformers"
LIBRARY = "libctransformers.so"
ARCHITECTURES = frozenset({"llama"})
"""Architectures of its time that are still published. It also supports old layouts of falcon and starcoder."""


class Ctransformers:
    """A Model; see `engine.model`."""

    def __init__(self, path: Path, *, n_ctx: int, n_slots: int, threads: int, name: str = "") -> None:
        """Open the file `path`; errors call it `name`, since it may be a copy. Raises ModelError.

        The caller must have checked `path` (`gguf.read`): the library crashes on damaged files.
        """
        check()
        self._decode_threads = self._batch_threads = threads
        self._slots = [_load(path, name or path.name, n_ctx) for _ in range(n_slots)]
        n_vocab = self._slots[0].vocab_size
        capable = {
            "batched": False,
            "copies_prefixes": False,
            "multi_row_logits": False,
            "saves_state": False,
            "cuts_state": False,
            "truncates": True,
        }
        self.info = ModelInfo(NAME, n_ctx, n_slots, n_vocab, max_batch_tokens=n_ctx, **capable)

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        for entry in batch:
            n = len(entry.tokens)
            if entry.position + n > self.info.n_ctx:
                raise ModelError(f"position {entry.position} + {counted(n, 'token')} is outside the slot")
            tokens = (ctypes.c_int * n)(*entry.tokens)
            threads = self._decode_threads if n == 1 else self._batch_threads
            if not self._slots[entry.slot].ctransformers_llm_batch_eval(tokens, n, entry.position, n, threads):
                raise ModelError(f"ctransformers could not evaluate {counted(n, 'token')} at position {entry.position}")

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        pointer = self._slots[slot].ctransformers_llm_logits_data()
        return np.ctypeslib.as_array(pointer, (self.info.n_vocab,))

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        raise ModelError("ctransformers cannot copy between slots")

    def save(self, slot: int, start: int, end: int) -> SavedState:
        raise ModelError("ctransformers cannot save a slot")

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        raise ModelError("ctransformers cannot restore a slot")

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        raise ModelError("ctransformers has no saved states")

    def use_threads(self, decode: int, batch: int) -> None:
        self._decode_threads, self._batch_threads = decode, batch

    def interrupt(self) -> None:
        """Do nothing: a call cannot be interrupted, but has few tokens (`scheduler.PREFILL_CHUNK`)."""

    def close(self) -> None:
        self._slots.clear()


def engine_id() -> str:
    """Return the engine and its version."""
    return f"{NAME} {version('ctransformers')}"


def library() -> Path:
    """Return the library for this machine: a locally built one, or the wheel's. Raises EngineFault."""
    # Importing it would load much more than the library and run py-cpuinfo, which takes a second.
    spec = find_spec("ctransformers")
    if spec is None or spec.origin is None:
        raise EngineFault("ctransformers is not installed: `pip install ctransformers==0.2.27`")
    folder = Path(spec.origin).parent / "lib"
    if (local := folder / "local" / LIBRARY).is_file():
        return local
    if platform.machine() != "x86_64":
        raise EngineFault(f"ctransformers has no library for {platform.machine()}, only for x86_64: use llama.cpp")
    if not (path := folder / _variant() / LIBRARY).is_file():
        raise EngineFault(f"ctransformers has no library {path}: install it again")
    return path


def check() -> None:
    """Raise EngineFault if the library cannot be loaded."""
    try:
        ctypes.CDLL(str(library()))
    except OSError as error:
        raise EngineFault(f"the library of ctransformers cannot be loaded: {explain_load_error(error)}") from error


def _load(path: Path, name: str, n_ctx: int) -> "LLM":
    llm = _llm_module()
    try:
        with _silenced_stderr():
            return llm.LLM(str(path), config=llm.Config(context_length=n_ctx), lib=str(library()))
    except UnicodeEncodeError as error:
        raise ModelError(f"ctransformers cannot load {name}: its path is not UTF-8, so rename it") from error
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].replace(str(path), name)
        raise ModelError(f"ctransformers cannot load {name}: {reason}") from error


def _llm_module() -> ModuleType:
    """Import `ctransformers.llm` without running the package's `__init__`, which imports a client of Hugging Face: half
    a second, and 22 MB."""
    spec = find_spec(NAME)
    assert spec is not None, "`library` has found it"
    sys.modules.setdefault(NAME, module_from_spec(spec))
    return import_module(f"{NAME}.llm")


def _variant() -> str:
    """Return the name of the wheel's library for this CPU."""
    flags = instruction_sets()
    if {"avx2", "fma", "f16c"} <= flags:
        return "avx2"
    return "avx" if {"avx", "f16c"} <= flags else "basic"


@contextlib.contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Silence file descriptor 2, to which the library prints its loading dots."""
    saved = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(silent)
