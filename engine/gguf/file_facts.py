"""Facts by which a person chooses a model file: size, parameters, quantization. Pure."""

import math
from collections import Counter

from msgspec import Struct

from engine.gguf.header import Header
from engine.gguf.tensor_types import TENSOR_TYPES


class FileFacts(Struct, frozen=True):
    """Facts that `responsed models` and `/v1/models` show about a file."""

    n_ctx_train: int = 0
    """Context length of the training, in tokens; 0 if the file does not state it."""
    n_params: int = 0
    """Number of weights."""
    size: int = 0
    """Size of all tensors, in bytes."""
    quantization: str = ""
    """Tensor type of most of the weights."""
    sha256: str = ""
    """SHA-256 of the file; for a split file, that of each part, separated by spaces. Empty if it was not computed."""


def from_header(header: Header) -> FileFacts:
    """Return the facts that a header states."""
    sizes: Counter[int] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.n_bytes
    kind = max(sizes, key=sizes.__getitem__, default=0)
    return FileFacts(
        n_ctx_train=header.integer(f"{header.architecture}.context_length", 0),
        n_params=sum(math.prod(tensor.shape) for tensor in header.tensors),
        size=sizes.total(),
        quantization=TENSOR_TYPES[kind].name if kind in TENSOR_TYPES else f"type {kind}",
    )
