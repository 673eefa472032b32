"""Write a model with another type of weights, through llama.cpp.

Each type loses some precision, and converting from one lossy type to another loses twice. `tuner.divergence` measures
the loss.
"""

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import ClassVar

from engine.backends.llamacpp import declarations
from engine.backends.llamacpp import library as libllama
from engine.model import ModelError, OptionError

FILE_TYPES = {"Q4_0": 2, "Q8_0": 7}
"""Types that llama.cpp repacks for the CPU's widest instructions while loading -> number in llama.h's `llama_ftype`."""


class QuantizeParams(ctypes.Structure):
    """`llama_model_quantize_params`."""

    _fields_: ClassVar = [
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("output_tensor_type", c_int32),
        ("token_embedding_type", c_int32),
        ("allow_requantize", c_bool),
        ("quantize_output_tensor", c_bool),
        ("only_copy", c_bool),
        ("pure", c_bool),
        ("keep_split", c_bool),
        ("dry_run", c_bool),
        ("imatrix", c_void_p),
        ("kv_overrides", c_void_p),
        ("tt_overrides", c_void_p),
        ("prune_layers", c_void_p),
        ("max_buf_size", c_size_t),
    ]


DEFAULTS = {
    "nthread": 0,
    "ftype": 7,
    "allow_requantize": False,
    "quantize_output_tensor": True,
    "only_copy": False,
    "pure": False,
    "keep_split": False,
    "dry_run": False,
    "imatrix": None,
    "kv_overrides": None,
    "tt_overrides": None,
    "prune_layers": None,
    "max_buf_size": 8 << 30,
}
"""Expected default parameters."""

SIGNATURES: dict[str, tuple[object, Sequence[object]]] = {
    "llama_model_quantize_default_params": (declarations.ParamsBuffer, []),
    "llama_model_quantize": (c_uint32, [c_char_p, c_char_p, POINTER(QuantizeParams)]),
}
"""Functions that some builds lack -> the types of their results and of their arguments."""


def parameters(library: libllama.Library) -> QuantizeParams:
    """Return the library's default parameters. Raises ModelError if it cannot quantize or has another layout."""
    try:
        for name, types in SIGNATURES.items():
            library.declare(name, *types)
    except AttributeError as error:  # xllamacpp's wheel is linked without functions that it does not call
        raise OptionError(
            f"{library.path} cannot write models: `pip install 'responsed[native]'` compiles a llama.cpp that can, "
            "or name one with --libllama"
        ) from error
    params = QuantizeParams.from_buffer_copy(library.llama_model_quantize_default_params())
    library.check(params, DEFAULTS)
    return params


def check(library: Path | None = None) -> None:
    """Raise ModelError if the library cannot write models."""
    parameters(libllama.load(library))


def quantize(path: Path, target: Path, type_: str, threads: int, library: Path | None = None) -> None:
    """Write the model in `path` to `target`, as one of `FILE_TYPES`. Raises ModelError and leaves no target."""
    native = libllama.load(library)
    params = parameters(native)
    params.nthread, params.ftype, params.allow_requantize = threads, FILE_TYPES[type_], True
    with libllama.errors() as error_lines:
        status: int = native.llama_model_quantize(os.fsencode(path), os.fsencode(target), ctypes.byref(params))
    if status != 0:
        target.unlink(missing_ok=True)
        raise ModelError(f"llama.cpp cannot write {path.name} as {type_}: {libllama.first_reason(error_lines)}")
