"""The server with a loaded model: wires its parts together and runs it.

`server.cli.serve` imports this module while the model loads.
"""

import gc
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio

from engine.loader import Loaded, catalog, machine
from engine.model import ModelError
from engine.platform import release_zero_pages
from engine.runtime import Engine, Snapshots
from server import daemon
from server.api import App, store_limits
from server.cli.console import ExitStatus
from server.cli.reloading import Reloading, nothing_to_reload
from server.cli.serve import DaemonParts
from server.cli.store import store_place
from server.config import Config, ConfigError
from server.generation import Generator
from server.listening import HTTPOptions, ListeningSockets
from server.monitoring import Metrics
from server.served_model import ModelDetails, ModelSource
from server.store import AsyncStore, NewerStore, Store, StoreError, open_database
from server.stream import replay
from server.systemd import marked

log = logging.getLogger("responsed")


def run(parts: DaemonParts, path: Path, loaded: Loaded) -> None:
    """Serve until the daemon stops, then close the model."""
    config = parts.config
    with closing(loaded.model):
        unused = release_zero_pages()  # the only thread so far, and the engine has none yet
        snapshots = Snapshots(parts.state_dir / "kv", loaded.fingerprint, config.kv_snapshot_megabytes * 1_000_000)
        engine = Engine(
            loaded.model,
            loaded.vocabulary.end_tokens,
            config.max_step_ms / 1e3,
            snapshots,
            cache_bytes=_cache_bytes(config, unused),
            threads=loaded.threads,
        )
        details = _model_details(config, path, loaded)
        labels = {"model": details.name, "engine": details.info.engine}
        serve(parts, engine, details, labels)


def serve(
    parts: DaemonParts,
    engine: Generator,
    source: ModelSource,
    labels: Mapping[str, str],
    reload_model: Callable[[Config], None] = nothing_to_reload,
) -> None:
    """Serve what a generator generates until the daemon stops.

    `labels` describe the model in the metrics. `reload_model`: see Reloading.
    """
    config, listening, http = parts.config, parts.listening, parts.http
    reloading = Reloading(parts.flags, parts.values, http, reload_model)
    with _open_store(config, listening, http) as store, marked(parts.state_dir):
        stored, metrics = AsyncStore(store) if store else None, _metrics(config, labels, http)
        app = App(config, engine, source, stored, parts.keys, metrics, parts.state_dir)
        reload = partial(reloading.reload, app)
        run_daemon(partial(daemon.run, config, listening, engine, app, parts.notifier, reload, http))


def run_daemon(serve_until_stopped: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run the daemon. Raises the ModelError or OSError that ended it."""
    sys.unraisablehook = end_without_memory
    # Excludes the objects made so far: each search of them stops all threads for 30 ms. 2,879 of 117,000 are garbage,
    # less than a megabyte, which stays; to find them would take 60 ms of each start.
    gc.freeze()
    gc.enable()
    try:
        trio.run(serve_until_stopped)
    except BaseExceptionGroup as group:
        failure: BaseException | None = group.subgroup((ModelError, OSError))
        if failure is None:
            raise
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None


def end_without_memory(unraisable: "sys.UnraisableHookArgs") -> None:
    """End the process if a thread could not begin for lack of memory: its work would wait for ever."""
    if issubclass(unraisable.exc_type, MemoryError):
        log.critical("out of memory: a thread cannot begin, and only a restart helps")
        os._exit(ExitStatus.RESOURCES)
    sys.__unraisablehook__(unraisable)


def _metrics(config: Config, labels: Mapping[str, str], http: HTTPOptions) -> Metrics | None:
    """Return the recorder of metrics; None if they are off. Its library is loaded only here."""
    if not config.metrics:
        return None
    module = importlib.import_module("server.monitoring.metrics")
    metrics: Metrics = module.PrometheusMetrics(version("responsed"), labels, http.refusals)
    return metrics


def _cache_bytes(config: Config, reserved: int) -> int:
    """Return the bytes of memory for the prefix cache, and log them. `reserved` bytes of what is free are for the KV
    cache."""
    if config.cache_megabytes is None:
        n_bytes, source = machine.prefix_cache_bytes(reserved=reserved), "a quarter of what is free"
    else:
        n_bytes, source = config.cache_megabytes * 1_000_000, "as configured"
    log.info("prefix cache: up to %d MB of memory (%s; --cache-megabytes)", n_bytes // 1_000_000, source)
    return n_bytes


def _model_details(config: Config, path: Path, loaded: Loaded) -> ModelDetails:
    return ModelDetails(
        name=_served_name(config.model, path),
        created=int(path.stat().st_mtime),
        info=loaded.model.info,
        vocabulary=loaded.vocabulary,
        template=loaded.template,
        file=loaded.file_facts,
        fallback=loaded.fallback,
    )


def _served_name(model: str, path: Path) -> str:
    """Return the model's name in the catalog, or the stem of its file."""
    if model in catalog.CATALOG:
        return model
    return os.fsencode(path.stem).decode(errors="replace")  # file names may be other bytes than UTF-8


def advertised(config: Config, listening: ListeningSockets, encrypted: bool) -> str:
    """Return the URL at which other servers on the same database reach this one. Raises ConfigError."""
    if config.advertise is not None:
        return config.advertise.rstrip("/")
    if (address := listening.address) is None:
        raise ConfigError(
            "name the URL at which other servers on the database reach this one: --advertise http://HOST:PORT"
        )
    return f"{'https' if encrypted else 'http'}://{address}"


@contextmanager
def _open_store(config: Config, listening: ListeningSockets, http: HTTPOptions) -> Iterator[Store | None]:
    """Yield the store; None if it is off or its file cannot be opened, since responses do not depend on it.

    Raises NewerStore: only a person can decide to serve without what a newer version has stored. Raises StoreError for
    a database: a server whose failure goes unnoticed must not lose the responses of its clients.
    """
    store = None
    place = store_place(config, os.environ)
    if place is not None:
        address = "" if isinstance(place, Path) else advertised(config, listening, http.tls is not None)
        try:
            store = Store(
                open_database(place, address), store_limits(config), replay.interrupted_response, time.monotonic()
            )
        except NewerStore:
            raise
        except StoreError as error:
            if not isinstance(place, Path):
                raise
            log.warning("responses are not stored: %s", error)
    with closing(store) if store else nullcontext():
        yield store
