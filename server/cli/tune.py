"""The command `tune`: measures the fastest options for a model on this machine and writes them to the file."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from engine import backends, gguf
from engine.backends.llamacpp import quantizer
from engine.loader import Options, catalog, load, machine, model_file
from engine.model import BackendOptions, Model
from engine.tuner import choice as tuning
from engine.tuner import stopwatch
from server.cli import kv_types, requantize
from server.cli import models as commands
from server.cli.console import print_table
from server.cli.install import is_installed
from server.cli.memory_limits import SERVICE_CACHE
from server.config import Config, ConfigError, file, settings

PLAN = stopwatch.MeasurementPlan()
HEADINGS = ("THREADS", "FLASH ATTENTION", *requantize.SPEED_HEADINGS)


def add_tune(parser: argparse.ArgumentParser) -> None:
    settings.add_flags(parser, "model", "engine", "libllama")
    parser.add_argument("--requantise", action="store_true", help="Also measure copies with other types of weights")
    parser.add_argument(
        "--apply",
        choices=sorted(quantizer.FILE_TYPES),
        help="Write a copy with this type of weights and serve it from the next start on",
    )
    parser.set_defaults(run=tune)


def tune(flags: argparse.Namespace) -> int:
    environ = _environ(flags, os.environ)
    target = _target(flags, environ)
    file.write(target, {})  # reports an unwritable file before the measurement, which takes a minute
    config = settings.config(settings.resolve(flags, environ))
    if flags.requantise or flags.apply:
        requantize.check(config)
    folder = catalog.cache_folder(environ)
    path = commands.find_or_pull(config.model, folder)
    if flags.requantise or not flags.apply:
        best, values = _best(path, config, folder.parent)
        _write(target, values)
        if "flash_attention" in values:  # llama.cpp runs the model
            kv_types.compare(path, config, best.threads, PLAN, folder.parent)
        if flags.requantise:
            print()
            requantize.compare(path, config, best, PLAN, folder.parent)
    if flags.apply:
        copy = requantize.write_copy(path, flags.apply, config, folder)
        print(f"written: {copy}; clients name it {copy.stem} (`alias` can add another name)")
        _write(target, {"model": str(copy)})
    return 0


def _environ(flags: argparse.Namespace, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment; for root on a machine with the service, one that leads to the files of the service."""
    chosen = flags.config or file.VARIABLE in environ
    if chosen or os.geteuid() != 0 or not is_installed():
        return environ
    return {**environ, file.VARIABLE: str(file.SYSTEM), "CACHE_DIRECTORY": SERVICE_CACHE}


def _target(flags: argparse.Namespace, environ: Mapping[str, str]) -> Path:
    """Return the configuration file to update: the one that is read, else the user's, which may not exist yet."""
    path = file.find(flags.config, environ) or file.user_file(environ)
    if path is None:
        raise ConfigError("there is no home folder; name a file for the result with --config")
    return path


def _best(path: Path, config: Config, cache: Path) -> tuple[tuning.Trial, dict[str, str | int]]:
    """Measure and print all trials; return the best one, and its settings."""
    cores = machine.cores()
    models = _open(path, config, cache)
    try:
        engine = next(iter(models.values())).info.engine
        print(f"{path.name}, {engine}, {cores} cores: this takes about two minutes\n", flush=True)
        trials = {
            tuning.Trial(n, option_set): model
            for n in stopwatch.counts_to_try(cores)
            for option_set, model in models.items()
        }
        measured = stopwatch.measure(trials, PLAN)
    finally:
        for model in models.values():
            model.close()
    print_table([HEADINGS, *map(_row, measured)])
    choice = tuning.choose(measured)
    best = choice.best.trial
    print(f"\nbest: {best}; {choice.reason}")
    values: dict[str, str | int] = {"threads": best.threads}
    if len(models) == 1:
        return best, values
    batch = tuning.choose_batch_threads(measured, best.backend_options)
    print(f"for several tokens: {batch.trial}; a prompt has {batch.prefill:.0f} tokens/s")
    # 0 is as many, and unlike a fixed number gives way to other processes.
    automatic = batch.trial.threads == machine.fast_cores()
    threads_batch = 0 if automatic else batch.trial.threads
    return best, values | {"threads_batch": threads_batch, "flash_attention": _switch(best)}


def _open(path: Path, config: Config, cache: Path) -> dict[BackendOptions, Model]:
    """Load the file once for every set of backend options."""
    options = Options(
        n_slots=stopwatch.STREAMS,
        n_ctx=min(PLAN.n_ctx, model_file.trained_context(gguf.read(path)) or PLAN.n_ctx),
        threads=1,
        engine=config.engine,
        libllama=config.libllama,
    )
    default = load(path, options, cache).model
    others = [each for each in backends.option_sets(default.info.engine) if each != options.backend_options]
    return {options.backend_options: default} | {
        each: load(path, msgspec.structs.replace(options, backend_options=each), cache).model for each in others
    }


def _row(measured: tuning.Measurement) -> Sequence[str]:
    attention = "-" if measured.batch4_ms is None else _switch(measured.trial)
    return (str(measured.trial.threads), attention, *requantize.speeds(measured))


def _switch(trial: tuning.Trial) -> str:
    return "on" if trial.backend_options.flash_attention else "off"


def _write(target: Path, values: Mapping[str, str | int]) -> None:
    file.write(target, values)
    print(f"written to {target}: {', '.join(file.render(*pair) for pair in values.items())}")
