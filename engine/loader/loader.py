"""A file -> a model that runs, with its vocabulary and its template."""

import fcntl
import hashlib
import logging
from pathlib import Path

from msgspec import Struct

from engine import backends, gguf
from engine.atomic_write import atomic_write
from engine.backends import BackendChoice
from engine.backends.ctransformers import converter
from engine.backends.ctransformers import model as ctrans
from engine.chat_template import ChatTemplate, sources
from engine.gguf import FileFacts, GGUFError, Header, file_facts, kinds
from engine.loader import footprint, machine, model_file
from engine.loader.probe import PROBE_VERSION, probe
from engine.loader.probe_record import ProbeCache
from engine.model import BackendOptions, EngineFault, Model, ModelError
from engine.tokenizer import Vocabulary

DEFAULT_MAX_CONTEXT = 8192
"""Tokens a slot gets unasked: models are trained on up to 128k, and no small machine holds that twice."""

SNAPSHOT_FORMAT = "format 2"
"""Snapshots of the first format may hold prompts that were not to be stored; they are left out."""

UNKNOWN_CALL_FORMAT = (
    "%s tells functions, but its form of calls is not known: a system message tells them instead, and calls are read "
    "in the generic form"
)
"""Warning, with the name of the template."""

log = logging.getLogger("responsed.engine")


class Options(Struct, frozen=True):
    """How a model is to be loaded. 0 for `n_ctx` or `threads` stands for what fits the file and the machine."""

    n_slots: int
    n_ctx: int = 0
    threads: int = 0
    engine: str = "auto"
    libllama: Path | None = None
    """llama.cpp's library, where it is not to be looked for."""
    backend_options: BackendOptions = BackendOptions()
    chat_template: str = ""
    """File or built-in name of one that replaces the model's own."""


class Loaded(Struct, frozen=True):
    """All that is needed to answer with a model."""

    model: Model
    vocabulary: Vocabulary
    template: ChatTemplate
    fingerprint: str
    """Of all that a saved KV cache depends on: model, engine, settings."""
    file_facts: FileFacts = FileFacts()
    fallback: str = ""
    """Why llama.cpp does not run the model; empty where it does, or ctransformers was asked for."""


def load(path: Path, options: Options, cache: Path) -> Loaded:
    """Raises GGUFError, TemplateError, ModelError. `cache` holds what is made of the file once."""
    file = _File(path, options, cache)
    first, *others = backends.choices(file.header, options.engine, options.libllama)
    if first.fallback:
        log.warning("%s runs the model: %s", first.engine, first.reason)
    try:
        return file.open(first)
    except ModelError as error:
        if isinstance(error, EngineFault) and others:
            log.warning("%s; trying %s", error, others[0].engine)
            return _open_other(file, others[0], error)
        if first.fallback:
            raise ModelError(f"{error}; {first.engine} was tried because {first.reason}") from error
        raise


def _open_other(file: "_File", choice: BackendChoice, fault: EngineFault) -> Loaded:
    try:
        return file.open(choice)
    except ModelError as error:
        raise ModelError(f"{fault}; nor does {choice.engine} run it: {error}") from error


