"""The commands `models` and `pull`, and the search for a model by its name."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from engine import backends, gguf
from engine.gguf import GGUFError, kinds
from engine.loader import catalog, download
from engine.model import ModelError
from server.cli.console import DownloadProgress, print_table

Report: TypeAlias = Callable[[int, int], None]
"""Function that gets the downloaded bytes and their total."""

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""Beginning of a URL: a scheme and `://`."""

HUB_NAME = re.compile(
    r"(hf|ollama):.+|(hf\.co|huggingface\.co|ollama\.com)/.+|[\w-]+/[\w.-]+(?<!\.gguf)(:[\w.-]+)?", re.IGNORECASE
)
"""Names of models on hubs, as other programs accept them: `org/model`, `hf.co/org/model:Q4_K_M`."""

MAX_LISTED_FILES = 5
"""Files that an error message lists at most."""


def add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=sorted(catalog.CATALOG), help="Name of the model in the catalog")
    parser.set_defaults(run=pull)


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=models)


def pull(flags: argparse.Namespace) -> int:
    print(_pull(catalog.CATALOG[flags.name], catalog.cache_folder(os.environ)))
    return 0


def models(flags: argparse.Namespace) -> int:
    """Print the models that `--model` can name: files in the cache folder, and those of the catalog."""
    folder = catalog.cache_folder(os.environ)
    names = {source.filename: source.name for source in catalog.CATALOG.values()}
    rows = [("NAME", "MB", "ARCHITECTURE", "ENGINE", "FILE")]
    for path in catalog.installed(folder):
        size = f"{path.stat().st_size / 1e6:.0f}"
        rows.append((names.pop(path.name, path.stem), size, *_architecture_and_engine(path), str(path)))
    rows += [
        (source.name, f"{source.size / 1e6:.0f}", "-", "-", f"not installed; run: responsed pull {source.name}")
        for source in catalog.CATALOG.values()
        if source.filename in names
    ]
    print_table(rows)
    return 0


def _architecture_and_engine(path: Path) -> tuple[str, str]:
    """Return the architecture of a file, and the engine that `auto` chooses for it with the reason."""
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


def find_or_pull(model: str, folder: Path, report: Report | None = None) -> Path:
    """Return the file of a model; download a model of the catalog first. Raises CatalogError, TooLittleDisk.

    `report` gets the downloaded bytes and their total.
    """
    if (path := catalog.find(model, folder)) is not None:
        return path
    if (source := catalog.CATALOG.get(model)) is not None:
        return _pull(source, folder, report)
    raise catalog.CatalogError(not_found(model, folder))


def not_found(model: str, folder: Path) -> str:
    """Return the error message for a name that is neither a model nor a GGUF file."""
    lists = "`responsed models` lists the available models"
    if model.lower().startswith("file:"):
        return f"{model!r} is a URL; name the file by its path"
    if URL.match(model):
        return f"{model!r} is a URL, which responsed does not download; download the file and name its path ({lists})"
    if HUB_NAME.fullmatch(model) and not os.path.exists(model):
        return (
            f"there is no file {model!r}, and responsed does not download from hubs; download its .gguf file and name "
            f"its path ({lists})"
        )
    if os.path.isdir(model):
        inside = [path.name for path in catalog.installed(Path(model))]
        files = f"one of {', '.join(inside[:MAX_LISTED_FILES])}" if inside else "it has none"
        return f"{model!r} is a folder; name a .gguf file in it ({files})"
    if os.path.exists(model):
        return f"{model!r} is not a regular file; name a .gguf file"
    return f"there is no file and no model {model!r}; {lists}, and {folder} is searched for GGUF files of that name"


def _pull(source: catalog.CatalogEntry, folder: Path, report: Report | None = None) -> Path:
    print(f"pulling {source.name}: {source.description} ({source.license})", file=sys.stderr)
    with DownloadProgress(sys.stderr) as progress:

        def both(done: int, total: int) -> None:
            progress(done, total)
            if report is not None:
                report(done, total)

        return download.pull(source, folder, both)
