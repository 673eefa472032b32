"""Which engine runs a file, and why."""

from pathlib import Path

from msgspec import Struct

from engine.backends.ctransformers import model
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp import model as llamacpp
from engine.gguf import Header, kinds
from engine.model import BackendOptions, EngineFault, Model, ModelError

QUANTIZING_ENGINE = llamacpp.NAME
"""The engine that writes other types of weights, and runs them."""


class BackendChoice(Struct, frozen=True):
    """An engine that may run a file."""

    engine: str
    reason: str
    engine_id: str
    """What a file has passed once it was seen to work: the engine and its version."""
    fallback: bool = False
    """True if llama.cpp would have been taken; `reason` says why it was not."""


def choices(header: Header, wished: str, library: Path | None) -> list[BackendChoice]:
    """The engines to try, the best first; never empty. `wished` is one of their names, or "auto". Raises ModelError."""
    if wished == model.NAME:
        return [_ctransformers(header, "it was asked for")]
    try:
        native = _llamacpp(library, "it was asked for" if wished == llamacpp.NAME else "it runs today's files")
    except EngineFault as error:
        if wished == llamacpp.NAME or library is not None:
            raise  # what a person named is not replaced by something else
        reason = f"llama.cpp can't be used: {error}"
        try:
            return [_ctransformers(header, reason, fallback=True)]
        except ModelError as other:
            raise ModelError(f"{other}, and {reason}") from error
    if wished == llamacpp.NAME or library is not None:
        return [native]
    try:
        return [native, _ctransformers(header, "llama.cpp crashed", fallback=True)]
    except ModelError:
        return [native]


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
    """Open the file `weights`, of the model in the file `name`. Raises ModelError."""
    if engine == model.NAME:
        return model.Ctransformers(weights, name=name, n_ctx=n_ctx, n_slots=n_slots, threads=threads)
    return llamacpp.LlamaCpp(
        libllama.load(library), weights, n_ctx=n_ctx, n_slots=n_slots, threads=threads, backend_options=backend_options
    )


def option_sets(engine: str) -> list[BackendOptions]:
    """The ways an engine can run a file, the default first."""
    return [BackendOptions()] + [BackendOptions(flash_attention=False)] * (engine == llamacpp.NAME)


def native_tokenizer(path: Path, library: Path | None) -> llamacpp.NativeTokenizer:
    """Raises ModelError."""
    return llamacpp.NativeTokenizer(libllama.load(library), path)


def _llamacpp(library: Path | None, reason: str) -> BackendChoice:
    loaded = libllama.load(library)
    file = loaded.path.stat()  # it may be compiled anew in the same place
    passport = f"{llamacpp.NAME} {loaded.version} {loaded.path} {file.st_size} {file.st_mtime_ns}"
    return BackendChoice(llamacpp.NAME, reason, passport)


def _ctransformers(header: Header, reason: str, *, fallback: bool = False) -> BackendChoice:
    """Raises ModelError where it cannot run the file, or has no library for this machine."""
    if header.architecture not in model.ARCHITECTURES:
        known = ", ".join(sorted(model.ARCHITECTURES))
        cure = "" if fallback else ": use --engine llamacpp"
        raise ModelError(
            f"the model has the architecture {header.architecture!r}, and ctransformers runs only {known}{cure}"
        )
    if kinds.is_split(header):
        raise ModelError("ctransformers cannot read a model in several files: join them by `llama-gguf-split --merge`")
    model.library()
    return BackendChoice(model.NAME, reason, model.engine_id(), fallback)
