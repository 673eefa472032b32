"""The command, and the only place where the parts are wired together."""

import argparse
import gc
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import trio

from engine.backends.llamacpp import quantizer
from engine.chat_template import TemplateError
from engine.gguf import GGUFError
from engine.loader import Options, catalog, load
from engine.model import BackendOptions, ModelError
from engine.runtime import Engine, Snapshots
from server import daemon
from server.api import App
from server.cli import models, tune
from server.config import Config, ConfigError, settings
from server.served_model import ModelDetails
from server.service import Notifier
from server.store import AsyncStore, Limits, Store, StoreError, database
from server.stream import replay

SWITCH_SECONDS = 5e-5
"""How long the inference thread waits for the GIL after a decode. Python's 5 ms would be a decode of their own."""


log = logging.getLogger("responsed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line on stderr that says what to do."""
    flags, unknown = _parser().parse_known_args(arguments)
    if unknown:
        flags.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    signal.signal(signal.SIGTERM, _end)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # paths that are no UTF-8 are printed as they are
    try:
        status: int = flags.run(flags)
    except (ConfigError, GGUFError, TemplateError, ModelError, catalog.LibraryError, OSError) as error:
        return _complain(str(error))
    except MemoryError:
        return _complain("too little memory: choose a smaller model, a smaller --context or fewer --slots")
    except KeyboardInterrupt:
        return 130
    return status


def serve(flags: argparse.Namespace) -> int:
    values = settings.resolve(flags, os.environ)
    if flags.print_config:
        print(settings.as_toml(models.in_effect(values, os.environ)), end="")
        return 0
    config = settings.config(values)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _log_to_stderr(config.log_level)
    folder = catalog.cache_folder(os.environ)
    state = config.state_dir or catalog.state_folder(os.environ)
    listener = daemon.bind(config.host, config.port)  # first: a port that is taken is told at once
    if config.state_dir is not None:
        _check_writable(config.state_dir)
    path = models.find(config.model, folder)
    options = Options(
        n_slots=config.slots,
        n_ctx=config.context,
        threads=config.threads,
        engine=config.engine,
        libllama=config.libllama,
        chat_template=config.chat_template or "",
        knobs=BackendOptions(flash_attention=config.flash_attention == "on"),
    )
    _end_at_once()
    loaded = load(path, options, folder.parent)
    limit = config.kv_snapshot_megabytes * 1_000_000
    snapshots = Snapshots(state / "kv", loaded.fingerprint, limit)
    engine = Engine(loaded.model, loaded.vocabulary.end_tokens, config.max_step_ms / 1e3, snapshots)
    served = ModelDetails(
        name=_served_name(config.model, path),
        created=int(path.stat().st_mtime),
        info=loaded.model.info,
        vocabulary=loaded.vocabulary,
        template=loaded.template,
        file=loaded.file,
        fallback=loaded.fallback,
    )
    store = _open_store(config, state)
    app = App(config, engine, served, AsyncStore(store) if store else None)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what is here now stays: looking through it again and again stopped all threads for 30 ms each time
    try:
        trio.run(daemon.run, config, listener, engine, app, Notifier())
    except BaseExceptionGroup as group:
        failed: BaseException | None = group.subgroup((ModelError, OSError))
        if failed is None:
            raise
        while isinstance(failed, BaseExceptionGroup):
            failed = failed.exceptions[0]
        return _complain(str(failed))
    finally:
        if store:
            store.close()
    loaded.model.close()
    return 0


def _check_writable(state: Path) -> None:
    """Raises OSError: nobody would see that nothing is kept in the folder that was asked for."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=state).close()
    except OSError as error:
        remedy = "give a folder that you may write to"
        raise OSError(f"--state-dir {state} cannot be written ({error.strerror}): {remedy}") from error


def _open_store(config: Config, state: Path) -> Store | None:
    """Whoever has no disk to write to still gets answers."""
    if config.store == "off":
        return None
    path = Path(config.store or state / database.NAME)
    limits = Limits(config.store_responses, config.store_megabytes, config.store_days)
    try:
        return Store(path, limits, replay.interrupted_response, time.monotonic())
    except StoreError as error:
        log.warning("responses are not stored: %s", error)
        return None


def _served_name(model: str, path: Path) -> str:
    """A name stays a name, a path becomes its file's stem."""
    if model in catalog.CATALOG:
        return model
    return os.fsencode(path.stem).decode(errors="replace")  # a name in an answer is UTF-8, a file's need not be


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", level=level.upper())


def _complain(message: str) -> int:
    print(f"responsed: {message}", file=sys.stderr)
    return 2


def _end_at_once() -> None:
    """Let a signal end the process from here on, until the daemon serves. A Python handler would not run, or its
    exception would be lost, while native code reads a large model. The children end with this process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _end(signal_number: int, frame: FrameType | None) -> None:
    """Leave, and clean up on the way: before a model loads, and in the other commands."""
    raise SystemExit(128 + signal_number)


class _Parser(argparse.ArgumentParser):
    """One line for what is wrong, as for everything else; argparse would print the usage before it. Flags have to be
    written out: a shortened one means something else once there is another flag that begins so."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords, allow_abbrev=False)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        raise SystemExit(_complain(f"{message} (`{self.prog} --help` lists what there is)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="responsed", description="Answers the OpenAI Responses API from a GGUF model on this machine."
    )
    parser.add_argument("--version", action="version", version=f"responsed {version('responsed')}")
    names = parser.add_subparsers(required=True, metavar="COMMAND")
    server = names.add_parser("serve", help="serve a model over HTTP")
    settings.add_flags(server)
    server.add_argument("--print-config", action="store_true", help="show what is in effect, as a file, and end")
    server.set_defaults(run=serve)
    puller = names.add_parser("pull", help="fetch a model into the cache folder")
    puller.add_argument("name", choices=sorted(catalog.CATALOG))
    puller.set_defaults(run=models.pull)
    names.add_parser("models", help="list the models there are").set_defaults(run=models.models)
    tuner = names.add_parser("tune", help="measure what is quickest on this machine, and write it down")
    settings.add_flags(tuner, "model", "engine", "libllama")
    tuner.add_argument("--requantise", action="store_true", help="also time copies with other types of weights")
    tuner.add_argument("--apply", choices=sorted(quantizer.KINDS), help="keep such a copy, and serve it from now on")
    tuner.set_defaults(run=tune.tune)
    return parser


if __name__ == "__main__":
    sys.exit(main())
