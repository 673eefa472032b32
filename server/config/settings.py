"""Resolution of settings: a flag overrides a variable, a variable the file, and the file the default.

All sources use the same settings and one validator for each. Defaults are `Config`'s.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from server.config import file
from server.config.config import Config
from server.config.file import ConfigError
from server.config.groups import GROUPS, SETTINGS
from server.config.setting import PREFIX, Setting
from server.config.values import ValueType


class EffectiveValue(Struct, frozen=True):
    """A setting's value and its source."""

    setting: Setting
    value: Any
    source: str


class _Once(argparse.Action):
    """Store the value of a flag that may be given once only."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(self, "this flag is given twice; give it once")
        setattr(namespace, self.dest, values)


def add_flags(parser: argparse.ArgumentParser, *keys: str) -> None:
    """Add `--config` and the flags of these settings, or of all settings, grouped by subject."""
    parser.add_argument(
        "--config",
        metavar="PATH",
        action=_Once,
        help="File of settings (default: responsed/config.toml in ~/.config, else in /etc)",
    )
    for title, group in GROUPS.items():
        if chosen := [setting for setting in group if not keys or setting.key in keys]:
            flags = parser.add_argument_group(title)
            for setting in chosen:
                _add_flag(flags, setting, setting.flag, setting.help_text)
                if setting.former:
                    _add_flag(flags, setting, setting.former_flag, argparse.SUPPRESS)


def _add_flag(group: argparse._ArgumentGroup, setting: Setting, flag: str, text: str) -> None:
    group.add_argument(
        flag,
        dest=setting.key,
        type=_argument_type(setting.type),
        action="append" if setting.type.several else "store",
        metavar=setting.type.metavar or setting.key.rpartition("_")[2].upper(),
        help=text,
    )


def _argument_type(kind: ValueType) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def resolve(flags: argparse.Namespace, environ: Mapping[str, str]) -> list[EffectiveValue]:
    """Return the value of every setting, in the table's order. Raises ConfigError."""
    path = file.find(flags.config, environ)
    given = [*(_from_file(path) if path else ()), *_from_environment(environ), *_from_flags(flags)]
    by_key = {value.setting.key: value for value in given}  # later sources override earlier ones
    return [by_key.get(setting.key) or EffectiveValue(setting, setting.default, "default") for setting in SETTINGS]


def config(values: Sequence[EffectiveValue]) -> Config:
    return Config(**{value.setting.field: value.value for value in values})


def as_toml(values: Sequence[EffectiveValue]) -> str:
    """Return a configuration file that sets these values, with a comment that names each source."""
    return "".join(f"{_line(value.setting.key, value.value)}  # {value.source}\n" for value in values)


def _line(key: str, value: Any) -> str:
    match value:
        case None:
            return f"# {key} is not set"
        case Path():
            return file.render(key, str(value))
        case tuple():
            return file.render(key, [str(each) for each in value])
        case _:
            return file.render(key, value)


def _from_flags(flags: argparse.Namespace) -> Iterator[EffectiveValue]:
    for setting in SETTINGS:
        if (value := getattr(flags, setting.key, None)) is not None:
            yield EffectiveValue(setting, tuple(value) if setting.type.several else value, setting.flag)


def _from_environment(environ: Mapping[str, str]) -> Iterator[EffectiveValue]:
    known = {variable: setting for setting in SETTINGS for variable in setting.variables}
    for name, text in environ.items():
        if name.startswith(PREFIX) and name != file.VARIABLE and text:
            with _errors_naming(name):
                setting = _find(known, name)
                value = setting.type.read_all(text)
            yield EffectiveValue(setting, value, name)


def _from_file(path: Path) -> Iterator[EffectiveValue]:
    known = {key: setting for setting in SETTINGS for key in setting.keys}
    for key, raw in file.read(path).items():
        with _errors_naming(f"{path}: {key}"):
            setting = _find(known, key)
            value = setting.type.check(raw)
        yield EffectiveValue(setting, value, str(path))


def _find(known: Mapping[str, Setting], name: str) -> Setting:
    if (setting := known.get(name)) is None:
        raise ConfigError("no such setting; `responsed serve --print-config` lists all settings")
    return setting


@contextlib.contextmanager
def _errors_naming(place: str) -> Iterator[None]:
    """Prefix the message of a ConfigError with the place of its cause."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
