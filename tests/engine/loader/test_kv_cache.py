"""Types of the KV cache: which models can have them, and answers with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import backends
from engine.backends.llamacpp.model import GGML_TYPES
from engine.gguf import TENSOR_TYPES
from engine.loader import Options, kv_cache, load
from engine.model import KV_TYPES, BackendOptions, BatchEntry, FloatArray, ModelError
from tests.engine.loader.test_footprint import PLAIN, header
from tests.support import tiny_models

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
