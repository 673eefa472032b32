"""The memory that a model needs, estimated before it is loaded; and the error if there is too little."""

import re
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import backends
from engine.gguf import reader
from engine.gguf.header import Header, MetadataEntry, Value
from engine.loader import Options, footprint, kv_cache, load, machine
from engine.loader.footprint import LoadPlan
from engine.model import BackendOptions, ModelError
from tests.support import model_files, tiny_models

MB = 1_000_000


def header(architecture: str, **numbers: int | list[int]) -> Header:
    entries: Mapping[str, Value] = {f"{architecture}.{key.replace('__', '.')}": value for key, value in numbers.items()}
    metadata = {"general.architecture": MetadataEntry(architecture, type=8, start=0, end=0)}
    return Header(3, 32, metadata | {key: MetadataEntry(value, 4, 0, 0) for key, value in entries.items()}, (), 0)


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


HYBRID: dict[str, Any] = {
    "block_count": 2,
    "embedding_length": 64,
    "attention__head_count": 2,
    "attention__head_count_kv": [0, 2],
}
STATES: list[tuple[str, Header, int, int]] = [
    ("attention", header("llama", **PLAIN), 69_120, 0),
    ("mamba", header("mamba", block_count=2, embedding_length=64, attention__head_count=2, attention__head_count_kv=2,
                     ssm__conv_kernel=4, ssm__inner_size=128, ssm__state_size=8), 0, 2 * 4 * (3 * 128 + 8 * 128)),
    ("short convolution", header("lfm2", **HYBRID, shortconv__l_cache=3), 2 * 2 * 64, 4 * 2 * 64),
    ("hybrid", header("granitehybrid", **HYBRID, ssm__conv_kernel=4, ssm__inner_size=128, ssm__state_size=8,
                      ssm__group_count=1), 2 * 2 * 64, 4 * (3 * (128 + 16) + 8 * 128)),
    ("rwkv", header("rwkv7", block_count=2, embedding_length=64, wkv__head_size=16), 0, 2 * 4 * 64 * 18),
]  # fmt: skip


