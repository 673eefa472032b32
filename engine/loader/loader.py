"""Load a file as a model that runs, with its vocabulary and its chat template."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct, structs

from engine import backends
from engine.backends import BackendChoice
from engine.backends.ctransformers import model as ctrans
from engine.chat_template import ChatTemplate, sources
from engine.gguf import FileFacts, GGUFError, file_facts, kinds
from engine.loader import footprint, kv_cache, machine, memory_check, model_file, thread_check
from engine.loader.options import Options, context, thread_counts
from engine.loader.probe import PROBE_VERSION, UnusableWeights, probe
from engine.loader.probe_cache import ProbeCache, identity
from engine.loader.rewritten_copy import compatible_weights
from engine.model import EngineFault, Model, ModelError, ThreadCounts
from engine.tokenizer import Encode, Vocabulary
from engine.wording import counted

SNAPSHOT_FORMAT = "format 3"
"""Version of the snapshots. Format 1 may contain prompts that were not to be stored, so it is skipped."""

UNKNOWN_CALL_FORMAT = (
    "%s renders tools, but its call format is unknown: a system message describes the tools instead, and calls are "
    "parsed in the generic format"
)
"""Warning, with the name of the template."""

STARTED = "%s runs %s (%s): %s of %d tokens; threads: %d for one token, %d for several"

log = logging.getLogger("responsed.engine")


class Loaded(Struct, frozen=True):
    """A loaded model with everything that a server needs to use it."""

    model: Model
    vocabulary: Vocabulary
    template: ChatTemplate
    fingerprint: str
    """Text that identifies everything a saved KV cache depends on: model, engine, settings."""
    threads: ThreadCounts = ThreadCounts(1, 1)
    file_facts: FileFacts = FileFacts()
    fallback: str = ""
    """Reason why llama.cpp does not run the model; empty if it does, or if ctransformers was requested."""


def nothing() -> None:
    """Do nothing."""


def load(path: Path, options: Options, cache: Path, meanwhile: Callable[[], object] = nothing) -> Loaded:
    """Load a model. Raises GGUFError, TemplateError, ModelError, OSError. `cache` is the folder for rewritten copies
    and probe results.

    `meanwhile` runs in another thread while the engine opens the file, which takes most of the time and no Python.
    """
    file = _File(path, options, cache, meanwhile)
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
            raise type(error)(f"{error}; {first.engine} was tried because {first.reason}") from error
        raise


def inspect(path: Path, options: Options, cache: Path) -> Iterator[str]:
    """Yield what `load` would find out before it opens the model. Raises what `load` raises."""
    file = _File(path, options, cache)
    file.texts()
    choice = backends.choices(file.header, options.engine, options.libllama)[0]
    yield f"{path.name} would run by {choice.engine}: {choice.reason}"
    yield from file.facts()


def _open_other(file: "_File", choice: BackendChoice, fault: EngineFault) -> Loaded:
    """Open the file with another engine after an engine fault."""
    try:
        return file.open(choice)
    except ModelError as error:
        raise ModelError(f"{fault}; nor does {choice.engine} run it: {error}") from error


class _File:
    """A model file whose header was read and fits this machine."""

    def __init__(self, path: Path, options: Options, cache: Path, meanwhile: Callable[[], object] = nothing) -> None:
        """Raises GGUFError, TemplateError, ModelError, OSError."""
        process = machine.resident()
        self._path = path
        self._options = options
        self._cache = cache
        self._meanwhile = meanwhile
        self._probe_cache = ProbeCache(cache / "ledger.json")
        self._chat_template = sources.located(options.chat_template) if options.chat_template else ""
        self._identity = identity(path)
        self.header = model_file.read_header(path)
        self._texts: tuple[Vocabulary, ChatTemplate] | None = None
        if not (self._chat_template or (self.header.text("tokenizer.chat_template") or "").strip()):
            log.warning(
                "%s has no chat template: the model gets plain text and continues it; --chat-template sets a template",
                path.name,
            )
        for key in self.header.stray_token_ids():
            log.warning("%s: its %s is beyond its vocabulary and is ignored", path.name, key)
        self._n_ctx = context(self.header, options.n_ctx)
        self._threads = thread_counts(options.threads, options.threads_batch)
        thread_check.check(max(self._threads.decode, self._threads.batch))
        kv_cache.check_type(self.header, options.backend_options)
        plan = footprint.LoadPlan(
            path, self.header, self._n_ctx, options.n_slots, options.backend_options, process, options.prefix_cache
        )
        self._footprint = memory_check.check(plan)

    def texts(self) -> tuple[Vocabulary, ChatTemplate]:
        """Return the vocabulary and the chat template, read once. Raises GGUFError, TemplateError, ModelError."""
        if self._texts is None:
            self._texts = model_file.read_texts(self._path, self.header, self._options.libllama, self._chat_template)
        return self._texts

    def facts(self) -> Iterator[str]:
        """Yield the chosen sizes and the chat template."""
        yield f"memory: enough for {counted(self._options.n_slots, 'slot')} of {self._n_ctx} tokens"
        yield f"threads: {self._threads.decode} for a single token, {self._threads.batch} for several"
        dialect = self.texts()[1].tool_dialect.name
        yield f"its chat template works; tool calls are parsed in the format {dialect!r}"

    def open(self, choice: BackendChoice) -> Loaded:
        """Open the model with an engine. Raises GGUFError, TemplateError, ModelError."""
        weights = self._path
        if choice.engine == ctrans.NAME:
            self._choose_encoder()
            ctrans.check()  # check the library before a copy is written
            weights = compatible_weights(self._path, self.header, self._probe_cache, self._cache)
        try:
            self._probe_once(choice, weights)
        except (UnusableWeights, EngineFault):
            if weights != self._path:
                weights.unlink(missing_ok=True)  # a rewritten copy that nobody can use
            raise
        model = self._open(choice, weights)
        if native := backends.tokenizer_of(model):
            self._choose_encoder(native)
        vocabulary, template = self.texts()
        size = f"slots {self._options.n_slots} n_ctx {self._n_ctx}"
        parts = " ".join(map(self._probe_cache.sha256, kinds.parts(self._path, self.header)))
        fingerprint = f"{parts} {choice.engine_id} {size} {self._options.backend_options} {SNAPSHOT_FORMAT}"
        if template.unread:
            log.warning(UNKNOWN_CALL_FORMAT, self._chat_template or f"the chat template of {self._path.name}")
        reason = choice.reason if choice.fallback else ""
        facts = structs.replace(file_facts.from_header(self.header), sha256=parts)
        return Loaded(model, vocabulary, template, fingerprint, self._counts(choice.engine), facts, reason)

    def _counts(self, engine: str) -> ThreadCounts:
        """Return an engine's numbers of threads. ctransformers' threads spin without limit, so it leaves a core free by
        default."""
        counts = self._threads
        spins = engine == ctrans.NAME and not counts.batch_is_fixed
        return structs.replace(counts, batch=counts.decode) if spins else counts

    def _choose_encoder(self, native: Encode | None = None) -> None:
        """Choose the encoder of the vocabulary. Raises GGUFError."""
        try:
            self.texts()[0].choose_encoder(native)
        except GGUFError as error:
            raise GGUFError(f"{self._path} cannot be used: {error}") from error

    def _probe_once(self, choice: BackendChoice, weights: Path) -> None:
        """Probe the file, unless this engine has passed it."""
        path, options = self._path, self._options
        tried = f"{choice.engine_id}, probe {PROBE_VERSION}, {machine.cpu_features()}"
        if self._chat_template:
            source = sources.source(self._chat_template)
            tried += f", template {hashlib.sha256(source.encode()).hexdigest()}"
        if not self._probe_cache.has_passed(path, tried):
            self.texts()  # raises the error itself, of which the child's exit has less to say
            size = footprint.weight_bytes(path, self.header)
            probe(path, weights, choice.engine, options.libllama, size, self._chat_template)
            self._check_identity()
            self._probe_cache.record(path, tried)

    def _open(self, choice: BackendChoice, weights: Path) -> Model:
        """Open a file that has passed the probe. Meanwhile another thread reads its texts."""
        path, options = self._path, self._options
        counts = self._counts(choice.engine)
        if choice.engine != ctrans.NAME:
            log.info("%s", footprint.line(self._footprint))
        with ThreadPoolExecutor(1, thread_name_prefix="meanwhile") as pool:
            done = pool.submit(self._read_meanwhile)
            model = backends.open_model(
                choice.engine,
                weights,
                name=path.name,
                n_ctx=self._n_ctx,
                n_slots=options.n_slots,
                threads=counts.decode,
                library=options.libllama,
                backend_options=options.backend_options,
            )
        try:
            done.result()
            self._check_identity()
        except BaseException:
            model.close()
            raise
        model.use_threads(counts.decode, counts.batch)
        sizes = (counted(options.n_slots, "slot"), self._n_ctx, counts.decode, counts.batch)
        log.info(STARTED, choice.engine, path.name, choice.reason, *sizes)
        return model

    def _check_identity(self) -> None:
        """Raise ModelError if the file is no longer the one whose header was read."""
        if identity(self._path) != self._identity:
            raise ModelError(f"{self._path.name} was replaced while it was loaded; start again")

    def _read_meanwhile(self) -> None:
        self.texts()
        self._meanwhile()
