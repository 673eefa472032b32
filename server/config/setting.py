"""A setting: an annotated field of Config, with its flag, its variable and its key in the configuration file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from server.config.values import ValueType

PREFIX = "RESPONSED_"
"""Beginning of the variables' names."""


class Names(Struct, frozen=True):
    """Names of a setting that differ from its field's."""

    key: str = ""
    """Key in the configuration file; by default the field's name, without its unit of time."""
    former: str = ""
    """Key of an earlier version, accepted until 0.2.0."""


class Setting(Struct, frozen=True):
    field: str
    key: str
    former: str
    type: ValueType
    help: str
    """Help text of the flag; `{}` stands for the default."""
    default: Any

    @property
    def flag(self) -> str:
        return _flag(self.key)

    @property
    def former_flag(self) -> str:
        return _flag(self.former) if self.former else ""

    @property
    def keys(self) -> list[str]:
        """Present key and former one."""
        return [key for key in (self.key, self.former) if key]

    @property
    def variables(self) -> list[str]:
        """Present variable and former one."""
        return [f"{PREFIX}{key.upper()}" for key in self.keys]

    @property
    def help_text(self) -> str:
        return self.help.format(_as_written(self.default))


def annotated(config: type[Struct]) -> Iterator[Setting]:
    """Yield the settings of a struct: fields with a type of value, a help text and perhaps other names."""
    for field in structs.fields(config):
        match getattr(field.type, "__metadata__", ()):
            case [ValueType() as kind, str(text), *names]:
                name = names[0] if names else Names()
                key = name.key or field.name.removesuffix("_seconds")
                yield Setting(field.name, key, name.former, kind, text, field.default)


def grouped(settings: Sequence[Setting], firsts: Mapping[str, str]) -> dict[str, tuple[Setting, ...]]:
    """Return the settings by subject; each subject begins with the setting of this key."""
    keys = [setting.key for setting in settings]
    starts = [keys.index(first) for first in firsts.values()]
    ends = [*starts[1:], len(keys)]
    return {title: tuple(settings[start:end]) for title, start, end in zip(firsts, starts, ends, strict=True)}


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _as_written(value: Any) -> str:
    """Return a value as a user would write it."""
    match value:
        case tuple():
            return ", ".join(value)
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)
