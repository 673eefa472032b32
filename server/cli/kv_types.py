"""Types of the KV cache: memory, speed and precision of each, on this machine."""

from contextlib import ExitStack
from pathlib import Path

import msgspec

from engine import backends
from engine.loader import Options, context, kv_cache, load, model_file
from engine.model import KV_TYPES, BackendOptions, ModelError
from engine.tuner import choice, divergence, stopwatch
from engine.wording import counted
from server.cli import requantize
from server.cli.console import print_table
from server.config import Config


def compare(path: Path, config: Config, threads: int, plan: stopwatch.MeasurementPlan, cache: Path) -> None:
    """Print a row for each type that the model can have."""
    header, vocabulary, _ = model_file.read(path, config.libllama)
    n_ctx = min(plan.n_ctx, model_file.trained_context(header) or plan.n_ctx)
    options = Options(stopwatch.STREAMS, n_ctx, threads, backends.QUANTIZING_ENGINE, config.libllama)
    served = (config.slots, context(header, config.context))
    tokens = vocabulary.encode(divergence.TEXT)
    with ExitStack() as stack:
        trials = {}
        for kind in KV_TYPES:
            backend_options = BackendOptions(kv_type=kind)
            try:
                kv_cache.check_type(header, backend_options)
            except ModelError as error:
                print(f"\n{error}")
                return
            model = load(path, msgspec.structs.replace(options, backend_options=backend_options), cache).model
            stack.callback(model.close)
            trials[choice.Trial(threads, backend_options)] = model
        measured = stopwatch.measure(trials, plan)
        predictions = [divergence.next_token_logprobs(model, tokens) for model in trials.values()]
    rows: list[tuple[str, ...]] = [("KV TYPE", "MB", *requantize.SPEED_HEADINGS, "DIVERGENCE nats/token")]
    for each, predicted in zip(measured, predictions, strict=True):
        kind = each.trial.backend_options.kv_type
        size = kv_cache.n_bytes(header, served[0] * served[1], kind) / 1e6
        distance = divergence.mean_divergence(predictions[0], predicted)
        rows.append((kind, f"{size:.0f}", *requantize.speeds(each), f"{distance:.4f}"))
    print(f"\nKV cache of {counted(served[0], 'slot')} of {served[1]} tokens, with flash attention:\n")
    print_table(rows)
    print("\n`--kv-type TYPE`, or kv_type in the file, selects one")
