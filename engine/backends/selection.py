"""Choose the engine that runs a file, and give the reason."""

from pathlib import Path

from msgspec import Struct

from engine.backends.ctransformers import model as ctransformers
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp import model as llamacpp
from engine.backends.llamacpp import tokenizer as llamacpp_tokenizer
from engine.gguf import Header, kinds
from engine.model import BackendOptions, EngineFault, Model, ModelError

QUANTIZING_ENGINE = llamacpp.NAME
"""The engine that writes other types of weights, and runs them."""


class BackendChoice(Struct, frozen=True):
    """An engine that may run a file."""

    engine: str
    reason: str
    engine_id: str
    """Engine and version, under which a passed probe is recorded."""
    fallback: bool = False
    """True if llama.cpp was preferred but cannot run; `reason` explains why."""


def choices(header: Header, requested: str, library: Path | None) -> list[BackendChoice]:
    """Return the engines to try, best first; never empty. `requested` is an engine's name or "auto". Raises
    ModelError."""
    if requested == ctransformers.NAME:
        return [_ctransformers(header, "it was requested")]
    try:
        reason = "it was requested" if requested == llamacpp.NAME else "it reads current GGUF files"
        preferred = _llamacpp(library, reason)
    except EngineFault as error:
        if requested == llamacpp.NAME or library is not None:
            raise  # an explicit choice is never replaced
        reason = f"llama.cpp cannot be used: {error}"
        try:
            return [_ctransformers(header, reason, fallback=True)]
        except ModelError as other:
            raise ModelError(f"{other}, and {reason}") from error
    if requested == llamacpp.NAME or library is not None:
        return [preferred]
    try:
        return [preferred, _ctransformers(header, "llama.cpp crashed", fallback=True)]
    except ModelError:
        return [preferred]


def open_model(
    engine: str,
    weights: Path,
    *,
    name: str = "",
    n_ctx: int,
    n_slots: int,
    threads: int,
    library: Path | None,
    backend_options: BackendOptions = llamacpp.DEFAULT_OPTIONS,
) -> Model:
    """Open the file `weights` of the model in the file `name`. Raises ModelError."""
    if engine == ctransformers.NAME:
        if backend_options.kv_type != llamacpp.DEFAULT_OPTIONS.kv_type:
            raise ModelError(f"ctransformers has no KV cache of type {backend_options.kv_type}: omit --kv-type")
        return ctransformers.Ctransformers(weights, name=name, n_ctx=n_ctx, n_slots=n_slots, threads=threads)
    return llamacpp.LlamaCpp(
        libllama.load(library), weights, n_ctx=n_ctx, n_slots=n_slots, threads=threads, backend_options=backend_options
    )


def option_sets(engine: str) -> list[BackendOptions]:
    """Return the option sets with which an engine runs a file to the same results, the default first."""
    return [llamacpp.DEFAULT_OPTIONS] + [BackendOptions(flash_attention=False)] * (engine == llamacpp.NAME)


def native_tokenizer(path: Path, library: Path | None) -> llamacpp_tokenizer.NativeTokenizer:
    """Return llama.cpp's tokenizer for a file, without its weights. Raises ModelError."""
    loaded = libllama.load(library)
    return llamacpp_tokenizer.NativeTokenizer(loaded, llamacpp.load_file(loaded, path, vocab_only=True))


def tokenizer_of(opened: Model) -> llamacpp_tokenizer.NativeTokenizer | None:
    """Return the tokenizer that an opened model has; it works until the model is closed."""
    return opened.tokenizer if isinstance(opened, llamacpp.LlamaCpp) else None


def _llamacpp(library: Path | None, reason: str) -> BackendChoice:
    """Return llama.cpp as a choice. Raises EngineFault if its library cannot run here."""
    loaded = libllama.load(library)
    file = loaded.path.stat()  # a library may be recompiled in place
    engine_id = f"{llamacpp.NAME} {loaded.version} {loaded.path} {file.st_size} {file.st_mtime_ns}"
    return BackendChoice(llamacpp.NAME, reason, engine_id)


def _ctransformers(header: Header, reason: str, *, fallback: bool = False) -> BackendChoice:
    """Return ctransformers as a choice. Raises ModelError if it cannot run the file or this machine."""
    if header.architecture not in ctransformers.ARCHITECTURES:
        supported = ", ".join(sorted(ctransformers.ARCHITECTURES))
        remedy = "" if fallback else ": use --engine llamacpp"
        raise ModelError(
            f"the model has the architecture {header.architecture!r}, and ctransformers runs only {supported}{remedy}"
        )
    if kinds.is_split(header):
        raise ModelError("ctransformers cannot read a model in several files: join them by `llama-gguf-split --merge`")
    ctransformers.library()
    return BackendChoice(ctransformers.NAME, reason, ctransformers.engine_id(), fallback)
