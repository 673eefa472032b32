"""What can be set, and where from: a flag, else the environment, else the file, else the default.

One table serves all of them: a value is read by the same validator wherever it stands. Defaults are `Config`'s.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from server import configfile
from server.config import DEFAULTS, Config
from server.configfile import ConfigError

PREFIX = "RESPONSED_"
ENGINES = ("auto", "llamacpp", "ctransformers")
SWITCH = ("on", "off")
REASONING_EVENTS = ("openai", "open-responses")
LOG_LEVELS = ("debug", "info", "warning", "error")


class Kind(Struct, frozen=True):
    """A kind of value."""

    parse: Callable[[str], Any]
    """From a flag's or a variable's text. Raises ValueError."""
    said: str
    """For "... is not ..."."""
    types: tuple[type, ...] = (str,)
    """What TOML has it as."""
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


def _whole(least: int, most: int) -> Kind:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ValueError
        return int(text)

    return Kind(parse, f"a whole number from {least} to {most}", (int,), metavar="N")


def _seconds(most: int) -> Kind:
    def parse(text: str) -> float:
        if not 0 <= float(text) <= most:
            raise ValueError
        return float(text)

    return Kind(parse, f"a number of seconds from 0 to {most}", (int, float), metavar="SECONDS")


def _one_of(names: Sequence[str]) -> Kind:
    return Kind(lambda text: names[names.index(text)], f"one of {', '.join(names)}", metavar=f"{{{','.join(names)}}}")


def _full(text: str) -> str:
    if not text:
        raise ValueError
    return text


TEXT = Kind(_full, "a text")
PATH = Kind(lambda text: Path(_full(text)), "a path", metavar="PATH")
YES = Kind(lambda text: ("false", "true").index(text.lower()) == 1, "true or false", (bool,), metavar="{true,false}")
NAMES = Kind(_full, "names", several=True, metavar="NAME")
COUNT, SOME, SLOTS, PORT = _whole(0, 1 << 20), _whole(1, 1 << 20), _whole(1, 64), _whole(0, 65535)


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


class Setting(Struct, frozen=True):
    key: str
    """In a file; the flag and the variable are made of it."""
    kind: Kind
    help: str
    """`{}` stands for the default."""
    field: str = ""
    """Config's, where it is not the key."""
    former: str = ""
    """A key of earlier versions that still works."""

    @property
    def name(self) -> str:
        return self.field or self.key

    @property
    def flag(self) -> str:
        return _flag(self.key)

    @property
    def flags(self) -> tuple[str, ...]:
        return (self.flag, _flag(self.former)) if self.former else (self.flag,)

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.key.upper()}"


SETTINGS = (
    Setting("model", TEXT, "a GGUF file, or a name of `responsed models` (default: {})"),
    Setting("host", TEXT, "address to listen on (default: {})"),
    Setting("port", PORT, "0: any free one (default: {})"),
    Setting(
        "allow_host",
        NAMES,
        "a name that this server has in Host headers, beside localhost and addresses",
        "allow_hosts",
    ),
    Setting("allow_origin", NAMES, "an origin whose web pages may call this server; '*': any", "allow_origins"),
    Setting("strict_fields", YES, "refuse requests with unknown fields (default: {})"),
    Setting("threads", COUNT, "for the model (default: one less than the cores; see `responsed tune`)"),
    Setting("slots", SLOTS, "answers at the same time (default: {})"),
    Setting("queue", COUNT, "requests that may wait for a slot; others get a 503 (default: {})"),
    Setting("context", COUNT, "tokens a slot (default: the model's, 8192 at most)"),
    Setting("engine", _one_of(ENGINES), "what runs the model (default: {})"),
    Setting("libllama", PATH, "llama.cpp's library (default: the one that is installed)"),
    Setting("flash_attention", _one_of(SWITCH), "llama.cpp's attention in one pass (default: {})"),
    Setting("max_step_ms", COUNT, "longest step while somebody streams (default: 2.5 usual ones)"),
    Setting("state", PATH, "folder for what a restart needs (default: ~/.local/state/responsed)"),
    Setting("store", TEXT, "file of stored responses, or off (default: responses.db in the state folder)"),
    Setting("store_responses", SOME, "kept at most, conversations included (default: {})"),
    Setting("store_megabytes", SOME, "of stored responses (default: {})"),
    Setting("store_days", SOME, "after its last use a stored response goes (default: {})"),
    Setting(
        "resume_window",
        _seconds(3600),
        "seconds for which a stored stream goes on after its client has left (default: {})",
        "resume_window_seconds",
        former="linger",
    ),
    Setting("max_body_megabytes", SOME, "megabytes of a request body (default: {})"),
    Setting("heartbeat", _seconds(3600), "longest silence before a first token (default: {})", "heartbeat_seconds"),
    Setting("reasoning_events", _one_of(REASONING_EVENTS), "whose names the events of reasoning have (default: {})"),
    Setting("warm_megabytes", COUNT, "of KV cache kept over a restart; 0: none (default: {})"),
    Setting(
        "snapshot_unstored",
        YES,
        "write the KV cache of requests with `store: false` to the state folder too (default: {})",
    ),
    Setting("alias", NAMES, "another name; '*': any", "aliases"),
    Setting("grace", _seconds(3600), "for streams in progress after SIGTERM (default: {})", "grace_seconds"),
    Setting("log_level", _one_of(LOG_LEVELS), "(default: {})"),
)


