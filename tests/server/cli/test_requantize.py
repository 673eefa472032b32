"""Copies of a model with other types of weights: their divergence, and complete or no files."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends import selection
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp import quantizer
from engine.loader import Options, catalog, load, model_file
from engine.model import ModelError
from engine.tuner import divergence
from server.cli import kv_types, main
from server.cli.console.exit_status import ExitStatus
from server.config import file
from tests.engine.backends.test_llamacpp_library import LIBRARIES
from tests.engine.tuner.test_choice import hurry
from tests.support import model_files

WHEEL = LIBRARIES["xllamacpp"]


@pytest.fixture
def native() -> Path:
    """Return a library that can write models, unlike that of xllamacpp."""
    path = LIBRARIES["llama-cpp-python"]
    if path is None:
        pytest.skip("llama-cpp-python is not installed (`pip install 'responsed[native]'` compiles it)")
    return path


@pytest.fixture
def models(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary cache folder with the model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hurry(monkeypatch)
    folder = tmp_path / "cache" / "responsed" / "models"
    folder.mkdir(parents=True)
    (folder / smollm2.name).symlink_to(smollm2)
    return folder


def refusal(message: str, capsys: pytest.CaptureFixture[str]) -> None:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("responsed: ")
    assert message in captured.err


@pytest.mark.parametrize("flags", [["--requantise"], ["--apply", "Q8_0"]])
def test_tune_with_a_library_that_cannot_quantize_fails_before_measuring(
    flags: list[str], models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WHEEL is not None
    path = tmp_path / "config.toml"
    assert main(["tune", *flags, "--libllama", str(WHEEL), "--config", str(path)]) == ExitStatus.USAGE
    refusal("cannot write models: `pip install 'responsed[native]'` compiles a llama.cpp that can", capsys)
    assert main(["tune", *flags, "--engine", "ctransformers", "--config", str(path)]) == ExitStatus.USAGE
    refusal("only llama.cpp can write and run other types of weights; omit --engine", capsys)
    assert file.read(path) == {}


@pytest.mark.slow
def test_tune_on_arm_recommends_no_type_of_weights_that_it_has_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WHEEL is not None
    hurry(monkeypatch)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    model, path = model_files.bpe(tmp_path / "tiny.gguf", heads=1, context=1024), tmp_path / "config.toml"
    arguments = ["tune", "--model", str(model), "--libllama", str(WHEEL), "--config", str(path)]
    assert main(arguments) == ExitStatus.OK
    assert not {"WEIGHTS", *quantizer.FILE_TYPES} & set(capsys.readouterr().out.split())
    assert file.read(path).keys() == {"threads", "threads_batch", "flash_attention"}


def test_quantizer_with_an_unknown_struct_layout_is_refused(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = libllama.load(native)
    assert quantizer.parameters(loaded).ftype == quantizer.FILE_TYPES["Q8_0"]

    class Shifted(ctypes.Structure):
        _fields_ = [("before", ctypes.c_int32), *quantizer.QuantizeParams._fields_]

    monkeypatch.setattr(quantizer, "QuantizeParams", Shifted)
    with pytest.raises(ModelError, match="does not fit: its default nthread reads as 7, not 0"):
        quantizer.parameters(loaded)


def test_tune_apply_writes_a_copy_and_serves_it(
    native: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    file.write(path, {"port": 1})
    arguments = ["tune", "--apply", "Q8_0", "--libllama", str(native), "--config", str(path)]
    assert main(arguments) == 0
    copy = models / "SmolLM2-135M-Instruct.Q4_1.Q8_0.gguf"
    assert file.read(path) == {"port": 1, "model": str(copy)}
    assert f"written: {copy}" in capsys.readouterr().out
    assert {each.name for each in models.iterdir()} == {catalog.SMOLLM2.filename, copy.name}
    options = Options(n_slots=1, n_ctx=64, engine="llamacpp", libllama=native)
    load(copy, options, models.parent).model.close()
    assert main(arguments) == ExitStatus.MODEL
    refusal(f"{copy.name} already has weights of type Q8_0", capsys)


def test_tune_requantise_prints_a_row_per_copy_and_removes_the_copies(
    native: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kv_types, "KV_TYPES", ("f16", "q4_0"))  # each takes 2 s
    arguments = ["tune", "--requantise", "--libllama", str(native), "--config", str(tmp_path / "config.toml")]
    assert main(arguments) == 0
    caches, _, copies = capsys.readouterr().out.partition("KV TYPE")[2].partition("WEIGHTS")
    (full, *_, same), (small, *_, other) = (line.split() for line in caches.splitlines()[1:3])
    assert (full, small) == ("f16", "q4_0")
    assert float(same) == 0 < float(other) < 0.5
    table = copies.splitlines()[1:4]
    assert [line.split("  ")[0] for line in table] == ["as it is", "Q4_0", "Q8_0"]
    exact, four, eight = (float(line.split()[-1]) for line in table)
    assert exact == 0 < eight < 0.01 < four < 0.5
    assert [each.name for each in models.iterdir()] == [catalog.SMOLLM2.filename]
    assert sorted(each.name for each in models.parent.iterdir()) == ["ledger.json", "models"]
    assert "model" not in file.read(tmp_path / "config.toml")


def test_quantize_of_an_invalid_model_leaves_no_file(native: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_text("I am a poem.")
    with pytest.raises(ModelError, match=r"llama\.cpp cannot write bad\.gguf as Q4_0: "):
        quantizer.quantize(tmp_path / "bad.gguf", tmp_path / "copy", "Q4_0", 1, native)
    assert [each.name for each in tmp_path.iterdir()] == ["bad.gguf"]


def test_divergence_text_is_about_200_tokens_that_the_model_predicts(smollm2: Path) -> None:
    _, vocabulary, _ = model_file.read(smollm2)
    tokens = vocabulary.encode(divergence.TEXT)
    assert 180 < len(tokens) <= divergence.MAX_TOKENS
    model = selection.open_model("llamacpp", smollm2, n_ctx=256, n_slots=1, threads=1, library=None)
    expected = divergence.next_token_logprobs(model, tokens)
    model.close()
    assert expected.shape == (len(tokens), vocabulary.size)
    assert np.allclose(np.exp(expected).sum(axis=1), 1, atol=1e-3)
    surprise = -np.mean([expected[i, token] for i, token in enumerate(tokens[1:])])
    assert surprise < 4, "nats per token; a uniform distribution has 10.8"


rows = st.lists(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=1, max_size=4)


@pytest.mark.slow
@given(rows, rows)
def test_mean_divergence_is_not_negative_and_zero_to_itself(first: list[list[float]], other: list[list[float]]) -> None:
    n = min(len(first), len(other))
    p, q = (
        np.stack([divergence._log_softmax(np.array(row, np.float32)) for row in side[:n]]) for side in (first, other)
    )
    assert divergence.mean_divergence(p, q) >= -1e-4
    assert divergence.mean_divergence(p, p) == 0


def test_mean_divergence_of_a_small_example_is_the_calculated_one() -> None:
    p, q = (np.log(np.array(each, np.float32)) for each in ([[0.5, 0.5]], [[0.25, 0.75]]))
    assert divergence.mean_divergence(p, q) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
