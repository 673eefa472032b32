"""The configuration file: its path, its contents, and edits of it. The format is flat TOML."""

import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from engine.platform import atomic_write

VARIABLE = "RESPONSED_CONFIG"
"""Variable that names the file."""

SYSTEM = Path("/etc/responsed/config.toml")
"""File of the whole machine, read if the user has none."""


class ConfigError(Exception):
    """A setting is invalid. The message is one sentence that names the place."""


def find(named: str | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: the one that the flag or the variable names, else the user's, else the system's."""
    if chosen := named or environ.get(VARIABLE):
        return Path(chosen)
    return next((path for path in (user_file(environ), SYSTEM) if path is not None and path.is_file()), None)


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the user's file, even if it does not exist; None if there is no home folder."""
    # The XDG Base Directory Specification: relative paths are invalid and ignored.
    folder, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(folder):
        return Path(folder, "responsed", "config.toml")
    return Path(home, ".config", "responsed", "config.toml") if os.path.isabs(home) else None


def read(path: Path) -> dict[str, Any]:
    """Return the keys and values of the file. Raises ConfigError."""
    return _parse(path, _read_text(path))


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Set these keys and leave the others; create the file if it is missing. Raises ConfigError."""
    path = path.resolve()  # replaces the target of a symbolic link, not the link
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} cannot be written: it is not a regular file; name another file")
    text = _read_text(path) if path.exists() else ""
    updated = {**_parse(path, text), **values}
    # Edits single lines, which preserves comments. If a value of several lines prevents that, the file is rewritten
    # without comments.
    lines = [line for line in text.splitlines() if not _sets_one_of(line, values)]
    edited = "\n".join([*lines, *(render(key, value) for key, value in values.items()), ""])
    draft = path.with_name(f"{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, draft) as file:
            file.write((edited if _parses_as(edited, updated) else tomli_w.dumps(updated)).encode())
            if path.exists():
                shutil.copymode(path, draft)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def render(key: str, value: Any) -> str:
    """Return the setting as TOML, without a line end."""
    return tomli_w.dumps({key: value}).rstrip("\n")


def _sets_one_of(line: str, keys: Mapping[str, Any]) -> bool:
    found = re.match(r"""\s*(["']?)([\w-]+)\1\s*=""", line)
    return found is not None and found[2] in keys


def _parses_as(text: str, values: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == values
    except tomllib.TOMLDecodeError:
        return False


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: it is not encoded in UTF-8") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
