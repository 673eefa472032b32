"""Masks of answers from an upstream: a slow grammar computes them beside the event loop."""

import time
from collections.abc import Sequence
from threading import current_thread, main_thread

import pytest

from engine.gguf.header import Header, MetadataEntry, Value
from engine.model import FloatArray
from engine.structured_output.compiler import GrammarCompiler
from engine.structured_output.structural_tag import StructuralTag
from engine.tokenizer import BYTE_TO_UNICODE, Vocabulary
from server.upstream.tokens.gate import TokenGate
from server.upstream.tokens.masks import SLOW_SECONDS, Masks


class TimedGrammar:
    """A grammar of any text, with the time of each mask."""

    def __init__(self, *seconds: float) -> None:
        self._seconds = list(seconds)
        self.beside: list[bool] = []
        """For each mask: True if another thread than that of the event loop has computed it."""
        self.mask_ready = False

    def start(self) -> "TimedGrammar":
        return self

    def compute_mask(self) -> None:
        self.beside.append(current_thread() is not main_thread())
        end = time.perf_counter() + self._seconds[len(self.beside) - 1]
        while time.perf_counter() < end:
            pass
        self.mask_ready = True

    def apply_mask(self, logits: FloatArray) -> None: ...

    def fits(self, token: int) -> bool:
        return False

    def accept(self, token: int) -> None:
        self.mask_ready = False

    def forced(self) -> Sequence[int]:
        return ()


def merged_vocabulary() -> Vocabulary:
    """Return a vocabulary of all bytes, `{"`, and an end token."""
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*BYTE_TO_UNICODE.values(), '{"', "<|im_end|>"],
        "tokenizer.ggml.token_type": [1] * 257 + [3],
        "tokenizer.ggml.merges": ['{ "'],
        "tokenizer.ggml.eos_token_id": 257,
    }
    entries = {key: MetadataEntry(value, type=0, start=0, end=0) for key, value in values.items()}
    return Vocabulary(Header(3, 32, entries, tensors=(), size=0))


def test_certain_text_may_be_split_otherwise() -> None:
    vocabulary = merged_vocabulary()
    grammar = GrammarCompiler(vocabulary).lark('start: "{\\"a\\": 1}"')
    gate = TokenGate(StructuralTag(vocabulary, grammar), len(vocabulary), vocabulary.end_tokens)
    assert (gate.allows(ord("[")), gate.allowed) == (False, [256])
    for token in b'{"a": 1}':
        assert gate.allows(token)
        gate.accept(token)
    assert (gate.allows(ord("}")), gate.end) == (False, 257)


SLOW = 2 * SLOW_SECONDS


@pytest.mark.parametrize(
    ("seconds", "beside"),
    [
        ((SLOW, SLOW, SLOW), [False, True, True]),
        ((SLOW, 0, SLOW), [False, True]),
    ],
)
async def test_mask_after_a_slow_one_is_computed_in_a_thread(seconds: Sequence[float], beside: list[bool]) -> None:
    grammar = TimedGrammar(*seconds)
    gate = TokenGate(grammar, 8, {0})
    masks = Masks(gate)
    for _ in beside:
        await masks.prepare()
        await masks.prepare()  # it is ready
        assert gate.allows(3)
        gate.accept(3)
    assert grammar.beside == beside


async def test_answer_without_grammar_has_no_masks() -> None:
    await Masks(TokenGate(None, 8, {0})).prepare()
