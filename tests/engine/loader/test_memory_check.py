"""The error if there is too little memory for a model."""

import resource
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.gguf import reader
from engine.loader import Options, footprint, load, machine, memory_check
from engine.loader.footprint import LoadPlan
from engine.model import BackendOptions, ModelError
from tests.engine.loader.test_kv_cache import PLAIN, header
from tests.support import model_files

MB = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return model_files.spm(tmp_path / "model.gguf")


def plan(path: Path, n_ctx: int = 8192, n_slots: int = 2, **options: Any) -> LoadPlan:
    return LoadPlan(path, SMOLLM2, n_ctx, n_slots, BackendOptions(**options), process=70 * MB)


def set_machine(monkeypatch: pytest.MonkeyPatch, available: int, *, compiled_here: bool = True) -> None:
    """Set the megabytes that a process can have, 60 of which it has, and where its llama.cpp was compiled."""
    monkeypatch.setattr(footprint, "free_memory", lambda: (available - 60) * MB)
    monkeypatch.setattr(footprint, "resident", lambda: 60 * MB)
    monkeypatch.setattr(footprint, "_compiled_here", lambda: compiled_here)


SMOLLM2 = header("llama", **PLAIN, attention__head_count_kv=3, feed_forward_length=1536)
PARTS = "weights 0 MB, KV cache 377 MB (2 slots of 8192, f16), buffers 35 MB, process 74 MB make 487 MB"
REFUSALS = [
    (8192, 358, PARTS, "--context 5376 or --kv-type q8_0"),
    (8192, 238, PARTS, "--context 2816 or --kv-type q8_0 with --context 5376"),
    (8192, 98, PARTS, "fewer --slots or a smaller model"),
    (256, 98, "weights 0 MB, KV cache 12 MB (2 slots of 256, f16), buffers 27 MB, process 74 MB make 113 MB",
     "fewer --slots or a smaller model"),
]  # fmt: skip


@pytest.mark.parametrize(("n_ctx", "free", "parts", "remedy"), REFUSALS)
def test_check_beyond_the_memory_names_what_fits(
    path: Path, monkeypatch: pytest.MonkeyPatch, n_ctx: int, free: int, parts: str, remedy: str
) -> None:
    set_machine(monkeypatch, free)
    with pytest.raises(ModelError) as caught:
        memory_check.check(plan(path, n_ctx))
    assert str(caught.value) == f"too little memory for model.gguf: {parts}, and {free} MB are free; choose {remedy}"


def test_check_of_the_settings_that_a_refusal_names_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, 238)
    memory_check.check(plan(path, 2816))
    memory_check.check(plan(path, 5376, kv_type="q8_0"))
    for other in (plan(path, 3072), plan(path, 5632, kv_type="q8_0")):
        with pytest.raises(ModelError):
            memory_check.check(other)


def test_check_of_a_prefix_cache_beyond_the_memory_names_its_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_machine(monkeypatch, 308)
    with pytest.raises(ModelError) as caught:
        memory_check.check(msgspec.structs.replace(plan(path, 4096), prefix_cache=500 * MB))
    assert str(caught.value) == (
        "too little memory for model.gguf: weights 0 MB, KV cache 189 MB (2 slots of 4096, f16), buffers 31 MB, "
        "process 74 MB, prefix cache 500 MB make 794 MB, and 308 MB are free; choose --cache-megabytes 14"
    )
    memory_check.check(msgspec.structs.replace(plan(path, 4096), prefix_cache=14 * MB))


@pytest.mark.parametrize("engine", ["auto", "llamacpp", "ctransformers"])
def test_load_of_a_cache_beyond_the_memory_raises(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 0)
    monkeypatch.setattr(footprint, "resident", lambda: 0)
    with pytest.raises(ModelError, match=r"^too little memory for model\.gguf: weights .*, and 0 MB are free; choose"):
        load(path, Options(n_slots=2, engine=engine), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("engine", ["auto", "llamacpp", "ctransformers"])
def test_load_of_weights_beyond_the_memory_raises(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(memory_check, "memory", lambda: 50_000)
    with pytest.raises(ModelError, match=r"^too little memory: the weights of model\.gguf are .* MB, and this machine"):
        load(path, Options(n_slots=1, engine=engine), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_check_of_a_mixture_of_experts_ignores_the_size_of_its_weights(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_check, "memory", lambda: 50_000)
    model_files.spm(path, numbers={"llama.expert_count": 8})
    memory_check.check(LoadPlan(path, reader.read(path), 128, 1, BackendOptions(), 0))


def test_load_under_an_address_space_limit_names_the_memory(smollm2: Path, tmp_path: Path) -> None:
    """As `ulimit -v` sets it: neither engine is tried, and no copy is written."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    room = machine._mapped(machine.ROOT) + 120 * MB
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    try:
        with pytest.raises(ModelError, match=r"^too little memory for SmolLM2.*KV cache 377 MB"):
            load(smollm2, Options(n_slots=2), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not (tmp_path / "cache").exists()
