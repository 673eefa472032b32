"""What can be set, and where from: a flag, else the environment, else the file, else the default.

One table serves all of them: a value is read by the same validator wherever it stands. Defaults are `Config`'s.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.chat_template import BUILT_IN
from server.config import file
from server.config.config import DEFAULTS, Config
from server.config.file import ConfigError
from server.config.values import COUNT, NAMES, PATH, PORT, SLOTS, SOME, STORE, TEXT, YES, ValueType, one_of, seconds

PREFIX = "RESPONSED_"
ENGINES = ("auto", "llamacpp", "ctransformers")
SWITCH = ("on", "off")
REASONING_EVENTS = ("openai", "open-responses")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


class Setting(Struct, frozen=True):
    key: str
    """In a file; the flag and the variable are made of it."""
    kind: ValueType
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
    Setting("engine", one_of(ENGINES), "what runs the model (default: {})"),
    Setting("libllama", PATH, "llama.cpp's library (default: the one that is installed)"),
    Setting(
        "chat_template",
        TEXT,
        f"a file with a chat template, or one of {', '.join(sorted(BUILT_IN))} (default: the model's own)",
    ),
    Setting("flash_attention", one_of(SWITCH), "llama.cpp's attention in one pass (default: {})"),
    Setting("max_step_ms", COUNT, "longest step while somebody streams (default: 2.5 usual ones)"),
    Setting("state", PATH, "folder for what a restart needs (default: ~/.local/state/responsed)"),
    Setting("store", STORE, "file of stored responses, or off (default: responses.db in the state folder)"),
    Setting("store_responses", SOME, "kept at most, conversations included (default: {})"),
    Setting("store_megabytes", SOME, "of stored responses (default: {})"),
    Setting("store_days", SOME, "after its last use a stored response goes (default: {})"),
    Setting(
        "resume_window",
        seconds(3600),
        "seconds for which a stored stream goes on after its client has left (default: {})",
        "resume_window_seconds",
        former="linger",
    ),
    Setting("max_body_megabytes", SOME, "megabytes of a request body (default: {})"),
    Setting("heartbeat", seconds(3600), "longest silence before a first token (default: {})", "heartbeat_seconds"),
    Setting("reasoning_events", one_of(REASONING_EVENTS), "whose names the events of reasoning have (default: {})"),
    Setting("warm_megabytes", COUNT, "of KV cache kept over a restart; 0: none (default: {})"),
    Setting(
        "snapshot_unstored",
        YES,
        "write the KV cache of requests with `store: false` to the state folder too (default: {})",
    ),
    Setting("alias", NAMES, "another name; '*': any", "aliases"),
    Setting("grace", seconds(3600), "for streams in progress after SIGTERM (default: {})", "grace_seconds"),
    Setting("log_level", one_of(LOG_LEVELS), "(default: {})"),
)


class _Once(argparse.Action):
    """A flag that may be given once. Of two files, only one would be read."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        if getattr(namespace, self.dest, None) is not None:
            raise argparse.ArgumentError(self, "it is given twice")
        setattr(namespace, self.dest, values)


class EffectiveValue(Struct, frozen=True):
    """A setting's value, and where it is from."""

    setting: Setting
    value: Any
    source: str


def add_flags(parser: argparse.ArgumentParser, *keys: str) -> None:
    """`--config`, and the flags of all settings, or of these."""
    parser.add_argument(
        "--config",
        metavar="PATH",
        action=_Once,
        help="a file of settings (default: responsed/config.toml in ~/.config, else in /etc)",
    )
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


def resolve(flags: argparse.Namespace, environ: Mapping[str, str]) -> list[EffectiveValue]:
    """All settings, in the table's order. Raises ConfigError."""
    told = _told(flags, environ)
    return [
        told.get(setting.key) or EffectiveValue(setting, getattr(DEFAULTS, setting.name), "default")
        for setting in SETTINGS
    ]


def config(values: Sequence[EffectiveValue]) -> Config:
    return Config(**{value.setting.name: value.value for value in values})


def as_toml(values: Sequence[EffectiveValue]) -> str:
    """A file that says the same, with where each value is from."""
    return "".join(f"{_line(value.setting.key, value.value)}  # {value.source}\n" for value in values)


def _line(key: str, value: Any) -> str:
    match value:
        case None:
            return f"# {key} is not set"
        case Path():
            return file.render(key, str(value))
        case _:
            return file.render(key, value)


def _flag_type(kind: ValueType) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _told(flags: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, EffectiveValue]:
    """What is told anywhere, by key: later ones win."""
    path = file.find(flags.config, environ)
    sources = [*(_of_file(path) if path else ()), *_of_environment(environ), *_of_flags(flags)]
    return {value.setting.key: value for value in sources}


def _of_flags(flags: argparse.Namespace) -> Iterator[EffectiveValue]:
    for setting in SETTINGS:
        if (value := getattr(flags, setting.key, None)) is not None:
            yield EffectiveValue(setting, tuple(value) if setting.kind.several else value, setting.flag)


def _of_environment(environ: Mapping[str, str]) -> Iterator[EffectiveValue]:
    known = {f"{PREFIX}{key.upper()}": setting for key, setting in _by_key().items()}
    for name, text in environ.items():
        if name.startswith(PREFIX) and name != file.VARIABLE and text:
            with _at(name):
                setting = _find(known, name)
                value = setting.kind.read_all(text)
            yield EffectiveValue(setting, value, name)


def _of_file(path: Path) -> Iterator[EffectiveValue]:
    known = _by_key()
    for key, raw in file.read(path).items():
        with _at(f"{path}: {key}"):
            setting = _find(known, key)
            value = setting.kind.check(raw)
        yield EffectiveValue(setting, value, str(path))


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
