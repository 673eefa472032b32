"""Declarations of the llama.cpp C functions that the engine calls, and a loader that checks the library against them.

The layouts are those of llama.h of autumn 2026. Structs are passed by value and carry no size or version, so a library
with another layout would read garbage. Therefore the values of its `*_default_params` are compared with the expected
ones.
"""

import contextlib
import ctypes
import functools
import importlib.util
import logging
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path
from typing import Any, ClassVar

from engine.linking import explain_load_error
from engine.model import EngineFault

log = logging.getLogger("responsed.llama")

LogCallback = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)


class ModelParams(ctypes.Structure):
    """`llama_model_params`."""

    _fields_: ClassVar = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


_CONTEXT_FIELDS_BEFORE_MOE: list[tuple[str, Any]] = [
    ("n_ctx", c_uint32),
    ("n_batch", c_uint32),
    ("n_ubatch", c_uint32),
    ("n_seq_max", c_uint32),
    ("n_rs_seq", c_uint32),
    ("n_outputs_max", c_uint32),
    ("n_outputs_max_per_seq", c_uint32),
    ("n_threads", c_int32),
    ("n_threads_batch", c_int32),
    ("ctx_type", c_int32),
    ("rope_scaling_type", c_int32),
    ("pooling_type", c_int32),
    ("attention_type", c_int32),
    ("flash_attn_type", c_int32),
    ("rope_freq_base", c_float),
    ("rope_freq_scale", c_float),
    ("yarn_ext_factor", c_float),
    ("yarn_attn_factor", c_float),
    ("yarn_beta_fast", c_float),
    ("yarn_beta_slow", c_float),
    ("yarn_orig_ctx", c_uint32),
    ("defrag_thold", c_float),
    ("cb_eval", c_void_p),
    ("cb_eval_user_data", c_void_p),
    ("type_k", c_int32),
    ("type_v", c_int32),
]
_CONTEXT_FIELDS_AFTER_MOE: list[tuple[str, Any]] = [
    ("abort_callback", c_void_p),
    ("abort_callback_data", c_void_p),
    ("embeddings", c_bool),
    ("offload_kqv", c_bool),
    ("no_perf", c_bool),
    ("op_offload", c_bool),
    ("swa_full", c_bool),
    ("kv_unified", c_bool),
    ("samplers", c_void_p),
    ("n_samplers", c_size_t),
    ("ctx_other", c_void_p),
]


class ContextParams5(ctypes.Structure):
    """`llama_context_params` of versions 0.5."""

    _fields_: ClassVar = [*_CONTEXT_FIELDS_BEFORE_MOE, *_CONTEXT_FIELDS_AFTER_MOE]


class ContextParams6(ctypes.Structure):
    """`llama_context_params` of versions 0.6."""

    _fields_: ClassVar = [*_CONTEXT_FIELDS_BEFORE_MOE, ("moe_cache_size", c_size_t), *_CONTEXT_FIELDS_AFTER_MOE]


class ParamsBuffer(ctypes.Structure):
    """A buffer that is large enough for the parameters of any version: a library writes as much as its own layout
    has."""

    _fields_: ClassVar = [("bytes", c_uint8 * 1024)]


CONTEXT_PARAMS = {"0.5.": ContextParams5, "0.6.": ContextParams6}
"""Beginning of `llama_version()` -> layout. The declarations follow the headers of these versions."""


class Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_: ClassVar = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


