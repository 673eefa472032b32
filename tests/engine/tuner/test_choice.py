"""`responsed tune`: the choice from the measurements, and measuring on every backend."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.scripted import ScriptedModel
from engine.loader import Options, load
from engine.model import BackendOptions
from engine.tuner import divergence, stopwatch
from engine.tuner.choice import MAX_STALL_RATIO, TIE_RATIO, Measurement, Trial, choose, choose_batch_threads
from engine.tuner.stopwatch import MeasurementPlan
from server.cli import main, tune
from server.config import file
from tests.support import model_files

SMALL = MeasurementPlan(prompt=4, steps=2, busy_steps=3, rounds=1)
ON, OFF = BackendOptions(), BackendOptions(flash_attention=False)


def measured(
    threads: int, decode: float, stall: float, prefill: float = 100, backend_options: BackendOptions = ON
) -> Measurement:
    return Measurement(Trial(threads, backend_options), prefill, decode, None, stall)


CASES = [
    (
        "the quickest",
        [measured(1, 8.0, 9), measured(2, 5.0, 9), measured(3, 4.0, 9)],
        "3 threads: it decodes fastest (4.0 ms a token); beside a busy process 1 token in 100 takes more than 9.0 ms",
    ),
    (
        "not with every core, where that stalls",
        [measured(1, 8.0, 9), measured(2, 5.0, 400)],
        (
            "1 thread: 2 threads would decode faster (5.0 ms a token), but beside a busy process "
            "1 token in 100 takes more than 400 ms"
        ),
    ),
    (
        "with every core, where that doesn't stall",
        [measured(1, 8.0, 9), measured(2, 5.0, 15)],
        "2 threads: it decodes fastest (5.0 ms a token); beside a busy process 1 token in 100 takes more than 15.0 ms",
    ),
    (
        "of equals, the quickest prompt",
        [measured(1, 5.0, 9, prefill=200), measured(2, 4.9, 9, prefill=100), measured(3, 5.1, 9, prefill=300)],
        (
            "3 threads: it decodes as fast as any (5.1 ms a token), and prefills fastest; "
            "beside a busy process 1 token in 100 takes more than 9.0 ms"
        ),
    ),
    (
        "about as quick as a number that stalls",
        [measured(1, 7.9, 19), measured(2, 7.7, 175)],
        (
            "1 thread: it decodes fastest of those without stalls (7.9 ms a token); "
            "beside a busy process 1 token in 100 takes more than 19.0 ms"
        ),
    ),
    (
        "one stall by chance is not the knob's",
        [measured(1, 8.0, 9), measured(1, 6.0, 40, backend_options=OFF)],
        (
            "1 thread without flash attention: it decodes fastest (6.0 ms a token); "
            "beside a busy process 1 token in 100 takes more than 40.0 ms"
        ),
    ),
    (
        "where all stall, the calmest",
        [measured(1, 8.0, 80), measured(2, 5.0, 400)],
        (
            "1 thread: 2 threads would decode faster (5.0 ms a token), but beside a busy process "
            "1 token in 100 takes more than 400 ms"
        ),
    ),
    (
        "one core",
        [measured(1, 8.0, 80)],
        "1 thread: it decodes fastest (8.0 ms a token); beside a busy process 1 token in 100 takes more than 80.0 ms",
    ),
]


@pytest.mark.parametrize(("measurements", "chosen"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_choose_returns_the_trial_and_the_reason(measurements: list[Measurement], chosen: str) -> None:
    choice = choose(measurements)
    assert f"{choice.best.trial}: {choice.reason}" == chosen


@pytest.mark.parametrize(
    ("measurements", "threads"),
    [
        ([measured(1, 8.0, 9, prefill=250)], 1),
        ([measured(1, 8.0, 9, prefill=250), measured(2, 5.0, 400, prefill=480)], 2),
        ([measured(1, 8.0, 9, prefill=250), measured(2, 5.0, 400, prefill=255)], 1),
        ([measured(2, 5.0, 9, prefill=480), measured(3, 5.0, 9, prefill=490), measured(1, 8.0, 9, prefill=250)], 2),
        ([measured(1, 8.0, 9, prefill=250), measured(2, 5.0, 9, prefill=480, backend_options=OFF)], 1),
    ],
)
def test_choose_batch_threads_returns_the_fewest_with_the_fastest_prompt(
    measurements: list[Measurement], threads: int
) -> None:
    assert choose_batch_threads(measurements, ON).trial.threads == threads


times = st.floats(0.1, 1000)
measurements = st.lists(
    st.builds(
        Measurement, st.builds(Trial, st.integers(1, 8), st.builds(BackendOptions)), times, times, st.none(), times
    ),
    min_size=1,
    max_size=16,
    unique_by=lambda each: each.trial,
)


@pytest.mark.slow
@given(measurements)
def test_choose_is_never_slower_than_another_trial_without_stalls(given: list[Measurement]) -> None:
    best = choose(given).best
    assert best in given
    calm = [each for each in given if each.busy_p99_ms <= MAX_STALL_RATIO * each.decode_ms]
    assert all(best.decode_ms <= TIE_RATIO * each.decode_ms for each in calm)


@pytest.mark.slow
@given(measurements, st.randoms())
def test_choose_in_any_order_returns_the_same_times(given: list[Measurement], random: Random) -> None:
    shuffled = random.sample(given, len(given))
    first, second = choose(given).best, choose(shuffled).best
    assert first == second or first.prefill == second.prefill


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (8, list(range(1, 9))), (24, [1, 3, 6, 12, 23, 24])]
)
def test_counts_to_try_of_cores_are_these(cores: int, counts: list[int]) -> None:
    assert stopwatch.counts_to_try(cores) == counts


def test_measure_alternates_rounds_and_gives_every_trial_the_same_work() -> None:
    class Counted(ScriptedModel):
        used: list[int] = []  # noqa: RUF012  # of this test only

        def use_threads(self, decode: int, batch: int) -> None:
            self.used.append(decode)

    model = Counted(n_ctx=64, n_slots=4, batched=True)
    effort = MeasurementPlan(prompt=16, steps=2, busy_steps=3, rounds=2)
    results = stopwatch.measure({Trial(1): model, Trial(2): model}, effort)
    assert [each.trial for each in results] == [Trial(1), Trial(2)]
    assert Counted.used == [1, 1, 2, 1, 2, 2, 1, 2, 1]
    assert all(each.batch4_ms is not None for each in results)


@pytest.mark.parametrize("engine", ["llamacpp", "ctransformers"])
def test_measure_of_the_real_model_returns_plausible_times(engine: str, smollm2: Path, cache: Path) -> None:
    model = load(smollm2, Options(n_slots=4, n_ctx=64, threads=1, engine=engine), cache).model
    (result,) = stopwatch.measure({Trial(1): model}, SMALL)
    model.close()
    assert min(result.prefill, result.decode_ms, result.busy_p99_ms) > 0
    assert (result.batch4_ms is None) == (engine == "ctransformers")


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `tune` measure a twentieth as many tokens; three types of the KV cache would take 20 s."""
    monkeypatch.setattr(tune, "PLAN", SMALL)
    monkeypatch.setattr(stopwatch, "MIN_PROMPT_TOKENS", SMALL.prompt)
    monkeypatch.setattr(divergence, "MAX_TOKENS", 32)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("engine", ["llamacpp", "ctransformers"])
@pytest.mark.slow
def test_tune_writes_its_choice_and_preserves_other_settings(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_files.bpe(tmp_path / "tiny.gguf", heads=1, context=1024)
    path = tmp_path / "new" / "config.toml"
    file.write(path, {"port": 1, "threads": 77})
    assert main(["tune", "--model", str(model), "--engine", engine, "--config", str(path)]) == 0
    found = file.read(path)
    keys = {"port", "threads", *(["threads_batch", "flash_attention"] if engine == "llamacpp" else [])}
    assert (set(found), found["port"]) == (keys, 1)
    out = capsys.readouterr().out
    assert f"\nbest: {found['threads']} thread" in out
    assert f"written to {path}: threads = {found['threads']}" in out
    assert "Traceback" not in out


@pytest.mark.usefixtures("hurried")
def test_tune_with_an_unwritable_file_fails_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["tune", "--config", str(tmp_path / "file" / "config.toml")]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (
        "",
        f"responsed: {tmp_path}/file/config.toml cannot be written: File exists\n",
    )
    assert main(["tune"]) == 2
    assert (
        capsys.readouterr().err
        == "responsed: /dev/null cannot be written: it is not a regular file; name another file\n"
    )
