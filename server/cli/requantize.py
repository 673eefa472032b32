"""Copies of a model with types of weights that may be faster on this machine: comparison and permanent copies."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from engine import backends
from engine.backends.llamacpp import quantizer
from engine.loader import machine, model_file
from engine.model import ModelError, OptionError
from engine.tuner import choice, divergence, stopwatch
from server.cli.console import print_table
from server.config import Config

SPEED_HEADINGS = ("PROMPT tokens/s", "DECODE ms/token", "4 STREAMS ms/step", "BUSY p99 ms/token")


def speeds(measured: choice.Measurement) -> tuple[str, ...]:
    """Return the cells for `SPEED_HEADINGS`."""
    batch = "-" if measured.batch4_ms is None else f"{measured.batch4_ms:.1f}"
    return (f"{measured.prefill:.0f}", f"{measured.decode_ms:.1f}", batch, f"{measured.busy_p99_ms:.1f}")


def compare(path: Path, config: Config, best: choice.Trial, plan: stopwatch.MeasurementPlan, cache: Path) -> None:
    """Print the speed of temporary copies, and their divergence from the model."""
    header, vocabulary, _ = model_file.read(path, config.libllama)
    n_ctx = min(plan.n_ctx, model_file.trained_context(header) or plan.n_ctx)
    with tempfile.TemporaryDirectory(prefix=".requantise-", dir=cache) as folder, ExitStack() as stack:
        files = {"as it is": path} | {kind: Path(folder, f"{path.stem}.{kind}.gguf") for kind in quantizer.FILE_TYPES}
        trials = {}
        for weights, file in files.items():
            if file != path:
                quantizer.quantize(path, file, weights, machine.cores(), config.libllama)
            model = backends.open_model(
                backends.QUANTIZING_ENGINE,
                file,
                n_ctx=n_ctx,
                n_slots=stopwatch.STREAMS,
                threads=best.threads,
                library=config.libllama,
                backend_options=best.backend_options,
            )
            stack.callback(model.close)
            trials[choice.Trial(best.threads, best.backend_options, weights)] = model
        measured = stopwatch.measure(trials, plan)
        tokens = vocabulary.encode(divergence.TEXT)
        predictions = [divergence.next_token_logprobs(model, tokens) for model in trials.values()]
        rows: list[tuple[str, ...]] = [("WEIGHTS", "MB", *SPEED_HEADINGS, "DIVERGENCE nats/token")]
        for each, file, predicted in zip(measured, files.values(), predictions, strict=True):
            distance = divergence.mean_divergence(predictions[0], predicted)
            rows.append((each.trial.weights, f"{file.stat().st_size / 1e6:.0f}", *speeds(each), f"{distance:.4f}"))
    print_table(rows)
    print("\n`responsed tune --apply TYPE` writes a copy of that type, which the next start serves")


def write_copy(path: Path, kind: str, config: Config, folder: Path) -> Path:
    """Write a complete copy into the folder of models and return its path. Raises ModelError."""
    if path.stem.endswith(f".{kind}"):
        raise ModelError(f"{path.name} already has weights of type {kind}")
    copy = folder / f"{path.stem}.{kind}.gguf"
    draft = folder / f".{copy.name}.draft"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        quantizer.quantize(path, draft, kind, machine.cores(), config.libllama)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, copy)
    finally:
        draft.unlink(missing_ok=True)
    return copy


def check(config: Config) -> None:
    """Raise OptionError if this machine or configuration cannot write copies."""
    if config.engine not in ("auto", backends.QUANTIZING_ENGINE):
        raise OptionError("only llama.cpp can write and run other types of weights; omit --engine")
    quantizer.check(config.libllama)
