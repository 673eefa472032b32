"""The memory that a model needs, estimated before it is loaded; and the error if there is too little."""

import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.gguf import reader
from engine.gguf.header import Header, MetadataEntry, Value
from engine.loader import footprint, kv_cache, machine
from engine.loader.loader import Options, load
from engine.model import ModelError
from tests.support import model_files

MB = 1_000_000


def header(architecture: str, **numbers: int | list[int]) -> Header:
    entries: Mapping[str, Value] = {f"{architecture}.{key.replace('__', '.')}": value for key, value in numbers.items()}
    metadata = {"general.architecture": MetadataEntry(architecture, type=8, start=0, end=0)}
    return Header(3, 32, metadata | {key: MetadataEntry(value, 4, 0, 0) for key, value in entries.items()}, (), 0, 0)


PLAIN = {"block_count": 30, "embedding_length": 576, "attention__head_count": 9}
CACHES: list[tuple[str, Header, int]] = [
    ("SmolLM2", header("llama", **PLAIN, attention__head_count_kv=3), 23_040),
    ("without groups", header("llama", **PLAIN), 69_120),
    ("lengths of its own", header("qwen3", block_count=28, embedding_length=1024, attention__head_count=16,
                                  attention__head_count_kv=8, attention__key_length=128,
                                  attention__value_length=128), 114_688),
    ("heads by layer", header("llama", **PLAIN, attention__head_count_kv=[3] * 10 + [0] * 20), 7_680),
    ("layers that share", header("gemma3n", **PLAIN, attention__head_count_kv=3,
                                 attention__shared_kv_layers=20), 7_680),
    ("shorter with a window", header("gemma4", **PLAIN, attention__head_count_kv=3, attention__key_length=128,
                                     attention__key_length_swa=64, attention__value_length=64), 23_040),
    ("latent attention", header("deepseek2", block_count=27, embedding_length=2048, attention__head_count=16,
                                attention__head_count_kv=1, attention__key_length=576, attention__value_length=512,
                                attention__kv_lora_rank=512), 31_104),
    ("recurrent", header("mamba", block_count=30, embedding_length=576, ssm__state_size=16), 0),
    ("no numbers", header("llama"), 0),
]  # fmt: skip


@pytest.mark.parametrize(("model", "n_bytes"), [row[1:] for row in CACHES], ids=[row[0] for row in CACHES])
def test_kv_bytes_of_a_token_are_exact(model: Header, n_bytes: int) -> None:
    assert kv_cache.n_bytes(model, 1) == n_bytes
    assert kv_cache.n_bytes(model, 8192) == 8192 * n_bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return model_files.spm(tmp_path / "model.gguf")


@pytest.mark.parametrize("engine", ["auto", "llamacpp", "ctransformers"])
def test_load_of_a_cache_beyond_the_memory_raises(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 20_000)
    with pytest.raises(ModelError) as caught:
        load(path, Options(n_slots=2, engine=engine), tmp_path / "cache")
    assert str(caught.value) == (
        "too little memory: 2 slots of 128 tokens need 0 MB for the KV cache of model.gguf, and 0 MB are free; "
        "choose a smaller --context, fewer --slots, or a smaller --kv-type"
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("engine", ["auto", "llamacpp", "ctransformers"])
def test_load_of_weights_beyond_the_memory_raises(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(footprint, "memory", lambda: 50_000)
    with pytest.raises(ModelError, match=r"^too little memory: the weights of model\.gguf are .* MB, and this machine"):
        load(path, Options(n_slots=1, engine=engine), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_check_of_a_mixture_of_experts_ignores_the_size_of_its_weights(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "memory", lambda: 50_000)
    model_files.spm(path, numbers={"llama.expert_count": 8})
    footprint.check(path, reader.read(path), 128, 1)


def test_load_under_an_address_space_limit_names_the_memory(smollm2: Path, tmp_path: Path) -> None:
    """As `ulimit -v` sets it: neither engine is tried, and no copy is written."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    room = machine._mapped(machine.ROOT) + 120 * MB
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    try:
        with pytest.raises(ModelError, match=r"^too little memory: 2 slots of 8192 tokens need 377 MB"):
            load(smollm2, Options(n_slots=2), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not (tmp_path / "cache").exists()
