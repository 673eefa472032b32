"""Find and load llama.cpp's library, and check it against the declarations.

Structs are passed by value and carry no size or version, so a library with another layout would read garbage. Therefore
the values of its `*_default_params` are compared with the expected ones.
"""

import contextlib
import ctypes
import functools
import importlib.util
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from ctypes import c_void_p
from pathlib import Path
from typing import Any

from engine.backends.llamacpp.declarations import (
    CONTEXT_DEFAULTS,
    CONTEXT_PARAMS,
    MODEL_DEFAULTS,
    SIGNATURES,
    LogCallback,
    ModelParams,
)
from engine.model import EngineFault
from engine.platform import CPUINFO, explain_load_error, instruction_sets

log = logging.getLogger("responsed.llama")

LOG_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
"""ggml's log levels -> ours. Its informational messages fill pages, so they become debug messages."""
SPIN_COUNT = 1000
"""Iterations of OpenMP's waiting loops before a thread sleeps. By default a thread spins for milliseconds, and takes
the core from the thread that it waits for: on two cores beside a busy process, a step of one token with two threads
took 1.1 s in the mean, and 0.04 s with this limit. On an idle machine both are equally fast."""
DECODE_OUTCOMES = ("graph_compute:", "process_ubatch:", "decode:", "llama_decode:")
"""Beginnings of lines that repeat the result of `llama_decode`: errors even if the engine itself interrupted the
decode."""


class Library:
    """The loaded library; its functions are attributes by their C names."""

    def __init__(self, path: Path) -> None:
        """Raises EngineFault if the library is missing, has another layout, or needs another CPU."""
        check_cpu()
        limit_spinning()
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
        self.errors: list[str] | None = None
        """Error lines since `errors()` was entered; None outside its block."""

    def __call__(self, level: int, text: bytes, _: object) -> None:
        self._level = LOG_LEVELS.get(level, self._level)
        self._line += text.decode(errors="replace")
        if self._line.endswith("\n"):
            if stripped := self._line.strip(" .\n"):
                if self._level == logging.ERROR and self.errors is not None:
                    self.errors.append(stripped)
                log.log(logging.DEBUG if stripped.startswith(DECODE_OUTCOMES) else self._level, "%s", stripped)
            self._line = ""


_log = _Log()
LOG_CALLBACK = LogCallback(_log)
"""Referenced for ever: the library calls it until the end, and ctypes frees callbacks without references."""


@contextlib.contextmanager
def errors() -> Iterator[list[str]]:
    """Collect the library's error lines inside the block; the first line is nearest to the cause."""
    _log.errors = collected = list[str]()
    try:
        yield collected
    finally:
        _log.errors = None


def first_reason(error_lines: Sequence[str]) -> str:
    """Return the error line that is nearest to the cause."""
    return error_lines[0] if error_lines else "it gives no reason"


def limit_spinning(environ: MutableMapping[str, str] = os.environ) -> None:
    """Limit the time that the library's threads spin while they wait for each other, unless the user configured it.

    GNU OpenMP reads the variable when it is loaded: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(environ):
        environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


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
        "llama.cpp is not installed: install it with `pip install xllamacpp`, or name a library with --libllama"
    )


def check_cpu(cpuinfo: Path = CPUINFO) -> None:
    """Raise EngineFault if the CPU lacks an instruction set of x86_64 builds, instead of dying of "Illegal
    instruction". If the kernel hides them, the probe's child process finds out."""
    if platform.machine() != "x86_64":
        return  # the aarch64 build needs only armv8-a, which every such CPU has
    known = instruction_sets(cpuinfo)
    if known and (missing := {"avx2", "fma", "f16c", "bmi2"} - known):
        raise EngineFault(
            f"this CPU lacks {', '.join(sorted(missing))}, which llama.cpp's build needs: "
            "use --engine ctransformers, or compile llama.cpp here and name its library with --libllama"
        )
