"""The file of API keys: one `name:key` per line; empty lines and lines that begin with `#` have no meaning.

Options follow the key, after a space: `lane=batch`, and `queue=N`, the number of its requests that may wait.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from server.access import ApiKey, ApiKeys
from server.config.config import Config
from server.config.file import ConfigError
from server.config.secret import private_text

CREDENTIAL = "api-key"
"""Name of systemd's credential with the same contents (systemd.exec(5), LoadCredential=)."""
MIN_KEY_CHARACTERS = 16
_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64}):(?P<key>[\x21-\x7e]+)")
_OPTION = re.compile(r"lane=(?P<lane>interactive|batch)|queue=(?P<queue>[0-9]{1,4})")


def api_keys(config: Config) -> ApiKeys | None:
    """Return the keys of the configured file or of systemd's credential; None if there are none. Raises ConfigError."""
    if config.api_key_file is not None:
        return ApiKeys(read_api_keys(config.api_key_file))
    path = credential(os.environ)
    return None if path is None else ApiKeys(read_api_keys(path, shared=True))


def credential(environ: Mapping[str, str], name: str = CREDENTIAL) -> Path | None:
    """Return the file of systemd's credential; None if the service has none."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder, name)
    return path if folder and path.is_file() else None


def read_api_keys(path: Path, *, shared: bool = False) -> dict[str, ApiKey]:
    """Return the keys by name. `shared`: see `private_text`. Raises ConfigError, without any key in its message."""
    keys: dict[str, ApiKey] = {}
    text = private_text(path, "--api-key-file", "a file of keys", shared)
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        pair, *options = line.split()
        if (match := _LINE.fullmatch(pair)) is None:
            raise ConfigError(f"{path}, line {number}: it is not `name:key`")
        if len(match["key"]) < MIN_KEY_CHARACTERS:
            raise ConfigError(f"{path}, line {number}: the key has fewer than {MIN_KEY_CHARACTERS} characters")
        if match["name"] in keys:
            raise ConfigError(f"{path}, line {number}: there are two keys of the name {match['name']}")
        keys[match["name"]] = _with_options(match["key"], options, f"{path}, line {number}")
    if not keys:
        raise ConfigError(f"{path} contains no key: add a line `name:key`")
    return keys


def _with_options(key: str, options: Sequence[str], place: str) -> ApiKey:
    """Return a key with its options. Raises ConfigError, which begins with the place."""
    is_batch, queue = False, None
    for option in options:
        if (match := _OPTION.fullmatch(option)) is None:
            raise ConfigError(f"{place}: write options as `lane=batch` (or `interactive`) and `queue=4`")
        is_batch = is_batch if match["lane"] is None else match["lane"] == "batch"
        queue = queue if match["queue"] is None else int(match["queue"])
    return ApiKey(key, is_batch, queue)
