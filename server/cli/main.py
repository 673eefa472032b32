"""The command line: argument parser, dispatch to the commands, and exit status."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn

from server.cli.console import ExitStatus, open_standard_streams, print_error
from server.systemd import Notifier

NO_MEMORY = "not enough memory; choose a smaller model, a smaller --context or fewer --slots"
PASSING = (ExitStatus.RESOURCES, ExitStatus.NETWORK)
"""Statuses of errors that may pass by themselves: no network yet, or too little memory."""
RETRY_SECONDS = 30.0
"""Seconds before the process ends by such an error, if systemd is to start it again at once."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("server.cli.serve", "Serve a model over HTTP"),
    "check": ("server.cli.check", "Check whether `serve` would start with the same settings"),
    "install": ("server.cli.install", "Write the files of a systemd service"),
    "uninstall": ("server.cli.install", "Remove the files that `install` wrote"),
    "pull": ("server.cli.models", "Download a model into the cache folder"),
    "models": ("server.cli.models", "List the installed models and those that `pull` downloads"),
    "store": ("server.cli.store", "List, show and delete stored responses and conversations"),
    "bench": ("", "Measure the latency of a server"),  # `__main__` runs it
    "status": ("server.live_view", "Show a running server: slots, streams, latencies, cache, memory"),
    "tune": ("server.cli.tune", "Measure the fastest options on this machine and write them to the config file"),
}
"""The module of each command, and its line of help.

A command's module is imported if the command was given: each imports what it needs, and the start of `serve` is short.
Its function `add_NAME` adds the flags, and the function `run` that returns the exit status.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. An error is one line on stderr that names the remedy."""
    open_standard_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    flags, unknown = _parser(arguments).parse_known_args(arguments)
    if unknown:
        flags.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `__main__`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # prints the bytes of paths that are not UTF-8 unchanged
    try:
        status: int = flags.run(flags)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # as of `responsed status | head`; the interpreter flushes once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        known: ExitStatus | None = importlib.import_module("server.cli.errors").exit_status(error)
        if known is None:
            raise
        _report(error, may_pass=flags.command == "serve" and known in PASSING)
        return known
    return status


def _report(error: Exception, may_pass: bool) -> None:
    """Print an error. If it `may_pass`, wait before systemd starts the process again."""
    message = NO_MEMORY if isinstance(error, MemoryError) else str(error)
    print_error(message)
    if may_pass:
        Notifier().wait(message, RETRY_SECONDS)


def _exit(signal_number: int, frame: FrameType | None) -> None:
    """Exit by an exception, which runs the cleanups. `serve` replaces this handler while a model loads."""
    raise SystemExit(128 + signal_number)


class _Parser(argparse.ArgumentParser):
    """Parser that prints an error as one line, without the usage, and accepts no abbreviated flags.

    An abbreviation would change its meaning once another flag begins like it.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords, allow_abbrev=False, add_help=False)
        self.add_argument("-h", "--help", action="help", help="Print this help and exit")
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        print_error(f"{message} (see `{self.prog} --help`)")
        raise SystemExit(ExitStatus.USAGE)


class _Version(argparse.Action):
    """Prints the version, and imports what reads it only then (10 ms)."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        release: str = importlib.import_module("importlib.metadata").version("responsed")
        print(f"responsed {release}")
        parser.exit()


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser, with the flags of the given command."""
    parser = _Parser(prog="responsed", description="Serve the OpenAI Responses API from a GGUF model on this machine.")
    parser.add_argument("--version", action=_Version, nargs=0, help="Print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text}.")
        if module and name in arguments[:1]:
            getattr(importlib.import_module(module), f"add_{name}")(command)
    return parser