class Value(Struct, frozen=True):
    """A setting's value, and where it is from."""

    setting: Setting
    value: Any
    source: str


def add_flags(parser: argparse.ArgumentParser, *keys: str) -> None:
    """`--config`, and the flags of all settings, or of these."""
    parser.add_argument("--config", metavar="PATH", help="a file of settings (default: responsed/config.toml in "
                        "~/.config, else in /etc)")  # fmt: skip
    for setting in SETTINGS:
        if not keys or setting.key in keys:
            parser.add_argument(
                *setting.flags,
                dest=setting.key,
                type=_flag_type(setting.kind),
                action="append" if setting.kind.several else "store",
                metavar=setting.kind.metavar,
                help=setting.help.format(getattr(DEFAULTS, setting.name)),
            )


def resolve(flags: argparse.Namespace, environ: Mapping[str, str]) -> list[Value]:
    """All settings, in the table's order. Raises ConfigError."""
    told = _told(flags, environ)
    return [told.get(setting.key) or Value(setting, getattr(DEFAULTS, setting.name), "default") for setting in SETTINGS]


def config(values: Sequence[Value]) -> Config:
    return Config(**{value.setting.name: value.value for value in values})


def as_toml(values: Sequence[Value]) -> str:
    """A file that says the same, with where each value is from."""
    return "".join(f"{_line(value.setting.key, value.value)}  # {value.source}\n" for value in values)


def _line(key: str, value: Any) -> str:
    match value:
        case None:
            return f"# {key} is not set"
        case Path():
            return configfile.render(key, str(value))
        case _:
            return configfile.render(key, value)


def _flag_type(kind: Kind) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _told(flags: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Value]:
    """What is told anywhere, by key: later ones win."""
    path = configfile.find(flags.config, environ)
    sources = [*(_of_file(path) if path else ()), *_of_environment(environ), *_of_flags(flags)]
    return {value.setting.key: value for value in sources}


def _of_flags(flags: argparse.Namespace) -> Iterator[Value]:
    for setting in SETTINGS:
        if (value := getattr(flags, setting.key, None)) is not None:
            yield Value(setting, tuple(value) if setting.kind.several else value, setting.flag)


def _of_environment(environ: Mapping[str, str]) -> Iterator[Value]:
    known = {f"{PREFIX}{key.upper()}": setting for key, setting in _by_key().items()}
    for name, text in environ.items():
        if name.startswith(PREFIX) and name != configfile.VARIABLE and text:
            with _at(name):
                setting = _find(known, name)
                value = setting.kind.read_all(text)
            yield Value(setting, value, name)


def _of_file(path: Path) -> Iterator[Value]:
    known = _by_key()
    for key, raw in configfile.read(path).items():
        with _at(f"{path}: {key}"):
            setting = _find(known, key)
            value = setting.kind.check(raw)
        yield Value(setting, value, str(path))


def _by_key() -> dict[str, Setting]:
    return {key: setting for setting in SETTINGS for key in (setting.former, setting.key) if key}


def _find(known: Mapping[str, Setting], name: str) -> Setting:
    if (setting := known.get(name)) is None:
        raise ConfigError("there is no such setting (`responsed serve --print-config` lists them)")
    return setting


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
