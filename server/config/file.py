"""The configuration file: where it is, what it holds, and how a value gets into it. It is flat TOML."""

import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

VARIABLE = "RESPONSED_CONFIG"
SYSTEM = Path("/etc/responsed/config.toml")


class ConfigError(Exception):
    """What somebody configured can't be. One sentence, naming the place."""


def find(named: str | None, environ: Mapping[str, str]) -> Path | None:
    """The file in force, if any: the one that was named (by flag or variable), the person's, or the system's."""
    if wished := named or environ.get(VARIABLE):
        return Path(wished)
    return next((path for path in (own(environ), SYSTEM) if path is not None and path.is_file()), None)


def own(environ: Mapping[str, str]) -> Path | None:
    """The person's own file, be it there or not; None where there is no home."""
    # XDG base directories: a relative path is to be ignored.
    folder, home = environ.get("XDG_CONFIG_HOME", ""), environ.get("HOME", "")
    if os.path.isabs(folder):
        return Path(folder, "responsed", "config.toml")
    return Path(home, ".config", "responsed", "config.toml") if os.path.isabs(home) else None


def read(path: Path) -> dict[str, Any]:
    """Raises ConfigError."""
    return _parse(path, _text(path))


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Set these keys, in place of what they were; create the file if need be. Raises ConfigError."""
    path = path.resolve()  # what a link points to, not the link
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} cannot be written: it is no regular file")
    text = _text(path) if path.exists() else ""
    wished = {**_parse(path, text), **values}
    # Line by line, for the sake of the comments; a value of several lines breaks that, and the comments are lost.
    lines = [line for line in text.splitlines() if not _sets(line, values)]
    edited = "\n".join([*lines, *(render(key, value) for key, value in values.items()), ""])
    draft = path.with_name(f"{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            file.write(edited if _means(edited, wished) else tomli_w.dumps(wished))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, draft)
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def render(key: str, value: Any) -> str:
    """As TOML, without the line's end."""
    return tomli_w.dumps({key: value}).rstrip("\n")


def _sets(line: str, keys: Mapping[str, Any]) -> bool:
    found = re.match(r"""\s*(["']?)([\w-]+)\1\s*=""", line)
    return found is not None and found[2] in keys


def _means(text: str, values: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == values
    except tomllib.TOMLDecodeError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no TOML: it is not UTF-8") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
