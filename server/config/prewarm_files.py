"""The files of `--prewarm`."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from server.config.file import ConfigError


class PrewarmFile(Struct, frozen=True):
    """File of `--prewarm`."""

    path: Path
    body: bytes
    """Body of a request."""


def read_prewarm_files(paths: Iterable[Path]) -> list[PrewarmFile]:
    """Return the files: request bodies in `.json` files, instructions in others. Raises ConfigError."""
    return [PrewarmFile(path, _body(path)) for path in paths]


def _body(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--prewarm: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--prewarm: {path} is not encoded in UTF-8") from error
    return text.encode() if path.suffix == ".json" else msgspec.json.encode({"instructions": text})
