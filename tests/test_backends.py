"""Which engine runs a file, and what is said where none does."""

from pathlib import Path

import pytest

from engine import ModelError, backends, libllama
from engine.header import Entry, Header


def header(architecture: str) -> Header:
    return Header(3, 32, {"general.architecture": Entry(architecture, type=8, start=0, end=0)}, (), 0, 0)


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse4_2\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(libllama.check_cpu, "__defaults__", (cpuinfo,))
    libllama._load.cache_clear()


@pytest.mark.parametrize(
    ("architecture", "wished", "engines"),
    [
        ("llama", "auto", ["llamacpp", "ctransformers"]),
        ("qwen3", "auto", ["llamacpp"]),
        ("llama", "llamacpp", ["llamacpp"]),
        ("llama", "ctransformers", ["ctransformers"]),
    ],
)
def test_the_engines_that_are_tried(architecture: str, wished: str, engines: list[str]) -> None:
    assert [choice.engine for choice in backends.choices(header(architecture), wished, None)] == engines


@pytest.mark.usefixtures("old_cpu")
def test_where_llama_cpp_cannot_run_ctransformers_does_and_the_reason_is_told() -> None:
    (choice,) = backends.choices(header("llama"), "auto", None)
    assert choice.engine == "ctransformers"
    assert choice.reason.startswith("llama.cpp can't be used: this CPU lacks avx2, bmi2, f16c, fma,")


@pytest.mark.usefixtures("old_cpu")
def test_where_no_engine_runs_a_model_both_reasons_are_told() -> None:
    with pytest.raises(ModelError, match=r"'qwen3', and ctransformers runs only llama, and llama\.cpp can't be used: "):
        backends.choices(header("qwen3"), "auto", None)


def test_ctransformers_refuses_what_it_cannot_run() -> None:
    with pytest.raises(ModelError, match="'qwen3', and ctransformers runs only llama: use --engine llamacpp"):
        backends.choices(header("qwen3"), "ctransformers", None)


def test_a_library_that_was_named_is_not_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no llama\.cpp library that can be used"):
        backends.choices(header("llama"), "auto", tmp_path / "no.so")
