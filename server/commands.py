"""The commands about models: what there is, and how more come."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import GGUFError, ModelError, backends, gguf, library
from server.progress import Progress


def pull(flags: argparse.Namespace) -> int:
    print(_pull(library.SOURCES[flags.name], library.cache_folder(os.environ)))
    return 0


def models(flags: argparse.Namespace) -> int:
    """What `--model` can name: files in the cache folder, and what can be pulled."""
    folder = library.cache_folder(os.environ)
    names = {source.filename: source.name for source in library.SOURCES.values()}
    rows = [("NAME", "MB", "ARCHITECTURE", "ENGINE", "FILE")]
    for path in library.installed(folder):
        size = f"{path.stat().st_size / 1e6:.0f}"
        rows.append((names.pop(path.name, path.stem), size, *_kind(path), str(path)))
    rows += [
        (source.name, f"{source.size / 1e6:.0f}", "-", "-", f"not here yet: responsed pull {source.name}")
        for source in library.SOURCES.values()
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
        choice = backends.choices(header, "auto", None)[0]
    except GGUFError:
        return "unreadable", "-"
    except ModelError as error:
        return header.architecture, f"none: {error}"
    return header.architecture, f"{choice.engine} ({choice.reason})"


def find(model: str, folder: Path) -> Path:
    """Raises LibraryError."""
    if (path := library.find(model, folder)) is not None:
        return path
    if (source := library.SOURCES.get(model)) is not None:
        return _pull(source, folder)
    raise library.LibraryError(
        f"there is no file and no model {model!r}: `responsed models` lists what there is, "
        f"and GGUF files in {folder} are found by name"
    )


def _pull(source: library.Source, folder: Path) -> Path:
    print(f"pulling {source.name}: {source.description} ({source.license})", file=sys.stderr)
    with Progress(sys.stderr) as progress:
        return library.pull(source, folder, progress)
