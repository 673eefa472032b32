"""Type and size of the KV cache, from the model's header."""

from collections.abc import Sequence

from engine.gguf import TENSOR_TYPES, Header
from engine.model import KV_TYPES, BackendOptions, OptionError

BLOCK_VALUES = 32
"""Numbers of a quantized block (ggml-common.h)."""
BLOCK_BYTES = {
    each.name.lower(): BLOCK_VALUES // each.block_elements * each.block_bytes
    for each in TENSOR_TYPES.values()
    if each.name.lower() in KV_TYPES
}
"""Bytes of `BLOCK_VALUES` numbers of each type of `KV_TYPES`."""


def check_type(header: Header, options: BackendOptions) -> None:
    """Raise OptionError if the model's KV cache cannot have the requested type."""
    if options.kv_type == "f16":
        return
    if not options.flash_attention:
        raise OptionError(
            f"--kv-type {options.kv_type} needs flash attention: omit `--flash-attention off`, or use --kv-type f16"
        )
    for length in head_lengths(header):
        if length % BLOCK_VALUES:
            raise OptionError(
                f"--kv-type {options.kv_type} stores blocks of {BLOCK_VALUES} numbers, and an attention head of this "
                f"model has {length}: use --kv-type f16"
            )


def head_lengths(header: Header) -> Sequence[int]:
    """Return the lengths of an attention head's keys and values; empty without attention."""
    heads = header.integer(f"{header.architecture}.attention.head_count", 0)
    if not heads:
        return []
    width = header.integer(f"{header.architecture}.embedding_length", 0) // heads
    keys = [f"{header.architecture}.attention.{kind}_length" for kind in ("key", "value")]
    lengths = [header.integer(key, width) for key in keys]
    return [length for length in lengths + [header.integer(f"{key}_swa", 0) for key in keys] if length]


def n_bytes(header: Header, n_tokens: int, kv_type: str = "f16") -> int:
    """Return the size of the KV cache, without the recurrent state of `state_bytes`."""
    architecture = header.architecture
    layers = header.integer(f"{architecture}.block_count", 0) - header.integer(
        f"{architecture}.attention.shared_kv_layers", 0
    )
    recurrent = any(key.startswith((f"{architecture}.ssm.", f"{architecture}.wkv")) for key in header.metadata)
    if layers <= 0 or (recurrent and not _is_hybrid(header)):
        return 0
    heads = header.integer(f"{architecture}.attention.head_count", 0)
    width = header.integer(f"{architecture}.embedding_length", 0) // max(1, heads)
    key = _smallest_length(header, "attention.key_length", width)
    value = _smallest_length(header, "attention.value_length", width)
    if header.integer(f"{architecture}.attention.kv_lora_rank"):  # latent attention stores no separate values
        value = 0
    return (
        n_tokens
        * (key + value)
        * sum(sorted(_kv_heads(header, layers, heads))[:layers])
        * BLOCK_BYTES[kv_type]
        // BLOCK_VALUES
    )


def _kv_heads(header: Header, layers: int, heads: int) -> Sequence[int]:
    """Return the number of KV heads of each layer."""
    key = f"{header.architecture}.attention.head_count_kv"
    entry = header.metadata.get(key)
    if entry is not None and isinstance(entry.value, list):
        return header.integers(key)
    return [header.integer(key, heads)] * layers


def _smallest_length(header: Header, key: str, default: int) -> int:
    """Return a length, or the one of layers with an attention window if that is smaller."""
    own = header.integer(f"{header.architecture}.{key}", default)
    return min(own, header.integer(f"{header.architecture}.{key}_swa", own))


def state_bytes(header: Header, n_slots: int) -> int:
    """Return the size of the recurrent state of all slots, as 32-bit numbers; 0 without recurrent layers."""
    name = header.architecture
    layers = header.integer(f"{name}.block_count", 0)
    attention = len([heads for heads in _kv_heads(header, layers, 0) if heads]) if _is_hybrid(header) else 0
    conv, inner = header.integer(f"{name}.ssm.conv_kernel", 0), header.integer(f"{name}.ssm.inner_size", 0)
    state, groups = header.integer(f"{name}.ssm.state_size", 0), header.integer(f"{name}.ssm.group_count", 0)
    width, head = header.integer(f"{name}.embedding_length", 0), header.integer(f"{name}.wkv.head_size", 0)
    shortconv = header.integer(f"{name}.shortconv.l_cache", 0)
    values = max(0, conv - 1) * (inner + 2 * groups * state) + state * inner  # Mamba
    values += max(0, shortconv - 1) * width + (width * (head + 2) if head else 0)  # LFM2, RWKV
    return 4 * values * (layers - attention) * n_slots


def _is_hybrid(header: Header) -> bool:
    """True if the header lists the layers that have attention."""
    entry = header.metadata.get(f"{header.architecture}.attention.head_count_kv")
    return entry is not None and isinstance(entry.value, list)
