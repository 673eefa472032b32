"""Which engine runs a file, and why."""

from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from engine import ctrans, libllama, llamacpp
from engine.header import Header
from engine.model import Knobs, Model, ModelError

REQUANTISES = llamacpp.NAME
"""The engine that writes other types of weights, and runs them."""


class Choice(Struct, frozen=True):
    """An engine that may run a file."""

    engine: str
    reason: str
    passport: str
    """What a file has passed once it was seen to work: the engine and its version."""


def choices(header: Header, wished: str, library: Path | None) -> list[Choice]:
    """The engines to try, the best first; never empty. `wished` is one of their names, or "auto". Raises ModelError."""
    if wished == ctrans.NAME:
        _check_architecture(header, "")
        return [_ctransformers("it was asked for")]
    try:
        native = [_llamacpp(library, "it was asked for" if wished == llamacpp.NAME else "it runs today's files")]
    except ModelError as error:
        if wished == llamacpp.NAME or library is not None:
            raise  # what a person named is not replaced by something else
        _check_architecture(header, f", and llama.cpp can't be used: {error}")
        return [_ctransformers(f"llama.cpp can't be used: {error}")]
    if wished == llamacpp.NAME or header.architecture not in ctrans.ARCHITECTURES:
        return native
    return [*native, _ctransformers("llama.cpp could not load the file")]


def open_model(
    engine: str,
    weights: Path,
    *,
    n_ctx: int,
    n_slots: int,
    threads: int,
    library: Path | None,
    knobs: Knobs = llamacpp.DEFAULT,
) -> Model:
    """Raises ModelError."""
    if engine == ctrans.NAME:
        return ctrans.Ctransformers(weights, n_ctx=n_ctx, n_slots=n_slots, threads=threads)
    return llamacpp.LlamaCpp(
        libllama.load(library), weights, n_ctx=n_ctx, n_slots=n_slots, threads=threads, knobs=knobs
    )


def ways(engine: str) -> list[Knobs]:
    """The ways an engine can run a file, the default first."""
    return [Knobs()] + [Knobs(flash_attention=False)] * (engine == llamacpp.NAME)


def native_tokenizer(path: Path, library: Path | None) -> llamacpp.NativeTokenizer:
    """Raises ModelError."""
    return llamacpp.NativeTokenizer(libllama.load(library), path)


def _llamacpp(library: Path | None, reason: str) -> Choice:
    loaded = libllama.load(library)
    return Choice(llamacpp.NAME, reason, f"{llamacpp.NAME} {loaded.version} {loaded.path}")


def _ctransformers(reason: str) -> Choice:
    return Choice(ctrans.NAME, reason, f"{ctrans.NAME} {version('ctransformers')}")


def _check_architecture(header: Header, why_not_llamacpp: str) -> None:
    if header.architecture not in ctrans.ARCHITECTURES:
        known = ", ".join(sorted(ctrans.ARCHITECTURES))
        raise ModelError(
            f"the model has the architecture {header.architecture!r}, and ctransformers runs only {known}"
            f"{why_not_llamacpp or ': use --engine llamacpp'}"
        )
