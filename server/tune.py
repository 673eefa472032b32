"""The command that measures what is quickest with a model on this machine, and writes it down."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from engine import Knobs, Model, Options, backends, gguf, library, load, loader, stopwatch, tuning
from server import commands, configfile, settings
from server.config import Config
from server.configfile import ConfigError

EFFORT = stopwatch.Effort()
HEAD = ("THREADS", "FLASH ATTENTION", "PROMPT tokens/s", "DECODE ms/token", "4 STREAMS ms/step", "BUSY p99 ms/token")


def tune(flags: argparse.Namespace) -> int:
    target = _target(flags, os.environ)
    configfile.write(target, {})  # now, not after a minute: can it be written?
    config = settings.config(settings.resolve(flags, os.environ))
    folder = library.cache_folder(os.environ)
    path = commands.find(config.model, folder)
    cores = len(os.sched_getaffinity(0))
    models = _open(path, config, folder.parent)
    try:
        info = next(iter(models.values())).info
        print(f"{path.name}, {info.engine}, {cores} cores: this takes about a minute\n", flush=True)
        measured = stopwatch.measure(models, stopwatch.counts(cores), EFFORT)
    finally:
        for model in models.values():
            model.close()
    commands.print_table([HEAD, *map(_row, measured)])
    choice = tuning.choose(measured)
    print(f"\nbest: {choice.best.trial}; {choice.reason}")
    _write(target, _settings(choice.best.trial, len(models) > 1))
    return 0


def _target(flags: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """The file in force, or the person's own that is to be."""
    path = configfile.find(flags.config, environ) or configfile.own(environ)
    if path is None:
        raise ConfigError("there is no home folder: name a file for the result by --config")
    return path


def _open(path: Path, config: Config, cache: Path) -> dict[Knobs, Model]:
    """The file, once for each way the engine can run it."""
    trained = loader.trained_context(gguf.read(path))
    options = Options(
        n_slots=stopwatch.STREAMS,
        n_ctx=min(EFFORT.n_ctx, trained or EFFORT.n_ctx),
        threads=1,
        engine=config.engine,
        libllama=config.libllama,
    )
    usual = load(path, options, cache).model
    others = [knobs for knobs in backends.ways(usual.info.engine) if knobs != options.knobs]
    return {options.knobs: usual} | {
        knobs: load(path, msgspec.structs.replace(options, knobs=knobs), cache).model for knobs in others
    }


def _row(measured: tuning.Measurement) -> Sequence[str]:
    together = "-" if measured.together is None else f"{measured.together:.1f}"
    attention = "on" if measured.trial.knobs.flash_attention else "off"
    speeds = (f"{measured.prefill:.0f}", f"{measured.decode:.1f}", together, f"{measured.stall:.1f}")
    return (str(measured.trial.threads), attention, *speeds)


def _settings(trial: tuning.Trial, knobs: bool) -> dict[str, str | int]:
    """As the configuration has them; knobs only where the engine has them."""
    found: dict[str, str | int] = {"threads": trial.threads}
    return found | ({"flash_attention": "on" if trial.knobs.flash_attention else "off"} if knobs else {})


def _write(target: Path, values: Mapping[str, str | int]) -> None:
    configfile.write(target, values)
    print(f"written to {target}: {', '.join(configfile.render(*pair) for pair in values.items())}")
