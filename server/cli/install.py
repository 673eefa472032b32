"""The commands `install` and `uninstall`: the files of a systemd service, from the installed package."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from msgspec import Struct

from engine.platform import atomic_write
from server.cli.memory_limits import MemoryLimits, memory_limits
from server.config import GROUPS, ConfigError
from server.config import file as config_file

MARK = "# Written by `responsed install`; `responsed uninstall` removes it. Put changes into a drop-in.\n"
"""First line of each file that the command may replace and remove."""
COMMAND = "/opt/responsed/bin/responsed"
"""Program that the packaged unit names."""
SYSTEM_UNITS = Path("/etc/systemd/system")
READABLE = ("/usr", "/etc", "/opt")
"""Folders in the root of the packaged unit."""
LIMITS_PLACE = "LimitNOFILE="
"""Beginning of the line before which the limits of memory are inserted."""
USER_MANAGER = (
    "CacheDirectory",
    "ExecReload",
    "ExecStart",
    "ExecStopPost",
    "KillMode",
    "LimitCORE",
    "LimitNOFILE",
    "MemoryHigh",
    "MemoryMax",
    "NotifyAccess",
    "Restart",
    "RestartPreventExitStatus",
    "RestartSec",
    "StateDirectory",
    "SuccessExitStatus",
    "TasksMax",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "Type",
    "UMask",
    "WatchdogSec",
)
"""Settings of the service that a user's own systemd accepts: its sandbox needs root."""


class ServiceFile(Struct, frozen=True):
    path: Path
    text: str
    editable: bool = False
    """True for a file that the operator may edit: it is never replaced or removed."""


def add_install(parser: argparse.ArgumentParser) -> None:
    _add_flags(parser)
    parser.set_defaults(run=install)


def add_uninstall(parser: argparse.ArgumentParser) -> None:
    _add_flags(parser)
    parser.set_defaults(run=uninstall)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", action="store_true", help="For the user's own systemd instead of the system's")
    parser.add_argument("--dry-run", action="store_true", help="Print what would be done, and do nothing")


def install(flags: argparse.Namespace) -> int:
    """Write the files of the service, and print the commands that start it."""
    if not flags.user:
        _check_readable(Path(sys.executable).parent, Path(sys.base_prefix), Path(__file__).parent)
        os.umask(0o022)  # the user of the service reads the files
    limits = memory_limits(flags.user, os.environ)
    print(_limits_line(limits))
    for each in service_files(flags.user, os.environ, limits):
        if flags.dry_run:
            print(f"# {each.path}\n{each.text}")
        elif each.editable and each.path.exists():
            print(f"left as it is: {each.path}")
        else:
            _write(each)
            print(f"written: {each.path}")
    manager = "systemctl --user" if flags.user else "systemctl"
    print(f"next: {manager} daemon-reload && {manager} enable --now responsed")
    return 0


def uninstall(flags: argparse.Namespace) -> int:
    """Remove the files that `install` wrote, and print what stays."""
    for each in service_files(flags.user, os.environ):
        if each.editable or not _is_ours(each.path):
            if each.path.exists():
                print(f"left as it is: {each.path}")
        elif flags.dry_run:
            print(f"would remove: {each.path}")
        else:
            each.path.unlink()
            print(f"removed: {each.path}")
    print(
        f"next: systemctl{' --user' if flags.user else ''} daemon-reload; models and state stay until you remove them"
    )
    return 0


def is_installed() -> bool:
    """Return True if the system has the service."""
    return (SYSTEM_UNITS / "responsed.service").is_file()


def service_files(user: bool, environ: Mapping[str, str], limits: MemoryLimits | str = "") -> Iterator[ServiceFile]:
    """Yield the unit, the socket unit and the configuration file. Raises ConfigError without a home folder."""
    config = config_file.user_file(environ) if user else config_file.SYSTEM
    if config is None:
        raise ConfigError("there is no home folder; install the service of the system without --user")
    units = config.parent.parent / "systemd" / "user" if user else SYSTEM_UNITS
    packaged = files("server.systemd")
    unit = (packaged / "responsed.service").read_text().replace(COMMAND, _command())
    if isinstance(limits, MemoryLimits):
        unit = unit.replace(LIMITS_PLACE, f"{limits}\n{LIMITS_PLACE}", 1)
    yield ServiceFile(units / "responsed.service", MARK + (_for_user(unit) if user else unit))
    yield ServiceFile(units / "responsed.socket", MARK + (packaged / "responsed.socket").read_text())
    yield ServiceFile(config, _commented_settings(), editable=True)


def _limits_line(limits: MemoryLimits | str) -> str:
    if isinstance(limits, str):
        return f"no limits of memory: {limits}; once the model is here, run `responsed install` again"
    return f"limits of memory for the model and its settings: {', '.join(str(limits).splitlines())}"


def _check_readable(*folders: Path) -> None:
    """Raise ConfigError if the service could not read its program: the unit shows it few folders."""
    for folder in folders:
        if not folder.resolve().is_relative_to("/home") and any(map(folder.resolve().is_relative_to, READABLE)):
            continue
        raise ConfigError(
            f"the service cannot read {folder.resolve()}: install responsed into /opt/responsed with the system's "
            "Python (`/usr/bin/python3 -m venv /opt/responsed`), or use --user"
        )


def _command() -> str:
    """Return the program of this installation."""
    script = Path(sys.executable).parent / "responsed"
    return str(script) if script.is_file() else shutil.which("responsed") or f"{sys.executable} -P -m server"


def _for_user(unit: str) -> str:
    """Return the unit with the settings that a user's own systemd accepts."""
    lines: list[str] = []
    section = ""
    for line in unit.splitlines():
        section = line if line.startswith("[") else section
        key, is_setting, _ = line.partition("=")
        is_foreign = section == "[Service]" and is_setting and key not in USER_MANAGER
        if not (line.startswith("#") or is_foreign or line.endswith("network-online.target")):
            lines.append(line.replace("multi-user.target", "default.target"))
    return "\n".join(lines) + "\n"


def _commented_settings() -> str:
    """Return a configuration file that sets nothing, and names each setting with its default."""
    lines = ["# Settings of responsed: `responsed serve --help`. To set one, remove the # and add a value.\n"]
    for title, group in GROUPS.items():
        lines.append(f"\n# {title.capitalize()}\n")
        for setting in group:
            lines.append(f"# {setting.help_text}\n# {setting.key} =\n")
    return "".join(lines)


def _write(each: ServiceFile) -> None:
    """Write a file. Raises ConfigError for a file of somebody else at its path."""
    if not each.editable and each.path.exists() and not _is_ours(each.path):
        raise ConfigError(f"{each.path} was not written by this command: move it away first")
    try:
        each.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(each.path, each.path.with_name(f".{each.path.name}.draft")) as file:
            file.write(each.text.encode())
    except OSError as error:
        remedy = "run it as root, or with --user"
        raise ConfigError(f"{each.path} cannot be written: {error.strerror}; {remedy}") from error


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(errors="replace").startswith(MARK)
    except OSError:
        return False
