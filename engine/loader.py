"""A file -> a model that runs, with its vocabulary and its template."""

import fcntl
import logging
import os
from functools import partial
from pathlib import Path

from msgspec import Struct

from engine import backends, backport, ctrans, gguf
from engine.backends import Choice
from engine.header import GGUFError, Header
from engine.ledger import Ledger
from engine.model import Knobs, Model, ModelError
from engine.probe import TRIES, probe
from engine.template import ChatTemplate
from engine.vocabulary import Vocabulary

MOST_CONTEXT = 8192
"""Tokens a slot gets unasked: models are trained on up to 128k, and no small machine holds that twice."""

log = logging.getLogger("responsed.engine")


class Options(Struct, frozen=True):
    """How a model is to be loaded. 0 for `n_ctx` or `threads` stands for what fits the file and the machine."""

    n_slots: int
    n_ctx: int = 0
    threads: int = 0
    engine: str = "auto"
    libllama: Path | None = None
    """llama.cpp's library, where it is not to be looked for."""
    knobs: Knobs = Knobs()


class Loaded(Struct, frozen=True):
    """All that is needed to answer with a model."""

    model: Model
    vocabulary: Vocabulary
    template: ChatTemplate
    fingerprint: str
    """Of all that a saved KV cache depends on: model, engine, settings."""


def load(path: Path, options: Options, cache: Path) -> Loaded:
    """Raises GGUFError, TemplateError, ModelError. `cache` holds what is made of the file once."""
    header, vocabulary, template = read(path, options.libllama)
    n_ctx = _context(header, options.n_ctx)
    threads = options.threads or default_threads()
    ledger = Ledger(cache / "ledger.json")

    def open_with(choice: Choice) -> Loaded:
        weights = _weights(path, header, ledger, cache) if choice.engine == ctrans.NAME else path
        tried = f"{choice.passport}, probe {TRIES}"
        if not ledger.has_passed(path, tried):
            probe(path, weights, choice.engine, options.libllama)
            ledger.passes(path, tried)
        model = backends.open_model(
            choice.engine,
            weights,
            n_ctx=n_ctx,
            n_slots=options.n_slots,
            threads=threads,
            library=options.libllama,
            knobs=options.knobs,
        )
        size = (options.n_slots, n_ctx, threads)
        log.info("%s runs %s (%s): %d slots of %d tokens, %d threads", choice.engine, path.name, choice.reason, *size)
        fingerprint = f"{ledger.sha256(path)} {choice.passport} n_ctx {n_ctx} {options.knobs}"
        return Loaded(model, vocabulary, template, fingerprint)

    *others, last = backends.choices(header, options.engine, options.libllama)
    for choice in others:
        try:
            return open_with(choice)
        except ModelError as error:
            log.warning("%s; trying the next engine", error)
    return open_with(last)


def read(path: Path, libllama: Path | None = None) -> tuple[Header, Vocabulary, ChatTemplate]:
    """What the file says of itself, without its weights. Raises GGUFError, TemplateError, ModelError."""
    header = gguf.read(path)
    try:
        vocabulary = Vocabulary(header, partial(backends.native_tokenizer, path, libllama))
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from error
    return header, vocabulary, ChatTemplate(header.text("tokenizer.chat_template"), vocabulary)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def default_threads() -> int:
    """A core is left to the event loop: llama.cpp's threads spin, and stall for long when they lack one."""
    return max(1, cores() - 1)


def trained_context(header: Header) -> int:
    """Tokens; 0 where the file doesn't say."""
    return header.integer(f"{header.architecture}.context_length", 0) or 0


def _context(header: Header, wished: int) -> int:
    trained = trained_context(header)
    if trained and wished > trained:
        raise ModelError(f"the model was trained on contexts of {trained} tokens: choose a --context up to that")
    return wished or min(trained or MOST_CONTEXT, MOST_CONTEXT)


def _weights(path: Path, header: Header, ledger: Ledger, cache: Path) -> Path:
    """`path`, or a rewritten copy of it in the cache, made once."""
    reasons = backport.needs(header)
    if not reasons:
        return path
    target = cache / "backport" / f"{ledger.sha256(path)}.gguf"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second start waits here, and finds the copy
            if not _is_whole(target):
                log.info("rewriting %s for ctransformers, once: %s", path.name, "; ".join(reasons))
                _rewrite(path, header, target)
    except OSError as error:
        raise ModelError(f"a copy of {path.name} cannot be written to {target.parent}: {error.strerror}") from error
    return target


def _rewrite(path: Path, header: Header, target: Path) -> None:
    draft = target.with_suffix(".draft")
    with draft.open("wb") as file:
        backport.write(path, header, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, target)


def _is_whole(target: Path) -> bool:
    try:
        gguf.read(target)
    except GGUFError:
        return False
    return True