class _File:
    """A model file whose header was read and found to fit this machine."""

    def __init__(self, path: Path, options: Options, cache: Path) -> None:
        """Raises GGUFError, TemplateError, ModelError."""
        self._path = path
        self._options = options
        self._cache = cache
        self._probe_cache = ProbeCache(cache / "ledger.json")
        self._chat_template = sources.located(options.chat_template) if options.chat_template else ""
        self.header, self._vocabulary, self._template = model_file.read(path, options.libllama, self._chat_template)
        if not (self._chat_template or (self.header.text("tokenizer.chat_template") or "").strip()):
            log.warning(
                "%s has no chat template: the model is told plain texts, and goes on writing; --chat-template sets one",
                path.name,
            )
        for key in self.header.stray_token_ids():
            log.warning("%s: its %s is none of its tokens, and is ignored", path.name, key)
        self._n_ctx = context(self.header, options.n_ctx)
        self._threads = n_threads(options.threads)
        footprint.check(path, self.header, self._n_ctx, options.n_slots)

    def open(self, choice: BackendChoice) -> Loaded:
        """Raises ModelError."""
        weights = self._path
        if choice.engine == ctrans.NAME:
            ctrans.check()  # before a copy is written
            weights = _weights(self._path, self.header, self._probe_cache, self._cache)
        try:
            model = self._open(choice, weights)
        except ModelError:
            if weights != self._path:
                weights.unlink(missing_ok=True)  # a copy of ours that cannot be used
            raise
        size = f"slots {self._options.n_slots} n_ctx {self._n_ctx}"
        parts = " ".join(map(self._probe_cache.sha256, kinds.parts(self._path, self.header)))
        fingerprint = f"{parts} {choice.engine_id} {size} {self._options.backend_options} {SNAPSHOT_FORMAT}"
        if self._template.unread:
            log.warning(UNKNOWN_CALL_FORMAT, self._chat_template or f"the chat template of {self._path.name}")
        reason = choice.reason if choice.fallback else ""
        return Loaded(model, self._vocabulary, self._template, fingerprint, file_facts.from_header(self.header), reason)

    def _open(self, choice: BackendChoice, weights: Path) -> Model:
        path, options = self._path, self._options
        tried = f"{choice.engine_id}, probe {PROBE_VERSION}, {machine.cpu_features()}"
        if self._chat_template:
            source = sources.source(self._chat_template)
            tried += f", template {hashlib.sha256(source.encode()).hexdigest()}"
        if not self._probe_cache.has_passed(path, tried):
            size = footprint.weight_bytes(path, self.header)
            probe(path, weights, choice.engine, options.libllama, size, self._chat_template)
            self._probe_cache.record(path, tried)
        model = backends.open_model(
            choice.engine,
            weights,
            name=path.name,
            n_ctx=self._n_ctx,
            n_slots=options.n_slots,
            threads=self._threads,
            library=options.libllama,
            backend_options=options.backend_options,
        )
        sizes = (options.n_slots, self._n_ctx, self._threads)
        log.info("%s runs %s (%s): %d slots of %d tokens, %d threads", choice.engine, path.name, choice.reason, *sizes)
        return model


def n_threads(wished: int = 0) -> int:
    """Return the threads of the model; 0 stands for one less than the cores. Raises ModelError.

    A core is left to the event loop: llama.cpp's threads spin, and stall for long when they lack one.
    """
    cores = machine.cores()
    if wished > cores:
        counted = "1 core" if cores == 1 else f"{cores} cores"
        raise ModelError(f"{wished} threads on {counted} would wait for each other: choose --threads up to {cores}")
    return wished or max(1, cores - 1)


def context(header: Header, wished: int = 0) -> int:
    """Return the tokens of a slot; 0 stands for what the model was trained on, up to `DEFAULT_MAX_CONTEXT`."""
    trained = model_file.trained_context(header)
    if trained and wished > trained:
        raise ModelError(f"the model was trained on contexts of {trained} tokens: choose a --context up to that")
    return wished or min(trained or DEFAULT_MAX_CONTEXT, DEFAULT_MAX_CONTEXT)


def _weights(path: Path, header: Header, ledger: ProbeCache, cache: Path) -> Path:
    """`path`, or a rewritten copy of it in the cache, made once."""
    reasons = converter.rewrite_reasons(header)
    if not reasons:
        return path
    target = cache / "backport" / f"{ledger.sha256(path)}.gguf"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second start waits here, and finds the copy
            if not _is_complete(target):
                log.info("rewriting %s for ctransformers, once: %s", path.name, "; ".join(reasons))
                _rewrite(path, header, target)
    except OSError as error:
        raise ModelError(f"a copy of {path.name} cannot be written to {target.parent}: {error.strerror}") from error
    return target


def _rewrite(path: Path, header: Header, target: Path) -> None:
    with atomic_write(target, target.with_suffix(".draft")) as file:
        converter.write(path, header, file)


def _is_complete(target: Path) -> bool:
    try:
        gguf.read(target)
    except GGUFError:
        return False
    return True
