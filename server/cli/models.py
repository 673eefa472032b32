"""The commands about models: what there is, and how more come."""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine import backends, gguf, loader
from engine.gguf import GGUFError, kinds
from engine.loader import catalog
from engine.model import ModelError
from server.cli.terminal import DownloadProgress
from server.config import EffectiveValue
from server.store import database

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
HUB = re.compile(
    r"(hf|ollama):.+|(hf\.co|huggingface\.co|ollama\.com)/.+|[\w-]+/[\w.-]+(?<!\.gguf)(:[\w.-]+)?", re.IGNORECASE
)
"""Names as other programs fetch by: `org/model`, `hf.co/org/model:Q4_K_M`."""
MOST_NAMED = 5


def pull(flags: argparse.Namespace) -> int:
    print(_pull(catalog.CATALOG[flags.name], catalog.cache_folder(os.environ)))
    return 0


def models(flags: argparse.Namespace) -> int:
    """What `--model` can name: files in the cache folder, and what can be pulled."""
    folder = catalog.cache_folder(os.environ)
    names = {source.filename: source.name for source in catalog.CATALOG.values()}
    rows = [("NAME", "MB", "ARCHITECTURE", "ENGINE", "FILE")]
    for path in catalog.installed(folder):
        size = f"{path.stat().st_size / 1e6:.0f}"
        rows.append((names.pop(path.name, path.stem), size, *_kind(path), str(path)))
    rows += [
        (source.name, f"{source.size / 1e6:.0f}", "-", "-", f"not here yet: responsed pull {source.name}")
        for source in catalog.CATALOG.values()
        if source.filename in names
    ]
    print_table(rows)
    return 0


def print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _kind(path: Path) -> tuple[str, str]:
    """A file's architecture, and the engine that `auto` takes for it, with the reason."""
    try:
        header = gguf.read(path)
    except GGUFError:
        return "unreadable", "-"
    try:
        kinds.check(path, header)
        choice = backends.choices(header, "auto", None)[0]
    except (GGUFError, ModelError) as error:
        reason = str(error).removeprefix(f"{path} cannot be used: ")
        return header.text("general.architecture", "-"), f"none: {reason}"
    return header.architecture, f"{choice.engine} ({choice.reason})"


def in_effect(values: Sequence[EffectiveValue], environ: Mapping[str, str]) -> list[EffectiveValue]:
    """The settings with what the server makes of those that nobody set. Raises ModelError, GGUFError, LibraryError."""
    found = {value.setting.key: value.value for value in values}
    state = found["state_dir"] or catalog.state_folder(environ)
    made: dict[str, Any] = {
        "threads": loader.n_threads(found["threads"]),
        "state_dir": state,
        "store": found["store"] or str(state / database.NAME),
    }
    path = catalog.find(found["model"], catalog.cache_folder(environ))
    # Nobody knows the context of a model that is not here yet.
    made["context"] = loader.context(gguf.read(path), found["context"]) if path else found["context"] or None
    return [replace(value, value=made.get(value.setting.key, value.value)) for value in values]


def find(model: str, folder: Path) -> Path:
    """Raises LibraryError."""
    if (path := catalog.find(model, folder)) is not None:
        return path
    if (source := catalog.CATALOG.get(model)) is not None:
        return _pull(source, folder)
    raise catalog.LibraryError(_no_model(model, folder))


def _no_model(model: str, folder: Path) -> str:
    """Return the sentence for a name that is none of a model or a file."""
    lists = "`responsed models` lists the models there are"
    if model.lower().startswith("file:"):
        return f"{model!r} is a URL: name the file by its path"
    if URL.match(model):
        return f"{model!r} is a URL, and no model is fetched by one: download the file and name its path ({lists})"
    if HUB.fullmatch(model) and not os.path.exists(model):
        return (
            f"there is no file {model!r}, and no model is fetched from a hub: download its .gguf file and name the "
            f"path ({lists})"
        )
    if os.path.isdir(model):
        inside = [path.name for path in catalog.installed(Path(model))]
        found = f"one of {', '.join(inside[:MOST_NAMED])}" if inside else "there is none in it"
        return f"{model!r} is a folder: name the .gguf file itself ({found})"
    if os.path.exists(model):
        return f"{model!r} is no regular file: name a .gguf file"
    return f"there is no file and no model {model!r}: {lists}, and GGUF files in {folder} are found by name"


def _pull(source: catalog.CatalogEntry, folder: Path) -> Path:
    print(f"pulling {source.name}: {source.description} ({source.license})", file=sys.stderr)
    with DownloadProgress(sys.stderr) as progress:
        return catalog.pull(source, folder, progress)
