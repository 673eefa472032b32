"""A Model that plays a script: deterministic, without weights. For tests, smoke runs of the bench, and contributors.

Its vocabulary is the 256 bytes and five control tokens, so a token may be a part of a character. It reads the
conversation from the slot as a real model would, which reveals a wrong position or slot.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from operator import indexOf
from typing import TypeAlias

import msgspec
import numpy as np

from engine.gguf import Header, MetadataEntry, Value
from engine.model import BatchEntry, FloatArray, ModelError, ModelInfo, SavedState
from engine.tokenizer import BYTE_TO_UNICODE, TokenType, Vocabulary
from engine.wording import counted

Reply: TypeAlias = Callable[[bytes], bytes]
"""From the last user message to the answer. May raise ModelError."""

CONTROL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
END, _, USER, ASSISTANT, _ = range(256, 261)
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"


def vocabulary() -> Vocabulary:
    """Return the vocabulary of a scripted model."""
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*(BYTE_TO_UNICODE[byte] for byte in range(256)), *CONTROL],
        "tokenizer.ggml.token_type": [int(TokenType.NORMAL)] * 256 + [int(TokenType.CONTROL)] * len(CONTROL),
        "tokenizer.ggml.eos_token_id": END,
    }
    entries = {key: MetadataEntry(value, type=0, start=0, end=0) for key, value in values.items()}
    return Vocabulary(Header(3, 32, entries, tensors=(), size=0))


def echo(message: bytes) -> bytes:
    """Reply with the message itself."""
    return message


class ScriptedModel:
    """A Model; see `engine.model`."""

    def __init__(
        self,
        reply: Reply = echo,
        *,
        n_ctx: int = 4096,
        n_slots: int = 2,
        batched: bool = False,
        seconds_per_token: float = 0.0,
    ) -> None:
        capable = {
            "batched": batched,
            "copies_prefixes": batched,
            "multi_row_logits": batched,
            "saves_state": True,
            "cuts_state": True,
            "truncates": True,
        }
        self.info = ModelInfo("scripted", n_ctx, n_slots, 256 + len(CONTROL), max_batch_tokens=512, **capable)
        self._reply = reply
        self._seconds_per_token = seconds_per_token
        self._cached_tokens: list[list[int]] = [[] for _ in range(n_slots)]
        self._logits: list[list[FloatArray]] = [[] for _ in range(n_slots)]
        self.decoded: list[BatchEntry] = []
        """Entries decoded so far, for tests that check the evaluated tokens."""
        self.copies: list[tuple[int, int, int]] = []
        """Prefix copies so far: source, target, length."""

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        for entry in batch:
            cached = self._cached_tokens[entry.slot]
            if entry.position > len(cached) or entry.position + len(entry.tokens) > self.info.n_ctx:
                n = counted(len(entry.tokens), "token")
                raise ModelError(f"position {entry.position} + {n} is outside the slot")
            if self._seconds_per_token:
                time.sleep(self._seconds_per_token * len(entry.tokens))
            cached[entry.position :] = entry.tokens
            self._logits[entry.slot] = [self._row(cached, len(cached) - i) for i in reversed(range(entry.logits))]
            self.decoded.append(entry)

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        return self._logits[slot][row]

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        self._cached_tokens[target][:] = self._cached_tokens[source][:n]
        self.copies.append((source, target, n))

    def save(self, slot: int, start: int, end: int) -> SavedState:
        if end > len(self._cached_tokens[slot]):
            raise ModelError(f"slot {slot} has fewer than {counted(end, 'token')}")
        del self._cached_tokens[slot][end:]
        return _saved(0, self._cached_tokens[slot], slice(start, None))

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        cached = self._cached_tokens[slot]
        cached.clear()
        *parts, last = map(_tokens, states)
        for start, tokens in (*parts, (last[0], last[1][: max(n - last[0], 0)])):
            if start != len(cached) or not tokens:
                cached.clear()
                raise ModelError(f"saved states do not continue each other: token {len(cached)}, then token {start}")
            cached += tokens
        if len(cached) != n:
            cached.clear()
            raise ModelError(f"saved states have fewer than {counted(n, 'token')}")

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        start, tokens = _tokens(state)
        return _saved(start, tokens, slice(at)), _saved(start, tokens, slice(at, None))

    def use_threads(self, decode: int, batch: int) -> None:
        """Do nothing: there are no threads."""

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self._cached_tokens.clear()

    def _row(self, cached: Sequence[int], end: int) -> FloatArray:
        row = np.zeros(self.info.n_vocab, np.float32)
        row[self._next(cached, end)] = 20
        return row

    def _next(self, cached: Sequence[int], end: int) -> int:
        """Return the next token of the script after the cached ones up to `end`."""
        answer = _after_last(ASSISTANT, cached, end)
        question = cached[_after_last(USER, cached, answer) : answer]
        script: list[int] = [*self._reply(bytes([*filter((256).__gt__, question)])), END]
        return script[min(end - answer, len(script) - 1)]


def _after_last(token: int, cached: Sequence[int], end: int) -> int:
    """Return the index after the last occurrence of `token` before `end`; 0 if there is none."""
    try:
        return end - indexOf(islice(reversed(cached), len(cached) - end, None), token)
    except ValueError:
        return 0


def _saved(start: int, tokens: Sequence[int], part: slice) -> SavedState:
    """Return the state of a part of the tokens, of which the first has position `start`. Raises ModelError if the part
    is empty or outside."""
    if min(part.start or 0, part.stop or 0) < 0 or not (saved := tokens[part]):
        raise ModelError(f"a state of {counted(len(tokens), 'token')} has no part {part}")
    return SavedState(msgspec.json.encode((start + (part.start or 0), saved)), b"")


def _tokens(state: SavedState) -> tuple[int, list[int]]:
    """Return the position of a state's first token, and the tokens. Raises ModelError."""
    try:
        return msgspec.json.decode(state.rows, type=tuple[int, list[int]])
    except msgspec.DecodeError as error:
        raise ModelError(f"a saved state is damaged: {error}") from error
