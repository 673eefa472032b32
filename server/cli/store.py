"""The commands `store ls`, `show`, `purge` and `vacuum`: stored responses and conversations, also beside a server."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.loader import catalog
from engine.runtime import Snapshots
from engine.wording import counted
from server.cli.console import ExitStatus, print_error, print_table
from server.cli.serve import check_database
from server.config import DATABASES, Config, ConfigError, settings
from server.store import Entry, Inventory, Missing, Place, PostgresURL, open_inventory, sqlite

HEADINGS = ("ID", "KIND", "STATUS", "CREATED (UTC)", "UNUSED", "KB")
SERVICE = Path("/var/lib/responsed") / sqlite.NAME
"""File of the service that `responsed install` sets up."""

CREDENTIAL = "postgres-password"
"""Name of systemd's credential with the password of the database (systemd.exec(5), LoadCredential=)."""


def add_store(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace, Inventory], int], text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=text)
        settings.add_flags(command, "state_dir", "store")
        command.add_argument("--json", action="store_true", help="Print JSON instead of text")
        command.set_defaults(run=lambda flags: _run(flags, run))
        return command

    add("ls", _list, "List all entries, the most recently used first")
    shower = add("show", _show, "Print a response with its input, or a conversation with its items")
    shower.add_argument("id", help="Id of a response or conversation")
    purger = add("purge", _purge, "Delete entries at once, without a question")
    chosen = purger.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--id", action="append", metavar="ID", help="Delete this entry (repeatable)")
    chosen.add_argument(
        "--unused-days", type=_days, metavar="DAYS", help="Delete entries unused for DAYS days of serving"
    )
    chosen.add_argument("--all", action="store_true", help="Delete all entries")
    add("vacuum", _vacuum, "Rewrite the file without the space of deleted entries")


def store_place(config: Config, environ: Mapping[str, str]) -> Place | None:
    """Return the place of the store; None if it is off. Raises ConfigError, CatalogError without a home folder."""
    if config.store == "off":
        return None
    if config.store is not None and config.store.startswith(DATABASES):
        return PostgresURL(config.store, _password(environ))
    return Path(config.store or (config.state_dir or catalog.state_folder(environ)) / sqlite.NAME)


def _password(environ: Mapping[str, str]) -> str | None:
    """Return the password in systemd's credential; None leaves it to libpq. Raises ConfigError."""
    path = Path(environ.get("CREDENTIALS_DIRECTORY", os.devnull), CREDENTIAL)
    if not path.is_file():
        return None
    try:
        return path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _run(flags: argparse.Namespace, command: Callable[[argparse.Namespace, Inventory], int]) -> int:
    config = settings.config(settings.resolve(flags, os.environ))
    place = store_place(config, os.environ)
    if place is None:
        raise ConfigError("the settings turn the store off; name a file or a database with --store")
    check_database(config)
    if isinstance(place, Path) and not os.path.isfile(place):
        hint = f"; the service has another file: --store {SERVICE}" if os.path.isfile(SERVICE) else ""
        raise ConfigError(f"there is no store at {place} that you may read{hint}")
    with open_inventory(place) as inventory:
        try:
            return command(flags, inventory)
        except Missing as error:
            print_error(f"{error} in {place}; `responsed store ls` lists the ids")
            return ExitStatus.USAGE


def _list(flags: argparse.Namespace, inventory: Inventory) -> int:
    entries = inventory.entries()
    if flags.json:
        _print_json(entries)
    else:
        print_table([HEADINGS, *map(_row, entries)])
    return ExitStatus.OK


def _show(flags: argparse.Namespace, inventory: Inventory) -> int:
    entry = inventory.entry(flags.id)
    content = inventory.content(entry)
    body, items = msgspec.Raw(content.body), [msgspec.Raw(each) for each in content.items]
    is_response = entry.kind == "response"
    parts = {"input": items[0], "response": body} if is_response else {"metadata": body, "items": items}
    if flags.json:
        _print_json({"entry": entry, **parts})
        return ExitStatus.OK
    print_table([HEADINGS, _row(entry)])
    for name, value in parts.items():
        print(f"\n{name}: {msgspec.json.format(msgspec.json.encode(value), indent=2).decode()}")
    return ExitStatus.OK


def _purge(flags: argparse.Namespace, inventory: Inventory) -> int:
    chosen, in_use = _chosen(flags, inventory), inventory.in_use()
    deleted = [each for each in chosen if each.id not in in_use]
    left = [each for each in chosen if each.id in in_use]
    inventory.delete(_ids(deleted))
    if flags.json:
        _print_json({"deleted": _ids(deleted), "in_progress": _ids(left)})
    else:
        print(f"deleted: {_count(deleted)}, {sum(each.bytes for each in deleted) / 1e6:.1f} MB")
        if left:
            print(f"left, since the server works on them: {', '.join(_ids(left))}")
    if deleted:
        _drop_snapshots(flags, inventory)
    return ExitStatus.OK


def _chosen(flags: argparse.Namespace, inventory: Inventory) -> list[Entry]:
    """Return the entries that `purge` was asked to delete: by id, all, or by the days since they were used."""
    if flags.id:
        return [inventory.entry(each) for each in dict.fromkeys(flags.id)]
    return [each for each in inventory.entries() if flags.all or each.unused_days >= flags.unused_days]


def _ids(entries: Iterable[Entry]) -> list[str]:
    return [each.id for each in entries]


def _drop_snapshots(flags: argparse.Namespace, inventory: Inventory) -> None:
    """Delete the KV snapshots, which contain the prompts of deleted entries; running servers of a database do."""
    if inventory.served:
        if not inventory.shared:
            print_error(
                "a server uses the store; its prefix cache still has the deleted prompts (`DELETE /v1/responses/ID` "
                "removes both)"
            )
        return
    config = settings.config(settings.resolve(flags, os.environ))
    Snapshots((config.state_dir or catalog.state_folder(os.environ)) / "kv", "", 0).drop()


def _vacuum(flags: argparse.Namespace, inventory: Inventory) -> int:
    before, after = inventory.vacuum()
    if flags.json:
        _print_json({"bytes_before": before, "bytes_after": after})
    else:
        print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
    return ExitStatus.OK


def _row(entry: Entry) -> tuple[str, ...]:
    created = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.created_at))
    unused = f"{entry.unused_days:.1f} days"
    return (entry.id, entry.kind, entry.status or "-", created, unused, f"{entry.bytes / 1000:.1f}")


def _count(entries: Iterable[Entry]) -> str:
    kinds = [entry.kind for entry in entries]
    return " and ".join(counted(kinds.count(kind), kind) for kind in ("response", "conversation"))


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
