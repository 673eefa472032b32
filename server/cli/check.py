"""The command `check`: find out in a second if `serve` would start. Its exit status is the result."""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.loader import catalog, inspect
from engine.wording import counted
from server.cli import models
from server.cli.console import ExitStatus
from server.cli.errors import STATUS_BY_ERROR, exit_status
from server.cli.running import advertised
from server.cli.serve import check_database, check_mcp, check_writable, options
from server.cli.store import store_place
from server.config import Config, ConfigError, api_keys, check_upstream_settings, read_prewarm_files, settings
from server.listening import http_options, listening_sockets
from server.store import NewerStore, OlderStore, PostgresURL, StoreError, check_openable, open_inventory
from server.upstream import ask, tokenizer


class Impairment(str):
    """A finding with which the server starts, but not as configured."""


def add_check(parser: argparse.ArgumentParser) -> None:
    settings.add_flags(parser)
    parser.set_defaults(run=check)


def check(flags: argparse.Namespace) -> int:
    """Print a line for each part, and return the exit status that `serve` would end with; 0 if it would start."""
    values = settings.resolve(flags, os.environ)
    check_upstream_settings(values)
    config = settings.config(values)
    status = ExitStatus.OK
    for name, examine in PARTS.items():
        try:
            for finding in examine(config):
                print(f"{'warning' if isinstance(finding, Impairment) else 'ok     '} {name}: {finding}")
        except tuple(STATUS_BY_ERROR) as error:
            print(f"failed  {name}: {error}")
            status = status or exit_status(error) or ExitStatus.CRASH
    return status


def _prewarm(config: Config) -> Iterator[str]:
    files = read_prewarm_files(config.prewarm)
    yield f"{counted(len(files), 'file')} readable" if files else "no prompt is evaluated before the first request"


def _keys(config: Config) -> Iterator[str]:
    keys = api_keys(config)
    yield "there are none, so anybody who reaches the address may call" if keys is None else counted(len(keys), "key")


def _certificate(config: Config) -> Iterator[str]:
    tls = http_options(config).tls
    yield "there is none, so connections are not encrypted" if tls is None else f"{config.ssl_certfile}"


def _mcp(config: Config) -> Iterator[str]:
    check_mcp(config)
    allowed = len(config.allow_mcp) + len(config.mcp_connectors)
    yield f"{counted(allowed, 'server')} allowed" if allowed else "no server allowed"


def _address(config: Config) -> Iterator[str]:
    with listening_sockets(config.hosts, config.port, {}) as listening:
        if not config.insecure and _is_open(config):
            listening.check_exposure()
        if isinstance(store_place(config, os.environ), PostgresURL):
            advertised(config, listening, encrypted=False)
    yield f"{', '.join(config.hosts)} port {config.port} is free"


def _is_open(config: Config) -> bool:
    """True if requests need no key. Wrong keys are a finding of `_keys`."""
    try:
        return api_keys(config) is None
    except ConfigError:
        return False


def _upstreams(config: Config) -> Iterator[str]:
    if config.tokenizer is not None:
        vocabulary, template = tokenizer(config)
        yield f"{config.tokenizer} has {len(vocabulary)} tokens, and calls in the format {template.tool_dialect.name!r}"
    for each in ask(config):
        context = f", {each.n_ctx} tokens of context" if each.n_ctx else ""
        lacking = f"; it {each.missing_fields}" if each.missing_fields.all else ""
        yield Impairment(each.error) if each.error else f"{each.url} answers: {each.model}{context}{lacking}"


def _model(config: Config) -> Iterator[str]:
    if config.upstreams:
        yield from _upstreams(config)
        return
    folder = catalog.cache_folder(os.environ)
    path = catalog.find(config.model, folder)
    if path is None and config.model in catalog.CATALOG:
        yield f"{config.model} is not here; `serve` downloads it"
        return
    if path is None:
        raise catalog.CatalogError(models.not_found(config.model, folder))
    yield from inspect(path, options(config), folder.parent)


def _state(config: Config) -> Iterator[str]:
    """Check the state folder as `serve` does: only a folder that the settings name must be writable."""
    folder = config.state_dir or catalog.state_folder(os.environ)
    try:
        check_writable(folder)
    except OSError as error:
        if config.state_dir is not None:
            raise
        yield Impairment(error)
        return
    in_file = isinstance(store_place(config, os.environ), Path)
    needed = (config.store_megabytes if in_file else 0) + config.kv_snapshot_megabytes
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < needed:
        yield Impairment(f"{folder} has {free} MB free, and the limits allow {needed} MB: free some, or lower them")
        return
    yield f"{folder} is writable, {free} MB free, up to {needed} MB needed"


def _store(config: Config) -> Iterator[str]:
    place = store_place(config, os.environ)
    check_database(config)
    if place is None:
        yield "responses are not stored"
        return
    try:
        if isinstance(place, Path) and not check_openable(place):
            yield f"{place} would be created"
            return
        with open_inventory(place) as inventory:
            yield f"{place} has {counted(len(inventory.entries()), 'entry', 'entries')}"
    except OlderStore as error:  # `serve` makes the tables
        yield str(error)
    except NewerStore:
        raise
    except StoreError as error:
        if not isinstance(place, Path):
            raise
        yield Impairment(error)  # `serve` logs it, and works without


PARTS: dict[str, Callable[[Config], Iterator[str]]] = {
    "prewarm": _prewarm,
    "keys": _keys,
    "certificate": _certificate,
    "mcp": _mcp,
    "address": _address,
    "state": _state,
    "model": _model,
    "store": _store,
}
"""Parts in the order in which `serve` needs them."""
