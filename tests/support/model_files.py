"""Llama models of a few kilobytes, as files: random weights, real structure. They load, run and say nonsense."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE

WIDTH, HEADS, FEED_FORWARD, CONTEXT = 32, 2, 64, 128
CHATML = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}<s>assistant\n"

# A SentencePiece vocabulary: specials, the 256 bytes, the letters, and what they merge to, the best score first.
SPECIALS = ("<unk>", "<s>", "</s>")
LETTERS = "▁abcdefghijklmnopqrstuvwxyz.,!é日"
MERGED = (
    *("▁t", "he", "▁a", "in", "▁the", "er", "▁▁", "nd", "▁s", "re", "on", "▁w", "at", "en", "or", "it", "▁and"),
    *("is", "▁▁▁▁", "es", "ing", "an", "ll", "▁he", "hell", "▁hell", "▁hello", "lo", "wor", "▁wor", "ld", "▁world"),
    *("日日", "éé", "aa", "aaa", "aaaa", ".."),
)
SPM_TOKENS = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS, *MERGED]
SPM_SCORES = [0.0] * 259 + [-1000.0 - n for n in range(len(LETTERS))] + [-1.0 - n for n in range(len(MERGED))]
SPM_TYPES = [2, 3, 3] + [6] * 256 + [1] * (len(LETTERS) + len(MERGED))

# A byte-level BPE vocabulary.
BPE_MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "Ġwo r", "l d", "Ġwor ld"]
BPE_TOKENS = ["<unk>", "<s>", "</s>", *BYTE_TO_UNICODE.values(), *(merge.replace(" ", "") for merge in BPE_MERGES)]
BPE_TYPES = [3] * 3 + [1] * (len(BPE_TOKENS) - 3)


def spm(path: Path, **wishes: Any) -> Path:
    """A model with a SentencePiece vocabulary, which the library in ctransformers loads as it is."""
    return write(path, **({"kind": "llama", "tokens": SPM_TOKENS, "types": SPM_TYPES, "scores": SPM_SCORES} | wishes))


def bpe(path: Path, **wishes: Any) -> Path:
    """A model with a byte-level BPE vocabulary as written today: it needs a backport."""
    return write(path, **({"kind": "gpt2", "tokens": BPE_TOKENS, "types": BPE_TYPES, "merges": BPE_MERGES} | wishes))


def write(
    path: Path,
    *,
    kind: str,
    tokens: list[str],
    types: list[int],
    scores: list[float] | None = None,
    merges: list[str] | None = None,
    template: str | bytes | None = CHATML,
    architecture: str = "llama",
    heads: int = HEADS,
    weight: float = 1.0,
    without: str = "",
    flags: dict[str, bool] | None = None,
    numbers: dict[str, int] | None = None,
    context: int = CONTEXT,
    pre: str = "",
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(WIDTH // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    writer.add_tokenizer_model(kind)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores is not None:
        writer.add_token_scores(scores)
    if merges is not None:
        writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template is not None:
        writer.add_string("tokenizer.chat_template", template)  # type: ignore[arg-type]  # bytes: for what is not UTF-8
    for key, value in (flags or {}).items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    for key, number in (numbers or {}).items():
        writer.add_uint32(key, number)
    for name, shape in shapes(len(tokens)).items():
        if name != without:
            writer.add_tensor(name, _weights(name, shape, weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(n_vocab: int) -> dict[str, tuple[int, ...]]:
    square, wide = (WIDTH, WIDTH), (FEED_FORWARD, WIDTH)
    attention = {f"blk.0.attn_{name}.weight": square for name in ("q", "k", "v", "output")}
    feed_forward = {"blk.0.ffn_gate.weight": wide, "blk.0.ffn_up.weight": wide, "blk.0.ffn_down.weight": wide[::-1]}
    norms = {f"{name}.weight": (WIDTH,) for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm")}
    outer = {"token_embd.weight": (n_vocab, WIDTH), "output.weight": (n_vocab, WIDTH)}
    return {**outer, **norms, **attention, **feed_forward}


def _weights(name: str, shape: tuple[int, ...], weight: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(len(name))
    return (random.standard_normal(shape) * weight).astype(np.float32)
