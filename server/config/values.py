"""Kinds of values that settings have: how each is read from a flag, a variable or TOML."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from server.config.file import ConfigError


class ValueType(Struct, frozen=True):
    """A kind of value."""

    parse: Callable[[str], Any]
    """From a flag's or a variable's text. Raises ValueError."""
    said: str
    """For "... is not ..."."""
    types: tuple[type, ...] = (str,)
    """Types that it has in TOML."""
    several: bool = False
    """A list of them: the flag can be given again, a variable has commas."""
    metavar: str | None = None

    def read(self, text: str) -> Any:  # what Config's field takes
        """Raises ConfigError."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise ConfigError(f"{text!r} is not {self.said}") from error

    def read_all(self, text: str) -> Any:  # the same, of a variable
        """Raises ConfigError."""
        return tuple(map(self.read, text.split(","))) if self.several else self.read(text)

    def check(self, value: object) -> Any:  # the same, of TOML
        """Raises ConfigError."""
        if self.several:
            if not isinstance(value, list) or any(type(each) not in self.types for each in value):
                raise ConfigError(f"{value!r} is not a list of {self.said}")
            return tuple(self.read(each) for each in value)
        if type(value) not in self.types:  # exactly: Python's True is an int
            raise ConfigError(f"{value!r} is not {self.said}")
        return self.read(str(value))


def whole(least: int, most: int) -> ValueType:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ValueError
        return int(text)

    return ValueType(parse, f"a whole number from {least} to {most}", (int,), metavar="N")


def seconds(most: int) -> ValueType:
    def parse(text: str) -> float:
        if not 0 <= float(text) <= most:
            raise ValueError
        return float(text)

    return ValueType(parse, f"a number of seconds from 0 to {most}", (int, float), metavar="SECONDS")


def one_of(names: Sequence[str]) -> ValueType:
    return ValueType(
        lambda text: names[names.index(text)], f"one of {', '.join(names)}", metavar=f"{{{','.join(names)}}}"
    )


def _full(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _store(text: str) -> str:
    if text.lower() in ("on", "true", "yes", "1", "false", "no", "0"):
        raise ValueError
    return "off" if text.lower() == "off" else _full(text)


TEXT = ValueType(_full, "a text")
STORE = ValueType(_store, "a file or off (leave it out to store in the state folder)")
PATH = ValueType(lambda text: Path(_full(text)), "a path", metavar="PATH")
YES = ValueType(
    lambda text: ("false", "true").index(text.lower()) == 1, "true or false", (bool,), metavar="{true,false}"
)
NAMES = ValueType(_full, "names", several=True, metavar="NAME")
COUNT, SOME, SLOTS, PORT = whole(0, 1 << 20), whole(1, 1 << 20), whole(1, 64), whole(0, 65535)
