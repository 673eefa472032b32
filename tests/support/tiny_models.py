"""Models of a few kilobytes of today's families, as files: random weights, each family's own structure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import numpy as np

from tests.support.model_files import BPE_MERGES, BPE_TOKENS, BPE_TYPES, CHATML

WIDTH, HEADS, HEAD, FEED_FORWARD, LAYERS, CONTEXT = 64, 2, 32, 96, 2, 256
GEMMA_LAYERS = 6
N_VOCAB = len(BPE_TOKENS)

Shapes: TypeAlias = dict[str, tuple[int, ...]]


def _attention(layer: int) -> Shapes:
    names = {f"blk.{layer}.attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    return names | {f"blk.{layer}.attn_{name}_norm.weight": (HEAD,) for name in ("q", "k")}


def _feed_forward(layer: int) -> Shapes:
    wide = (FEED_FORWARD, WIDTH)
    matrices = {"ffn_gate": wide, "ffn_up": wide, "ffn_down": wide[::-1]}
    shapes: Shapes = {f"blk.{layer}.{name}.weight": shape for name, shape in matrices.items()}
    return shapes | {f"blk.{layer}.{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}


def qwen3(writer: gguf.GGUFWriter, n_layers: int = LAYERS) -> Shapes:
    layers = [_attention(layer) | _feed_forward(layer) for layer in range(n_layers)]
    return _joined({"output_norm.weight": (WIDTH,)}, *layers)


def gemma3(writer: gguf.GGUFWriter) -> Shapes:
    """Every layer but each sixth sees a window only: here shorter than the prompts."""
    writer.add_sliding_window(16)
    posts = ("post_attention_norm", "post_ffw_norm")
    more = {f"blk.{layer}.{name}.weight": (WIDTH,) for layer in range(GEMMA_LAYERS) for name in posts}
    return qwen3(writer, GEMMA_LAYERS) | more


def lfm2(writer: gguf.GGUFWriter) -> Shapes:
    """A short convolution, whose state can't be cut back, then attention."""
    writer.add_shortconv_l_cache(3)
    conv: Shapes = {
        "blk.0.shortconv.conv.weight": (WIDTH, 3),
        "blk.0.shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
        "blk.0.shortconv.out_proj.weight": (WIDTH, WIDTH),
    }
    return _joined({"token_embd_norm.weight": (WIDTH,)}, conv, _feed_forward(0), _attention(1), _feed_forward(1))


def mamba(writer: gguf.GGUFWriter) -> Shapes:
    """No attention at all: a slot is one state, however long its text."""
    inner, state, rank = 2 * WIDTH, 8, 4
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    layer = {
        "attn_norm.weight": (WIDTH,),
        "ssm_in.weight": (2 * inner, WIDTH),
        "ssm_conv1d.weight": (inner, 4),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * state, inner),
        "ssm_dt.weight": (inner, rank),
        "ssm_dt.bias": (inner,),
        "ssm_a": (inner, state),
        "ssm_d": (inner,),
        "ssm_out.weight": (WIDTH, inner),
    }
    layers = [{f"blk.{number}.{name}": shape for name, shape in layer.items()} for number in range(LAYERS)]
    return _joined({"output_norm.weight": (WIDTH,)}, *layers)


def falcon_h1(writer: gguf.GGUFWriter) -> Shapes:
    """Attention and Mamba-2 side by side in every layer."""
    inner, state, heads = 2 * WIDTH, 16, 4
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_group_count(1)
    mamba2 = {
        "ssm_in.weight": (2 * inner + 2 * state + heads, WIDTH),
        "ssm_conv1d.weight": (inner + 2 * state, 4),
        "ssm_conv1d.bias": (inner + 2 * state,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (heads, 1),
        "ssm_d": (heads, 1),
        "ssm_out.weight": (WIDTH, inner),
    }
    more = {f"blk.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in mamba2.items()}
    without = ("q_norm.weight", "k_norm.weight")
    attention = {name: shape for name, shape in qwen3(writer).items() if not name.endswith(without)}
    return {name.replace("ffn_norm.weight", "ffn_norm"): shape for name, shape in attention.items()} | more


FAMILIES: dict[str, Callable[[gguf.GGUFWriter], Shapes]] = {
    "qwen3": qwen3,
    "gemma3": gemma3,
    "lfm2": lfm2,
    "mamba": mamba,
    "falcon-h1": falcon_h1,
}


def write(path: Path, family: str) -> Path:
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(GEMMA_LAYERS if family == "gemma3" else LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([0, HEADS] if family == "lfm2" else HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_vocab_size(N_VOCAB)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(BPE_TOKENS)
    writer.add_token_types(BPE_TYPES)
    writer.add_token_merges(BPE_MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHATML)
    for name, shape in ({"token_embd.weight": (N_VOCAB, WIDTH)} | FAMILIES[family](writer)).items():
        writer.add_tensor(name, _weights(name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _joined(*shapes: Shapes) -> Shapes:
    return {name: shape for part in shapes for name, shape in part.items()}


def _weights(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(sum(map(ord, name)))
    if name.endswith("ssm_a"):
        return -np.ones(shape, np.float32)  # states fade
    return (random.standard_normal(shape) * (1.0 if len(shape) == 1 else 0.3)).astype(np.float32)
