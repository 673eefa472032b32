"""The KV cache: its size, the types of it that models can have, and answers with them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import backends
from engine.backends.llamacpp.model import GGML_TYPES
from engine.gguf import TENSOR_TYPES, reader
from engine.gguf.header import Header, MetadataEntry, Value
from engine.loader import Options, kv_cache, load
from engine.model import KV_TYPES, BackendOptions, BatchEntry, FloatArray, ModelError
from tests.support import tiny_models


def header(architecture: str, **numbers: int | list[int]) -> Header:
    entries: Mapping[str, Value] = {f"{architecture}.{key.replace('__', '.')}": value for key, value in numbers.items()}
    metadata = {"general.architecture": MetadataEntry(architecture, type=8, start=0, end=0)}
    return Header(3, 32, metadata | {key: MetadataEntry(value, 4, 0, 0) for key, value in entries.items()}, (), 0)


PLAIN = {"block_count": 30, "embedding_length": 576, "attention__head_count": 9}
HEADS_OF_80 = header("phi2", block_count=32, embedding_length=2560, attention__head_count=32)
NO_FLASH = (
    "--kv-type q8_0 needs flash attention: omit `--flash-attention off`, or use --kv-type f16",
    BackendOptions(flash_attention=False, kv_type="q8_0"),
)
ODD_HEAD = (
    "--kv-type q4_0 stores blocks of 32 numbers, and an attention head of this model has 80: use --kv-type f16",
    BackendOptions(kv_type="q4_0"),
)


def test_block_bytes_are_those_of_ggml() -> None:
    assert tuple(GGML_TYPES[kind] for kind in KV_TYPES) == (1, 8, 7, 6, 3, 2)
    names = {kind: TENSOR_TYPES[GGML_TYPES[kind]].name.lower() for kind in KV_TYPES}
    assert names == {kind: kind for kind in KV_TYPES}
    assert kv_cache.BLOCK_BYTES == {"f16": 64, "q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20, "q4_0": 18}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (header("llama", **PLAIN), BackendOptions(kv_type="q8_0")),
        (HEADS_OF_80, BackendOptions()),
        (HEADS_OF_80, BackendOptions(flash_attention=False)),
        (header("mamba", block_count=30, embedding_length=576), BackendOptions(kv_type="q8_0")),
    ],
)
def test_check_type_accepts(model: Any, options: BackendOptions) -> None:
    kv_cache.check_type(model, options)


@pytest.mark.parametrize(("message", "options"), [NO_FLASH, ODD_HEAD], ids=["no flash attention", "odd head"])
def test_check_type_refuses_with_the_remedy(message: str, options: BackendOptions) -> None:
    with pytest.raises(ModelError) as caught:
        kv_cache.check_type(HEADS_OF_80, options)
    assert str(caught.value) == message


@pytest.mark.parametrize(("kind", "n_bytes"), [("f16", 23_040), ("q8_0", 12_240), ("q5_1", 8_640), ("q4_0", 6_480)])
def test_n_bytes_of_a_type_are_exact(kind: str, n_bytes: int) -> None:
    assert kv_cache.n_bytes(header("llama", **PLAIN, attention__head_count_kv=3), 1, kind) == n_bytes


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


def logits(path: Path, kind: str) -> FloatArray:
    model = backends.open_model(
        "llamacpp", path, n_ctx=256, n_slots=2, threads=1, library=None, backend_options=BackendOptions(kv_type=kind)
    )
    model.decode([BatchEntry(0, 0, list(range(40, 80)), 1)])
    row = model.logits(0).copy()
    model.close()
    return row


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "lfm2"])
@pytest.mark.parametrize("kind", KV_TYPES[1:])
def test_decode_with_a_smaller_type_is_near_f16(kind: str, family: str, tmp_path: Path) -> None:
    path = tiny_models.write(tmp_path / "model.gguf", family)
    exact, found = logits(path, "f16"), logits(path, kind)
    assert not np.array_equal(found, exact), "the cache has that type"
    assert np.corrcoef(found, exact)[0, 1] > (0.999 if kind == "q8_0" else 0.9)


def test_ctransformers_refuses_other_types(tmp_path: Path) -> None:
    options = BackendOptions(kv_type="q8_0")
    with pytest.raises(ModelError, match=r"^ctransformers has no KV cache of type q8_0: omit --kv-type$"):
        backends.open_model(
            "ctransformers", tmp_path, n_ctx=64, n_slots=1, threads=1, library=None, backend_options=options
        )


def test_load_refuses_a_type_before_anything_is_probed(tmp_path: Path) -> None:
    path = tiny_models.write(tmp_path / "model.gguf", "qwen3")
    options = Options(n_slots=1, backend_options=NO_FLASH[1])
    with pytest.raises(ModelError, match=r"^--kv-type q8_0 needs flash attention"):
        load(path, options, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
