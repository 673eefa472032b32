"""Facts by which a person chooses a model file: size, parameters, quantization. Pure."""

import math
from collections import Counter

from msgspec import Struct

from engine.gguf.header import Header

# fmt: off
_TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}
# fmt: on
"""ggml's tensor types: number -> name (ggml.h, `enum ggml_type`)."""


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
        quantization=_TYPE_NAMES.get(kind, f"type {kind}"),
    )
