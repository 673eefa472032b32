"""The command `serve`: settings, sockets and the model. `server.cli.running` is the server itself."""

import argparse
import faulthandler
import importlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from engine.loader import Loaded, Options, catalog, load, machine
from engine.model import BackendOptions, OptionError
from server.access import ApiKeys
from server.cli import models
from server.cli.console import configure_logs
from server.config import (
    DATABASES,
    Config,
    EffectiveValue,
    api_keys,
    check_upstream_settings,
    read_prewarm_files,
    settings,
)
from server.listening import HTTPOptions, ListeningSockets, http_options, listening_sockets
from server.systemd import Notifier, marked, report_ends

SWITCH_SECONDS = 5e-5
"""Seconds until a thread that returns from native code gets the GIL. Python's default of 5 ms equals a whole decode,
and stops the load at each call of llama.cpp while another thread imports."""

log = logging.getLogger("responsed")


class DaemonParts(NamedTuple):
    """Everything that a daemon needs besides the model."""

    flags: argparse.Namespace
    values: Sequence[EffectiveValue]
    config: Config
    state_dir: Path
    listening: ListeningSockets
    keys: ApiKeys | None
    notifier: Notifier
    http: HTTPOptions


def add_serve(parser: argparse.ArgumentParser) -> None:
    settings.add_flags(parser)
    parser.add_argument(
        "--print-config", action="store_true", help="Print the effective settings as a configuration file and exit"
    )
    parser.set_defaults(run=serve)


def serve(flags: argparse.Namespace) -> int:
    values = settings.resolve(flags, os.environ)
    if flags.print_config:
        effective = importlib.import_module("server.cli.effective").effective
        print(settings.as_toml(effective(values, os.environ)), end="")
        return 0
    config = settings.config(values)
    check_upstream_settings(values)
    read_prewarm_files(config.prewarm)  # before loading, so that a missing file fails at once
    http = http_options(config)
    check_mcp(config)
    check_database(config)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logs(config.log_level, config.log_format)
    sys.setswitchinterval(SWITCH_SECONDS)
    keys = api_keys(config)
    # Bound before loading, so that a taken port fails at once.
    with listening_sockets(config.hosts, config.port, os.environ) as listening:
        if keys is None and not config.insecure:
            listening.check_exposure()
        state_dir = config.state_dir or catalog.state_folder(os.environ)
        if config.state_dir is not None:
            check_writable(config.state_dir)
        cache = catalog.cache_folder(os.environ)
        notifier = Notifier()
        faulthandler.enable(file=2)  # native code that crashes leaves the stacks of all threads in the log
        report_ends(state_dir)
        parts = DaemonParts(flags, values, config, state_dir, listening, keys, notifier, http)
        if config.upstreams:
            _restore_default_signals()
            with notifier.extending("asking the upstreams"):
                upstreams, running = map(importlib.import_module, ("server.upstream", "server.cli.running"))
                found = upstreams.connect(config)
            labels = {"model": found.registry.name, "engine": "upstream"}
            running.serve(parts, found.generator(), found, labels, found.reload)
            return 0
        path = catalog.find(config.model, cache) or _pull(config.model, cache, notifier)
        _restore_default_signals()
        with marked(state_dir, serving=False), notifier.extending(f"loading {path.name}", _ReadShare(path)):
            loaded, running = _load_and_import(path, options(config), cache.parent)
        running.run(parts, path, loaded)
    return 0


def _pull(model: str, cache: Path, notifier: Notifier) -> Path:
    share = 0.0

    def report(done: int, total: int) -> None:
        nonlocal share
        share = done / total

    with notifier.extending(f"pulling {model}", lambda: share):
        return models.find_or_pull(model, cache, report)


class _ReadShare:
    """Share of a model file that was read from the disk since the load began. The first look at a file reads it in a
    child process, and the load finds it in the page cache; what was there before is not read again."""

    def __init__(self, path: Path) -> None:
        self._size = max(path.stat().st_size, 1)
        self._before = machine.bytes_read()
        self._most = 0.0

    def __call__(self) -> float:
        self._most = max(self._most, (machine.bytes_read() - self._before) / self._size)
        return self._most


def _load_and_import(path: Path, wanted: Options, cache: Path) -> tuple[Loaded, Any]:
    """Load the model, and meanwhile import `server.cli.running`: llama.cpp reads the file without the GIL, which takes
    longer than the imports."""
    loaded = load(path, wanted, cache, _import_running)
    return loaded, importlib.import_module("server.cli.running")


def _import_running() -> None:
    """Import the rest of the server."""
    importlib.import_module("server.cli.running")


def options(config: Config) -> Options:
    return Options(
        n_slots=config.slots,
        n_ctx=config.context,
        threads=config.threads,
        threads_batch=config.threads_batch,
        engine=config.engine,
        libllama=config.libllama,
        prefix_cache=(config.cache_megabytes or 0) * 1_000_000,
        chat_template=config.chat_template or "",
        backend_options=BackendOptions(config.flash_attention == "on", config.kv_type),
    )


def check_mcp(config: Config, package: str = "mcp") -> None:
    """Raise OptionError if MCP servers are allowed, and the package that calls them is missing."""
    if (config.allow_mcp or config.mcp_connectors) and find_spec(package) is None:
        raise OptionError(f"MCP servers need the package {package}: install it with pip install 'responsed[mcp]'")


def check_database(config: Config, package: str = "psycopg") -> None:
    """Raise OptionError if the store is in PostgreSQL, and the package for it is missing."""
    if config.store is not None and config.store.startswith(DATABASES) and find_spec(package) is None:
        raise OptionError(f"PostgreSQL needs the package {package}: install it with pip install 'responsed[postgres]'")


def check_writable(state_dir: Path) -> None:
    """Raise OSError if the folder that the user chose is not writable."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=state_dir).close()
    except OSError as error:
        remedy = "name a folder that you may write to"
        raise OSError(f"--state-dir {state_dir} cannot be written ({error.strerror}): {remedy}") from error


def _restore_default_signals() -> None:
    """Let SIGTERM and SIGINT end the process and its children while a model loads.

    A Python handler would run late, or its exception would be lost, while native code reads a large model.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