SIGNATURES: dict[str, tuple[object, Sequence[object]]] = {
    "llama_version": (c_char_p, []),
    "llama_log_set": (None, [LogCallback, c_void_p]),
    "llama_backend_init": (None, []),
    "llama_model_default_params": (ParamsBuffer, []),
    "llama_context_default_params": (ParamsBuffer, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_model_is_recurrent": (c_bool, [c_void_p]),
    "llama_model_is_hybrid": (c_bool, [c_void_p]),
    "llama_model_n_swa": (c_int32, [c_void_p]),
    "llama_free": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_state_seq_get_size": (c_size_t, [c_void_p, c_int32]),
    "llama_state_seq_get_data": (c_size_t, [c_void_p, POINTER(c_uint8), c_size_t, c_int32]),
    "llama_state_seq_set_data": (c_size_t, [c_void_p, POINTER(c_uint8), c_size_t, c_int32]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_set_abort_callback": (None, [c_void_p, c_void_p, c_void_p]),
}

# Expected default parameters: fields from the beginning to the end of each struct.
MODEL_DEFAULTS = {"n_gpu_layers": -1, "split_mode": 1, "main_gpu": 0, "vocab_only": False, "use_extra_bufts": True}
CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "rope_scaling_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "embeddings": False,
    "offload_kqv": True,
    "swa_full": True,
    "kv_unified": False,
    "samplers": None,
    "n_samplers": 0,
}

LOG_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
"""ggml's log levels -> ours. Its informational messages fill pages, so they become debug messages."""
DECODE_OUTCOMES = ("graph_compute:", "process_ubatch:", "decode:", "llama_decode:")
"""Beginnings of lines that repeat the result of `llama_decode`: errors even if the engine itself interrupted the
decode."""


class Library:
    """The loaded library; its functions are attributes by their C names."""

    def __init__(self, path: Path) -> None:
        """Raises EngineFault if the library is missing, has another layout, or needs another CPU."""
        check_cpu()
        self.path = path
        try:
            self._loaded = ctypes.CDLL(str(path))
            for name, types in SIGNATURES.items():
                self.declare(name, *types)
            self.version: str = self._loaded.llama_version().decode()
            params = next(
                (params for prefix, params in CONTEXT_PARAMS.items() if self.version.startswith(prefix)), None
            )
            if params is None:
                fitting = " or ".join(f"{prefix}x" for prefix in CONTEXT_PARAMS)
                raise EngineFault(f"{path} is llama.cpp {self.version}; this version of responsed fits {fitting}")
            self._params = params
            self.declare("llama_init_from_model", c_void_p, [c_void_p, params])
        except (OSError, AttributeError) as error:
            raise EngineFault(f"{path} is not a usable llama.cpp library: {explain_load_error(error)}") from error
        self._loaded.llama_log_set(LOG_CALLBACK, None)
        self.check(self.model_params(), MODEL_DEFAULTS)
        self.check(self.context_params(), CONTEXT_DEFAULTS)
        self._loaded.llama_backend_init()

    def __getattr__(self, name: str) -> Callable[..., Any]:  # ctypes converts C's types
        function: Callable[..., Any] = getattr(self._loaded, name)
        return function

    def model_params(self) -> ModelParams:
        """Return the library's default model parameters."""
        return ModelParams.from_buffer_copy(self._loaded.llama_model_default_params())

    def context_params(self) -> Any:  # a ContextParams of the library's version
        """Return the library's default context parameters."""
        return self._params.from_buffer_copy(self._loaded.llama_context_default_params())

    def declare(self, name: str, result: object, arguments: Sequence[object]) -> None:
        """Declare a function's types. Raises AttributeError if the library lacks the function."""
        function = getattr(self._loaded, name)
        function.restype, function.argtypes = result, arguments

    def check(self, params: ctypes.Structure, defaults: Mapping[str, object]) -> None:
        """Raise EngineFault if the library's default parameters differ from the expected values."""
        for field, expected in defaults.items():
            if (found := getattr(params, field)) != expected:
                raise EngineFault(
                    f"{self.path} does not fit: its default {field} reads as {found!r}, not {expected!r}; "
                    "use the library of the xllamacpp that responsed requires"
                )


class _Log:
    """Forwards the library's lines to our log. A line may arrive in parts: level 5 continues the line before."""

    def __init__(self) -> None:
        self._line = ""
        self._level = logging.DEBUG
        self.errors: list[str] = []
        """Error lines since `errors()` was entered."""

    def __call__(self, level: int, text: bytes, _: object) -> None:
        self._level = LOG_LEVELS.get(level, self._level)
        self._line += text.decode(errors="replace")
        if self._line.endswith("\n"):
            if stripped := self._line.strip(" .\n"):
                if self._level == logging.ERROR:
                    self.errors.append(stripped)
                log.log(logging.DEBUG if stripped.startswith(DECODE_OUTCOMES) else self._level, "%s", stripped)
            self._line = ""


_log = _Log()
LOG_CALLBACK = LogCallback(_log)
"""Referenced for ever: the library calls it until the end, and ctypes frees callbacks without references."""


@contextlib.contextmanager
def errors() -> Iterator[list[str]]:
    """Collect the library's error lines inside the block; the first line is nearest to the cause."""
    _log.errors.clear()
    yield _log.errors


def load(requested: Path | None = None) -> Library:
    """Return the library that `find` finds, one object for each file. Raises EngineFault."""
    return _load(find(requested))


@functools.cache
def _load(path: Path) -> Library:
    return Library(path)


def find(requested: Path | None = None) -> Path:
    """Return the path of the library: the requested one, a locally compiled one, or the one in xllamacpp's wheel.

    Raises EngineFault.
    """
    if requested is not None:
        return requested
    for package, name in (("llama_cpp", "lib/libllama.so"), ("xllamacpp", "xllamacpp.abi3.so")):
        # Importing the packages would load much more than the library.
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder, name)).is_file():
                return path
    raise EngineFault(
        "llama.cpp is not installed: install it with `pip install xllamacpp`, or name a library by --libllama"
    )


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raise EngineFault if the CPU lacks an instruction set of x86_64 builds, instead of dying of "Illegal
    instruction"."""
    if platform.machine() != "x86_64":
        return  # the aarch64 build needs only armv8-a, which every such CPU has
    line = cpuinfo.read_text().partition("flags")[2].partition("\n")[0]
    if missing := {"avx2", "fma", "f16c", "bmi2"} - set(re.findall(r"\w+", line)):
        raise EngineFault(
            f"this CPU lacks {', '.join(sorted(missing))}, which llama.cpp's build needs: "
            "use --engine ctransformers, or compile llama.cpp here and name its library by --libllama"
        )
