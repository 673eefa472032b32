"""Files of secrets, such as the API key for another server."""

import os
from pathlib import Path

from server.config.file import ConfigError


def read_secret(path: Path, *, shared: bool = False) -> str:
    """Return the only line of a file. `shared`: see `private_text`. Raises ConfigError, without the secret."""
    lines = private_text(path, "--upstream-key-file", "a key", shared).split()
    if len(lines) != 1:
        raise ConfigError(f"{path} must contain one key and nothing else")
    if not lines[0].isprintable():
        raise ConfigError(f"{path} is not a key: it contains control characters; write it as plain text")
    return lines[0]


def private_text(path: Path, flag: str, content: str, shared: bool) -> str:
    """Return the text of a file that other users must not be able to read. Raises ConfigError, without the text.

    `flag` names the file, and `content` is a noun phrase for its text. systemd's own credentials are `shared`: their
    mode shows the mask of an access control list.
    """
    try:
        with path.open(encoding="ascii") as file:
            if not shared and os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} can be read by other users: run `chmod 600 {path}`")
            return file.read()
    except OSError as error:
        raise ConfigError(f"{flag}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not {content}: it contains characters other than ASCII") from error
