"""The command line: argument parser, dispatch to the commands, and exit status."""

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper
from types import FrameType
from typing import Any, NoReturn

from engine.backends.llamacpp import quantizer
from engine.loader import catalog
from server import live_view
from server.cli import check, install, models, store, tune
from server.cli.exit_status import STATUS_BY_ERROR, ExitStatus, exit_status
from server.cli.serve import serve
from server.cli.terminal import print_error
from server.config import settings
from server.systemd import Notifier

NO_MEMORY = "not enough memory; choose a smaller model, a smaller --context or fewer --slots"
PASSING = (ExitStatus.RESOURCES, ExitStatus.NETWORK)
"""Statuses of errors that may pass by themselves: no network yet, or too little memory."""
RETRY_SECONDS = 30.0
"""Seconds before the process ends by such an error, if systemd is to start it again at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. An error is one line on stderr that names the remedy."""
    flags, unknown = _parser().parse_known_args(arguments)
    if unknown:
        flags.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    signal.signal(signal.SIGTERM, _exit)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # prints the bytes of paths that are not UTF-8 unchanged
    try:
        status: int = flags.run(flags)
    except tuple(STATUS_BY_ERROR) as error:
        message = NO_MEMORY if isinstance(error, MemoryError) else str(error)
        print_error(message)
        known = exit_status(error)
        if flags.run is serve and known in PASSING:
            Notifier().wait(message, RETRY_SECONDS)
        return known
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return status


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="responsed", description="Serve the OpenAI Responses API from a GGUF model on this machine.")
    release = f"responsed {version('responsed')}"
    parser.add_argument("--version", action="version", version=release, help="Print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    server = commands.add_parser("serve", help="Serve a model over HTTP")
    settings.add_flags(server)
    server.add_argument(
        "--print-config", action="store_true", help="Print the effective settings as a configuration file and exit"
    )
    server.set_defaults(run=serve)

    checker = commands.add_parser("check", help="Say whether `serve` would start with the same settings")
    settings.add_flags(checker)
    checker.set_defaults(run=check.check)

    for command, run, text in (
        ("install", install.install, "Write the files of a systemd service"),
        ("uninstall", install.uninstall, "Remove the files that `install` wrote"),
    ):
        installer = commands.add_parser(command, help=text)
        installer.add_argument("--user", action="store_true", help="For the user's own systemd instead of the system's")
        installer.add_argument("--dry-run", action="store_true", help="Print what would be done, and do nothing")
        installer.set_defaults(run=run)

    puller = commands.add_parser("pull", help="Download a model into the cache folder")
    puller.add_argument("name", choices=sorted(catalog.CATALOG), help="Name of the model in the catalog")
    puller.set_defaults(run=models.pull)

    commands.add_parser("models", help="List the installed models and those to pull").set_defaults(run=models.models)

    store.add_commands(commands.add_parser("store", help="List, show and delete stored responses and conversations"))

    commands.add_parser(
        "bench", help="Measure the latency of a server"
    )  # `__main__` runs it without the imports of this module

    viewer = commands.add_parser("status", help="Show a running server: slots, streams, latencies, cache, memory")
    live_view.add_flags(viewer)
    viewer.set_defaults(run=live_view.status)

    tuner = commands.add_parser("tune", help="Measure the fastest options on this machine and write them to the file")
    settings.add_flags(tuner, "model", "engine", "libllama")
    tuner.add_argument("--requantise", action="store_true", help="Also measure copies with other types of weights")
    tuner.add_argument(
        "--apply",
        choices=sorted(quantizer.FILE_TYPES),
        help="Write a copy with this type of weights and serve it from the next start on",
    )
    tuner.set_defaults(run=tune.tune)
    return parser
