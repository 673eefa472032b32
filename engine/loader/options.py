"""Settings for loading a model, and the values that fit the file and the machine."""

from pathlib import Path

from msgspec import Struct

from engine.gguf import Header
from engine.loader import machine, model_file
from engine.model import BackendOptions, OptionError, ThreadCounts
from engine.wording import counted

DEFAULT_MAX_CONTEXT = 8192
"""Maximum tokens of a slot by default: models are trained on up to 128k, for which small machines lack the memory."""


class Options(Struct, frozen=True):
    """Settings for loading a model. 0 for `n_ctx`, `threads` or `threads_batch` selects a value that fits the file and
    the machine."""

    n_slots: int
    n_ctx: int = 0
    threads: int = 0
    """Threads for steps of one token."""
    engine: str = "auto"
    libllama: Path | None = None
    """Path of llama.cpp's library; None to search for it."""
    backend_options: BackendOptions = BackendOptions()
    prefix_cache: int = 0
    """Bytes that a person has chosen for the prefix cache, which must fit beside the model."""
    chat_template: str = ""
    """File or built-in name of a template that replaces the model's own."""
    threads_batch: int = 0
    """Threads for steps of several tokens."""


def thread_counts(decode: int = 0, batch: int = 0) -> ThreadCounts:
    """Return the numbers of model threads. 0 selects all fast cores for steps of several tokens, and as many or one
    less than all cores for steps of one. Raises OptionError.

    Several tokens gain most from another thread. One token gains little, and the event loop needs a core meanwhile.
    """
    cores = machine.cores()
    for requested, flag in ((decode, "--threads"), (batch, "--threads-batch")):
        if requested > cores:
            all_cores = counted(cores, "core")
            raise OptionError(
                f"{requested} threads on {all_cores} would wait for each other: choose {flag} up to {cores}"
            )
    fast = machine.fast_cores()
    return ThreadCounts(decode or max(1, min(fast, cores - 1)), batch or fast, decode > 0, batch > 0)


def context(header: Header, requested: int = 0) -> int:
    """Return the tokens of a slot; 0 selects the model's trained context, up to `DEFAULT_MAX_CONTEXT`.

    Raises OptionError.
    """
    trained = model_file.trained_context(header)
    if trained and requested > trained:
        raise OptionError(f"the model was trained on contexts of {trained} tokens: choose a --context up to that")
    return requested or min(trained or DEFAULT_MAX_CONTEXT, DEFAULT_MAX_CONTEXT)
