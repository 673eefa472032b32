"""Files that cannot answer requests: each is refused by its kind, before anything is loaded."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import gguf as oracle
import numpy as np
import pytest

from engine.gguf import kinds, reader
from engine.gguf.header import GGUFError
from engine.loader import Options, load
from engine.model import ModelError
from tests.support import model_files


def write(
    path: Path, architecture: str, entries: Mapping[str, object] = MappingProxyType({}), split: Sequence[int] = ()
) -> Path:
    """Write a GGUF file with one tensor and these entries; `split` is a part's number and the number of parts."""
    writer = oracle.GGUFWriter(path, architecture)
    if not architecture:
        writer.kv_data[0].pop("general.architecture", None)
    for key, value in entries.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            assert isinstance(value, int)
            writer.add_uint32(key, value)
    for key, number in zip(("split.no", "split.count"), split, strict=False):
        writer.add_uint16(key, number)
    writer.add_tensor("one", np.zeros((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


KINDS = [
    ("clip", {}, "mmproj"),
    ("clip", {"general.type": "mmproj"}, "mmproj"),
    ("llama", {"general.type": "adapter", "adapter.type": "lora"}, "a LoRA adapter"),
    ("llama", {"adapter.type": "lora"}, "a LoRA adapter"),
    ("controlvector", {"controlvector.model_hint": "llama"}, "a control vector"),
    ("bert", {}, "an embedding model"),
    ("nomic-bert", {"nomic-bert.pooling_type": 1}, "an embedding model"),
    ("gemma-embedding", {}, "an embedding model"),
    ("qwen3", {"qwen3.pooling_type": 3}, "an embedding model"),
    ("qwen3", {"qwen3.pooling_type": 4}, "a reranker"),
    ("", {"general.type": "imatrix"}, "an importance matrix"),
    ("", {"imatrix.datasets": ["wiki.txt"], "imatrix.chunk_count": 3}, "an importance matrix"),
    ("t5", {}, "an encoder-decoder model"),
    ("t5encoder", {}, "an embedding model"),
    ("dream", {}, "a diffusion language model"),
    ("eagle3", {}, "a draft model for speculative decoding"),
    ("flux", {}, "a model for images"),
    ("wavtokenizer-dec", {}, "a voice decoder"),
]


@pytest.mark.parametrize(("architecture", "entries", "kind"), KINDS)
@pytest.mark.parametrize("engine", ["auto", "llamacpp"])
def test_load_of_another_kind_of_file_names_the_kind(
    tmp_path: Path, architecture: str, entries: dict[str, object], kind: str, engine: str
) -> None:
    path = write(tmp_path / "model.gguf", architecture, entries)
    with pytest.raises(GGUFError) as caught:
        load(path, Options(n_slots=1, engine=engine), tmp_path / "cache")
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} cannot be used: it is ")
    assert kind in sentence
    assert ": name " in sentence  # the remedy
    assert not (tmp_path / "cache").exists()


def test_load_of_a_vocabulary_without_weights_names_it(tmp_path: Path) -> None:
    writer = oracle.GGUFWriter(tmp_path / "vocab.gguf", "llama")
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with pytest.raises(GGUFError, match=r"it has no weights, only a vocabulary, so download the model itself$"):
        load(tmp_path / "vocab.gguf", Options(n_slots=1), tmp_path / "cache")


@pytest.mark.parametrize("entries", [{}, {"llama.pooling_type": 0}, {"general.type": "model"}])
def test_check_of_a_generating_model_passes(tmp_path: Path, entries: dict[str, object]) -> None:
    path = write(tmp_path / "model.gguf", "llama", entries)
    kinds.check(path, reader.read(path))


FIRST, SECOND, THIRD = (f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))
PARTS = [
    ({FIRST: 0, SECOND: 1}, FIRST, f"the model is in 3 files, and {THIRD} is missing beside it, so download all parts"),
    ({FIRST: 0}, FIRST, f"the model is in 3 files, and {SECOND} and 1 more is missing beside it, so download all"),
    ({FIRST: 0, SECOND: 1, THIRD: 2}, SECOND, f"it is part 2 of a model in 3 files, so name {FIRST}"),
    ({THIRD: 2}, THIRD, f"it is part 3 of a model in 3 files, so name {FIRST}"),
    ({"part.gguf": 1}, "part.gguf", "it is part 2 of a model in 3 files, so name the first part"),
    (
        {"m.gguf": 0},
        "m.gguf",
        "it is the first of 3 files, which are found by their names, so rename it to NAME-00001-of-",
    ),
    ({"m-00001-of-00002.gguf": 0}, "m-00001-of-00002.gguf", "it is the first of 3 files, which are found by their"),
]


@pytest.mark.parametrize(("files", "named", "sentence"), PARTS)
def test_load_of_an_incomplete_split_names_the_part(
    tmp_path: Path, files: dict[str, int], named: str, sentence: str
) -> None:
    for name, number in files.items():
        write(tmp_path / name, "llama" if number == 0 else "", split=(number, 3))
    with pytest.raises(GGUFError) as caught:
        load(tmp_path / named, Options(n_slots=1), tmp_path / "cache")
    assert str(caught.value).startswith(f"{tmp_path / named} cannot be used: {sentence}")
    assert not (tmp_path / "cache").exists()


def test_parts_of_a_complete_split_are_all_its_files(tmp_path: Path) -> None:
    for number, name in enumerate((FIRST, SECOND, THIRD)):
        write(tmp_path / name, "llama" if number == 0 else "", split=(number, 3))
    header = reader.read(tmp_path / FIRST)
    kinds.check(tmp_path / FIRST, header)
    assert [path.name for path in kinds.parts(tmp_path / FIRST, header)] == [FIRST, SECOND, THIRD]


ENGINES = ["llamacpp", "ctransformers"]
NAMES = ["caf\xe9 ☕.gguf", os.fsdecode(b"caf\xe9.gguf"), "two  spaces.gguf", "-dash.gguf", "a'b\"c.gguf", "%s.gguf"]
NAMED = [*zip(NAMES, ENGINES * 3, strict=True), *zip(NAMES[:2], reversed(ENGINES), strict=True)]
"""Each name with an engine; those outside ASCII with both."""


@pytest.mark.parametrize(("name", "engine"), NAMED)
@pytest.mark.slow
def test_load_of_a_file_with_any_name_works(tmp_path: Path, name: str, engine: str) -> None:
    path = model_files.bpe(tmp_path / name)
    for _ in range(2):  # the second start reads the first one's probe results
        load(path, Options(n_slots=1, engine=engine), tmp_path / "cache").model.close()
    assert (tmp_path / "cache" / "ledger.json").stat().st_size


@pytest.mark.slow
def test_load_by_ctransformers_of_a_path_that_is_not_utf8_raises(tmp_path: Path) -> None:
    path = model_files.spm(tmp_path / os.fsdecode(b"caf\xe9.gguf"))
    with pytest.raises(ModelError, match=r"its path is not UTF-8, so rename it$"):
        load(path, Options(n_slots=1, engine="ctransformers"), tmp_path / "cache")


@pytest.mark.parametrize(("name", "engine"), [*zip(("padding", "mask", "eot", "unknown"), ENGINES * 2, strict=True)])
@pytest.mark.slow
def test_load_with_a_special_token_beyond_the_vocabulary_warns(
    tmp_path: Path, name: str, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"tokenizer.ggml.{name}_token_id"
    path = model_files.bpe(tmp_path / "model.gguf", numbers={key: 99_999})
    loaded = load(path, Options(n_slots=1, engine=engine), tmp_path / "cache")
    loaded.model.close()
    assert f"model.gguf: its {key} is beyond its vocabulary and is ignored" in caplog.messages
    assert loaded.vocabulary.end_tokens == {2}