@pytest.mark.parametrize(("model", "rows", "state"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_state_bytes_of_a_slot_are_exact(model: Header, rows: int, state: int) -> None:
    assert (kv_cache.n_bytes(model, 1), kv_cache.state_bytes(model, 1)) == (rows, state)
    assert kv_cache.state_bytes(model, 3) == 3 * state


BUFFER = re.compile(r"(?:KV|RS) buffer size = +([0-9.]+) MiB")


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("family", ["qwen3", "lfm2", "mamba"])
def test_caches_have_the_size_that_llama_cpp_logs(
    family: str, kv_type: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_models.write(tmp_path / "model.gguf", family)
    caplog.set_level("DEBUG", "responsed.llama")
    options = BackendOptions(kv_type=kv_type)
    backends.open_model(
        "llamacpp", path, n_ctx=256, n_slots=3, threads=1, library=None, backend_options=options
    ).close()
    logged = sum(float(found[1]) for line in caplog.messages if (found := BUFFER.search(line)))
    model = reader.read(path)
    expected = kv_cache.n_bytes(model, 3 * 256, kv_type) + kv_cache.state_bytes(model, 3)
    assert abs(logged - expected / 2**20) < 0.011, "two figures, rounded to hundredths"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return model_files.spm(tmp_path / "model.gguf")


def plan(path: Path, n_ctx: int = 8192, n_slots: int = 2, **options: Any) -> LoadPlan:
    return LoadPlan(path, SMOLLM2, n_ctx, n_slots, BackendOptions(**options), process=70 * MB)


SMOLLM2 = header("llama", **PLAIN, attention__head_count_kv=3, feed_forward_length=1536)
PARTS = "weights 0 MB, KV cache 377 MB (2 slots of 8192, f16), buffers 27 MB, process 74 MB make 479 MB"
REFUSALS = [
    (8192, 350, PARTS, "--context 5376 or --kv-type q8_0"),
    (8192, 230, PARTS, "--context 2816 or --kv-type q8_0 with --context 5376"),
    (8192, 90, PARTS, "fewer --slots or a smaller model"),
    (256, 90, "weights 0 MB, KV cache 12 MB (2 slots of 256, f16), buffers 19 MB, process 74 MB make 105 MB",
     "fewer --slots or a smaller model"),
]  # fmt: skip


@pytest.mark.parametrize(("n_ctx", "free", "parts", "remedy"), REFUSALS)
def test_check_beyond_the_memory_names_what_fits(
    path: Path, monkeypatch: pytest.MonkeyPatch, n_ctx: int, free: int, parts: str, remedy: str
) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: (free - 60) * MB)
    monkeypatch.setattr(footprint, "resident", lambda: 60 * MB)
    with pytest.raises(ModelError) as caught:
        footprint.check(plan(path, n_ctx))
    assert str(caught.value) == f"too little memory for model.gguf: {parts}, and {free} MB are free; choose {remedy}"


def test_check_of_the_settings_that_a_refusal_names_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 170 * MB)
    monkeypatch.setattr(footprint, "resident", lambda: 60 * MB)
    footprint.check(plan(path, 2816))
    footprint.check(plan(path, 5376, kv_type="q8_0"))
    for other in (plan(path, 3072), plan(path, 5632, kv_type="q8_0")):
        with pytest.raises(ModelError):
            footprint.check(other)


def test_check_of_a_prefix_cache_beyond_the_memory_names_its_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 240 * MB)
    monkeypatch.setattr(footprint, "resident", lambda: 60 * MB)
    with pytest.raises(ModelError) as caught:
        footprint.check(msgspec.structs.replace(plan(path, 4096), prefix_cache=500 * MB))
    assert str(caught.value) == (
        "too little memory for model.gguf: weights 0 MB, KV cache 189 MB (2 slots of 4096, f16), buffers 23 MB, "
        "process 74 MB, prefix cache 500 MB make 786 MB, and 300 MB are free; choose --cache-megabytes 14"
    )
    footprint.check(msgspec.structs.replace(plan(path, 4096), prefix_cache=14 * MB))


def test_line_has_all_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 1140 * MB)
    monkeypatch.setattr(footprint, "resident", lambda: 60 * MB)
    assert footprint.line(footprint.check(plan(path, 4096))) == (
        "memory: weights 0 MB, KV cache 189 MB (2 slots of 4096, f16), buffers 23 MB, process 74 MB: "
        "286 MB of 1.2 GB free, once all contexts are full"
    )


@pytest.mark.parametrize(
    ("machine_", "instructions", "compiled_here", "repacked"),
    [
        ("x86_64", (), False, True),
        ("aarch64", ("asimd", "asimddp"), False, False),  # PyPI's build on a Raspberry Pi 5
        ("aarch64", ("asimd", "asimddp"), True, True),
        ("aarch64", ("asimd",), True, False),  # a Raspberry Pi 4
        ("riscv64", ("asimddp",), True, False),
    ],
)
def test_weights_are_copied_where_the_cpu_and_the_build_can(
    machine_: str, instructions: tuple[str, ...], compiled_here: bool, repacked: bool
) -> None:
    assert footprint.repacks(machine_, instructions, compiled_here) == repacked


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
    monkeypatch.setattr(footprint, "memory", lambda: 50_000)
    with pytest.raises(ModelError, match=r"^too little memory: the weights of model\.gguf are .* MB, and this machine"):
        load(path, Options(n_slots=1, engine=engine), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_check_of_a_mixture_of_experts_ignores_the_size_of_its_weights(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "memory", lambda: 50_000)
    model_files.spm(path, numbers={"llama.expert_count": 8})
    footprint.check(LoadPlan(path, reader.read(path), 128, 1, BackendOptions(), 0))


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
