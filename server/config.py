"""One frozen Struct; every default once; flags end here."""

import argparse
from pathlib import Path

from msgspec import Struct

from engine import Sampling


class Config(Struct, frozen=True):
    """What `responsed serve` was told."""

    model: str
    host: str = "127.0.0.1"
    port: int = 8080
    threads: int = 0
    """0: one less than the cores this process may use."""
    slots: int = 2
    context: int = 0
    """Tokens a slot. 0: what the model was trained on, 8192 at most."""
    engine: str = "auto"
    libllama: Path | None = None
    """llama.cpp's library; None: the one compiled here, else the one in xllamacpp's wheel."""
    max_step_ms: int = 0
    """How long streams may wait for a part of somebody's prompt; 0: two and a half of their own steps."""
    state: Path | None = None
    """Where the KV cache is kept over a restart; None: systemd's state folder, or XDG's."""
    warm_megabytes: int = 128
    """How much of it; 0: nothing."""
    aliases: tuple[str, ...] = ()
    """Other names for the model; `*` stands for any."""
    grace_seconds: float = 10.0
    """How long streams may go on after SIGTERM."""
    log_level: str = "info"
    max_body_bytes: int = 4 << 20
    body_gap_seconds: float = 20.0
    """The longest silence while a body arrives."""
    sampling: Sampling = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
    """What a request that says nothing gets: llama.cpp's defaults. OpenAI's (temperature 1, everything
    allowed) are for models a thousand times larger; small ones lose the thread with them."""


DEFAULTS = Config(model="smollm2")
ENGINES = ("auto", "llamacpp", "ctransformers")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `responsed serve`."""
    add = parser.add_argument
    add(
        "--model",
        default=DEFAULTS.model,
        help="a GGUF file, or a name of `responsed models` (default: %(default)s)",
    )
    add("--host", default=DEFAULTS.host, help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=DEFAULTS.port, help="0: any free one (default: %(default)s)")
    add(
        "--threads",
        type=_count,
        default=DEFAULTS.threads,
        help="for the model (default: one less than the cores)",
    )
    add(
        "--slots",
        type=_positive,
        default=DEFAULTS.slots,
        help="answers at the same time (default: %(default)s)",
    )
    add(
        "--context",
        type=_count,
        default=DEFAULTS.context,
        help="tokens a slot (default: the model's, 8192 at most)",
    )
    add(
        "--engine",
        choices=ENGINES,
        default=DEFAULTS.engine,
        help="what runs the model (default: %(default)s)",
    )
    add("--libllama", type=Path, metavar="PATH", help="llama.cpp's library (default: the one that is installed)")
    add("--max-step-ms", type=_count, default=DEFAULTS.max_step_ms, metavar="MS",
        help="longest step while somebody streams (default: 2.5 usual ones)")  # fmt: skip
    add("--state", type=Path, metavar="FOLDER", help="for what a restart needs (default: ~/.local/state/responsed)")
    add("--warm-megabytes", type=_count, default=DEFAULTS.warm_megabytes, metavar="MB",
        help="of KV cache kept over a restart; 0: none (default: %(default)s)")  # fmt: skip
    add("--alias", action="append", default=[], dest="aliases", metavar="NAME", help="another name; '*': any")
    add("--grace", type=_seconds, default=DEFAULTS.grace_seconds, dest="grace_seconds", metavar="SECONDS",
        help="for streams in progress after SIGTERM (default: %(default)s)")  # fmt: skip
    add("--log-level", choices=("debug", "info", "warning", "error"), default=DEFAULTS.log_level,
        help="(default: %(default)s)")  # fmt: skip


def from_flags(flags: argparse.Namespace) -> Config:
    values = {field: getattr(flags, field) for field in Config.__struct_fields__ if hasattr(flags, field)}
    return Config(**values | {"aliases": tuple(flags.aliases)})


def _count(text: str) -> int:
    return _within(text, 0, 1 << 20)


def _positive(text: str) -> int:
    return _within(text, 1, 64)


def _port(text: str) -> int:
    return _within(text, 0, 65535)


def _within(text: str, least: int, most: int) -> int:
    if not (text.isdecimal() and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return seconds
