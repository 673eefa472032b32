"""Types of settings: parsers of values from flags, variables and TOML."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from server.config.file import ConfigError

DATABASES = ("postgresql://", "postgres://")
"""Beginnings of URLs of PostgreSQL (PostgreSQL's documentation, "Connection URIs")."""


class ValueType(Struct, frozen=True):
    """Type of a setting's value."""

    parse: Callable[[str], Any]
    """Parser of the text of a flag or variable. Raises ValueError."""
    description: str
    """Noun phrase for the error "... is not ..."."""
    types: tuple[type, ...] = (str,)
    """Python types of the value in TOML."""
    several: bool = False
    """True if the value is a list: the flag is repeatable, and commas separate the items of the variable."""
    one_suffices: bool = False
    """True if one value in TOML stands for a list of it."""
    metavar: str | None = None
    """Placeholder in the help text."""
    unit: str = "text"
    """Unit of a number, or kind of the values, for the page of settings."""

    def read(self, text: str) -> Any:
        """Return the value of Config's field for a flag's text. Raises ConfigError."""
        try:
            return self.parse(text)
        except ValueError as error:
            raise ConfigError(f"{text!r} is not {self.description}") from error

    def read_all(self, text: str) -> Any:
        """Return the value of Config's field for a variable's text. Raises ConfigError."""
        return tuple(map(self.read, text.split(","))) if self.several else self.read(text)

    def check(self, value: object) -> Any:
        """Return the value of Config's field for a value of TOML. Raises ConfigError."""
        if self.several:
            value = [value] if self.one_suffices and type(value) in self.types else value
            if not isinstance(value, list) or any(type(each) not in self.types for each in value):
                raise ConfigError(f"{value!r} is not a list; each item must be {self.description}")
            return tuple(self.read(each) for each in value)
        if type(value) not in self.types:  # an exact comparison, since Python's True is an int
            raise ConfigError(f"{value!r} is not {self.description}")
        return self.read(str(value))


def whole(least: int, most: int = 1 << 20, unit: str = "number") -> ValueType:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ValueError
        return int(text)

    return ValueType(parse, f"a whole number from {least} to {most}", (int,), metavar="N", unit=unit)


def seconds(most: int, least: float = 0) -> ValueType:
    def parse(text: str) -> float:
        if not least <= float(text) <= most:
            raise ValueError
        return float(text)

    description = f"a number of seconds from {least} to {most}"
    return ValueType(parse, description, (int, float), metavar="SECONDS", unit="seconds")


def one_of(names: Sequence[str]) -> ValueType:
    def parse(text: str) -> str:
        return names[names.index(text)]

    return ValueType(parse, f"one of {', '.join(names)}", metavar=f"{{{','.join(names)}}}", unit=_quoted(names))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _non_empty(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _store(text: str) -> str:
    if text.startswith(DATABASES):
        return _database(text)
    if text.lower() in ("on", "true", "yes", "1", "false", "no", "0") or "://" in text:
        raise ValueError
    return "off" if text.lower() == "off" else _non_empty(text)


def _database(url: str) -> str:
    """Return the URL of a database. Raises ConfigError, without the password that the URL contains."""
    parts = urlsplit(url)
    query = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if parts.password is not None or query & {"password", "sslpassword"}:
        raise ConfigError(
            "the URL contains a password, which every user of the machine can read: leave it out, and write it to "
            "~/.pgpass (HOST:PORT:DATABASE:USER:PASSWORD, chmod 600) or to systemd's credential postgres-password"
        )
    return url


def _proxy(text: str) -> str:
    if text.lower() != "unix":
        ipaddress.ip_network(text, strict=False)
    return text


def _web_address(text: str) -> str:
    """Return a URL. Raises ValueError, and ConfigError without the key or password that the URL contains."""
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            "the URL contains a user or a key, which every user of the machine can read: leave it out; keys have files "
            "or credentials"
        )
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError
    return text


def _upstream(text: str) -> str:
    """Return the URL of an upstream, to which the paths of the API are added. Raises as `_web_address` does."""
    parts = urlsplit(_web_address(text))
    if parts.query or parts.fragment or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    (parts.hostname or "").encode("idna")  # UnicodeError, which is a ValueError, for empty or long labels
    return text


def _connector(text: str) -> str:
    name, equals, url = text.partition("=")
    if not (name and equals):
        raise ValueError
    return f"{name}={_web_address(url)}"


def _pattern(text: str) -> str:
    """Return a regular expression. Raises ConfigError, with the reason of `re`; ValueError for an empty text."""
    try:
        re.compile(_non_empty(text))
    except re.error as error:
        raise ConfigError(f"{text!r} is not a regular expression: {error}") from error
    return text


def _boolean(text: str) -> bool:
    return ("false", "true").index(text.lower()) == 1


def _path(text: str) -> Path:
    return Path(_non_empty(text))


BOOLEAN = ValueType(_boolean, "true or false", (bool,), metavar="{true,false}", unit=_quoted(("true", "false")))
TEXT = ValueType(_non_empty, "a non-empty text")
PATH = ValueType(_path, "a path", metavar="PATH", unit="path")
STORE = ValueType(
    _store,
    "a file, a postgresql:// URL or off; omit the setting to store in the state folder",
    metavar="PLACE",
    unit="path or URL",
)
NAMES = ValueType(_non_empty, "a non-empty text", several=True, metavar="NAME", unit="list of names")
HOSTS = ValueType(
    _non_empty, "a non-empty text", several=True, one_suffices=True, metavar="HOST", unit="list of addresses"
)
PROXIES = ValueType(
    _proxy,
    "an address, a network such as 10.0.0.0/8, or unix",
    several=True,
    one_suffices=True,
    metavar="PEER",
    unit="list of addresses",
)
URL = ValueType(_web_address, "an http or https URL", metavar="URL", unit="URL")
URLS = ValueType(_web_address, "an http or https URL", several=True, one_suffices=True, metavar="URL", unit="URLs")
UPSTREAMS = ValueType(
    _upstream,
    "an http or https URL in ASCII, without query or fragment",
    several=True,
    one_suffices=True,
    metavar="URL",
    unit="URLs",
)
CONNECTORS = ValueType(
    _connector,
    "NAME=URL with an http or https URL",
    several=True,
    one_suffices=True,
    metavar="NAME=URL",
    unit="list of NAME=URL",
)
FILES = ValueType(_path, "a path", several=True, metavar="FILE", unit="list of paths")
PATTERNS = ValueType(_pattern, "a regular expression", several=True, metavar="REGEX", unit="list of patterns")
COUNT, POSITIVE, SLOTS, PORT = whole(0), whole(1), whole(1, 64), whole(0, 65535)
TOKENS, MEGABYTES, MILLISECONDS = whole(0, unit="tokens"), whole(0, unit="MB"), whole(0, unit="ms")
SOME_MEGABYTES, DAYS = whole(1, unit="MB"), whole(1, unit="days")
