"""Copies of a model in types of weights that may be quicker here: compared, and, where that is wished, kept."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from engine import backends, machine
from engine.backends.llamacpp import quantizer
from engine.loader import model_file
from engine.model import ModelError
from engine.tuner import choice, divergence, stopwatch
from server.cli import models
from server.config import Config

SPEEDS = ("PROMPT tokens/s", "DECODE ms/token", "4 STREAMS ms/step", "BUSY p99 ms/token")


def speeds(measured: choice.Measurement) -> tuple[str, ...]:
    together = "-" if measured.batch4_ms is None else f"{measured.batch4_ms:.1f}"
    return (f"{measured.prefill:.0f}", f"{measured.decode_ms:.1f}", together, f"{measured.busy_p99_ms:.1f}")


def compare(path: Path, config: Config, best: choice.Trial, effort: stopwatch.MeasurementPlan, cache: Path) -> None:
    """Print how quick each copy is, and how far from the model. The copies are gone afterwards."""
    header, vocabulary, _ = model_file.read(path, config.libllama)
    n_ctx = min(effort.n_ctx, model_file.trained_context(header) or effort.n_ctx)
    with tempfile.TemporaryDirectory(prefix=".requantise-", dir=cache) as folder, ExitStack() as stack:
        files = {"as it is": path} | {kind: Path(folder, f"{path.stem}.{kind}.gguf") for kind in quantizer.KINDS}
        trials = {}
        for weights, file in files.items():
            if file != path:
                quantizer.quantize(path, file, weights, machine.cores(), config.libllama)
            model = backends.open_model(
                backends.QUANTIZATIONS,
                file,
                n_ctx=n_ctx,
                n_slots=stopwatch.STREAMS,
                threads=best.threads,
                library=config.libllama,
                knobs=best.knobs,
            )
            stack.callback(model.close)
            trials[choice.Trial(best.threads, best.knobs, weights)] = model
        measured = stopwatch.measure(trials, effort)
        tokens = vocabulary.encode(divergence.TEXT)
        expected = [divergence.expectations(model, tokens) for model in trials.values()]
        rows: list[tuple[str, ...]] = [("WEIGHTS", "MB", *SPEEDS, "DIVERGENCE nats/token")]
        for each, file, expects in zip(measured, files.values(), expected, strict=True):
            far = divergence.mean_divergence(expected[0], expects)
            rows.append((each.trial.weights, f"{file.stat().st_size / 1e6:.0f}", *speeds(each), f"{far:.4f}"))
    models.print_table(rows)
    print("\n`responsed tune --apply TYPE` writes a copy of that type, and serves it from then on")


def keep(path: Path, kind: str, config: Config, folder: Path) -> Path:
    """The copy, among the models: all of it, or nothing. Raises ModelError."""
    if path.stem.endswith(f".{kind}"):
        raise ModelError(f"{path.name} is of type {kind} already")
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
    """Raises ModelError."""
    if config.engine not in ("auto", backends.QUANTIZATIONS):
        raise ModelError("only llama.cpp writes and runs other types of weights: leave out --engine")
    quantizer.check(config.libllama)
