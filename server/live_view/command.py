"""The command `status`: ask a running server for its status, once or every second."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from server.config import Config, ConfigError, credential, read_api_keys, settings
from server.live_view.server_address import ServerAddress, Unreachable, from_config, from_url
from server.live_view.text import ASCII, BLOCKS, lines
from server.monitoring import Status

SECONDS = 1.0
"""Seconds between two requests."""
UNLIMITED = 1 << 20
SHOW, HIDE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The terminal's other screen without a cursor, and back (xterm, "Control Sequences")."""
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def add_status(parser: argparse.ArgumentParser) -> None:
    settings.add_flags(parser, "host", "port", "api_key_file", "ssl_certfile")
    parser.add_argument(
        "--url", metavar="URL", help="Address of the server, or unix:PATH (default: the one of the settings)"
    )
    parser.add_argument("--once", action="store_true", help="Print the status once as text, and exit")
    parser.add_argument("--json", action="store_true", help="Print each status as a line of JSON")
    parser.set_defaults(run=status)


def status(flags: argparse.Namespace) -> int:
    """Print the status until Ctrl-C, or once. Raises Unreachable, ConfigError."""
    config = settings.config(settings.resolve(flags, os.environ))
    address = from_url(flags.url, config.ssl_certfile) if flags.url else from_config(config)
    key = _key(config)
    body = _fetch(address, key)
    live = sys.stdout.isatty() and not flags.once
    if flags.json:
        _print_json(address, key, body, once=flags.once)
    elif live:
        _watch(address, key, body)
    else:
        print("\n".join(lines(_decode(body), UNLIMITED, UNLIMITED, _blocks())))
    return 0


def _print_json(address: ServerAddress, key: str | None, body: bytes, once: bool) -> None:
    while True:
        print(body.decode(), flush=True)
        if once:
            return
        time.sleep(SECONDS)
        body = _fetch(address, key)


def _watch(address: ServerAddress, key: str | None, body: bytes) -> None:
    """Redraw the screen until Ctrl-C. A server that restarts is asked until it answers again."""
    note = ""
    with _screen():
        while True:
            width, height = shutil.get_terminal_size()
            shown = [*([note] if note else []), *lines(_decode(body), width, height - 2, _blocks())][: height - 1]
            sys.stdout.write(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in shown) + CLEAR_BELOW)
            sys.stdout.flush()
            time.sleep(SECONDS)
            try:
                body, note = _fetch(address, key), ""
            except Unreachable:
                note = "The server does not answer; these are the last figures."


@contextmanager
def _screen() -> Iterator[None]:
    """Use the terminal's other screen. Ctrl-C ends the block."""
    sys.stdout.write(SHOW)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        sys.stdout.write(HIDE)
        sys.stdout.flush()


def _fetch(address: ServerAddress, key: str | None) -> bytes:
    """Return the status as JSON. Raises Unreachable, ConfigError."""
    code, body = address.get("/status", key)
    if code == 401:
        wrong = "needs an API key" if key is None else "does not accept the first key of the file"
        raise ConfigError(f"the server {wrong}: name a file whose first key is valid with --api-key-file")
    if code != 200:
        raise Unreachable(f"{address} answers {code}; it is not a responsed server with a status")
    return body


def _decode(body: bytes) -> Status:
    try:
        return msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError as error:
        raise Unreachable(f"the server has another version: {error}; use its own `responsed status`") from error


def _key(config: Config) -> str | None:
    """Return the first key of the configured file or of systemd's credential. Raises ConfigError."""
    path = config.api_key_file or credential(os.environ)
    if path is None:
        return None
    return next(iter(read_api_keys(path, shared=config.api_key_file is None).values())).key


def _blocks() -> str:
    """Return the bars that the terminal's encoding has."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS
