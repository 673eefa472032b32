"""GGUF files that cannot answer requests, each with a remedy; and models that are split into several files."""

import re
from collections.abc import Sequence
from pathlib import Path

from engine.gguf.header import GGUFError, Header

UNUSABLE_TYPES = {
    "adapter": "a LoRA adapter, which modifies a model: name the model itself, or merge the two first",
    "mmproj": "a projector for images or sound (mmproj), which accompanies a model: name the model's own file",
    "imatrix": "an importance matrix (imatrix) for quantizing: name the model's own file",
}
"""`general.type` -> kind of file and remedy."""
_EMBEDDING_MODEL = "an embedding model, which turns text into vectors: name a chat model"
_RERANKER = "a reranker, which scores texts: name a chat model"
_DIFFUSION_MODEL = "a diffusion language model, which does not generate token by token: name another model"
_DRAFT_MODEL = "a draft model for speculative decoding, which accompanies a model: name the model's own file"
_IMAGE_MODEL = "a model for images or video: name a chat model"
UNUSABLE_ARCHITECTURES = {
    "clip": UNUSABLE_TYPES["mmproj"],
    "controlvector": "a control vector, which steers a model: name the model's own file",
    "wavtokenizer-dec": "a voice decoder, which turns tokens into sound: name a chat model",
    "t5": "an encoder-decoder model, for translation: name a chat model",
    **dict.fromkeys(
        ("bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"), _EMBEDDING_MODEL
    ),
    **dict.fromkeys(("modern-bert", "eurobert", "gemma-embedding", "t5encoder"), _EMBEDDING_MODEL),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DIFFUSION_MODEL),
    **dict.fromkeys(("eagle3", "dflash"), _DRAFT_MODEL),
    **dict.fromkeys(
        ("flux", "sd1", "sdxl", "sd3", "aura", "ltxv", "hyvid", "wan", "lumina2", "qwen_image"), _IMAGE_MODEL
    ),
}
"""`general.architecture` -> kind of file and remedy."""
EMBEDDING_POOLING, RANKING_POOLING = (1, 2, 3), 4
"""llama.cpp's numbers of `pooling_type`: mean, cls and last; rank."""
PART_NAME = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf)", re.IGNORECASE | re.DOTALL)
"""Pattern of a part's name, by which llama.cpp finds the other parts."""


def check(path: Path, header: Header) -> None:
    """Raise GGUFError if the file does not contain a text-generating model, or if a part of it is missing."""
    if kind := _unusable_kind(header):
        raise GGUFError(f"{path} cannot be used: it is {kind}")
    if is_split(header):
        _check_parts(path, header)
    elif not header.tensors:
        raise GGUFError(f"{path} cannot be used: it has no weights, only a vocabulary, so download the model itself")


def is_split(header: Header) -> bool:
    """True if the model consists of several files."""
    return _part_count(header) > 1


def parts(path: Path, header: Header) -> Sequence[Path]:
    """Return the files of a model in order, existing or not; `path` is the first."""
    named = PART_NAME.fullmatch(path.name)
    if not is_split(header) or not named:
        return [path]
    n = _part_count(header)
    return [path.with_name(f"{named['stem']}-{no:05}-of-{n:05}{named['end']}") for no in range(1, n + 1)]


def _unusable_kind(header: Header) -> str | None:
    """Return the name of a kind that cannot be served, with a remedy; None for a usable model."""
    if kind := UNUSABLE_TYPES.get(header.text("general.type", "")):
        return kind
    if header.text("adapter.type") is not None:
        return UNUSABLE_TYPES["adapter"]
    if "imatrix.chunk_count" in header.metadata or "imatrix.datasets" in header.metadata:
        return UNUSABLE_TYPES["imatrix"]
    architecture = header.text("general.architecture", "")
    if kind := UNUSABLE_ARCHITECTURES.get(architecture):
        return kind
    pooling = header.integer(f"{architecture}.pooling_type", 0)
    return _EMBEDDING_MODEL if pooling in EMBEDDING_POOLING else _RERANKER if pooling == RANKING_POOLING else None


def _part_count(header: Header) -> int:
    """Return the number of files; 0 if the header does not state it."""
    return header.integer("split.count", 0)


def _check_parts(path: Path, header: Header) -> None:
    number, count = header.integer("split.no", 0), _part_count(header)
    named = PART_NAME.fullmatch(path.name)
    if number > 0:
        first = f"{named['stem']}-00001-of-{count:05}{named['end']}" if named else "the first part"
        raise GGUFError(f"{path} cannot be used: it is part {number + 1} of a model in {count} files, so name {first}")
    if not named or (int(named["no"]), int(named["count"])) != (1, count):
        raise GGUFError(
            f"{path} cannot be used: it is the first of {count} files, which are found by their names, "
            f"so rename it to NAME-00001-of-{count:05}.gguf, and the others accordingly"
        )
    if missing := [part.name for part in parts(path, header) if not part.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise GGUFError(
            f"{path} cannot be used: the model is in {count} files, and {missing[0]}{more} is missing beside it, "
            "so download all parts"
        )
