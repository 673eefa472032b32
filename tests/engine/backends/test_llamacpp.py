"""llama.cpp with the real model: batching changes only the time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backends import selection
from engine.backends.llamacpp.model import LlamaCpp
from engine.backends.llamacpp.tokenizer import NativeTokenizer
from engine.chat_template.message import Message
from engine.chat_template.template import ChatTemplate
from engine.job import Job, SamplingParams, Started, Token
from engine.loader import model_file
from engine.model import BackendOptions, BatchEntry, ModelError
from engine.runtime.engine import Engine
from engine.tokenizer.vocabulary import Vocabulary

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
TOKENS = 5
NEAR_TIE = 1.0
"""Logits. Batches of different shapes round differently: this model's logits move by up to half of one."""

RULES = "You are a helpful assistant. You answer in one short sentence, and you are always polite. "
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours, and say of each where it is found in nature.",
    "Hi",
    "Write a short poem about the sea, the wind and a small boat that is far from home.",
    "What is two plus two?",
    "Tell me a story.",
    "Which planet is the largest? " * 5,
    "Who are you?",
)


@pytest.fixture(scope="module")
def parts(smollm2: Path) -> tuple[Vocabulary, ChatTemplate]:
    return model_file.read(smollm2)[1:]


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Iterator[LlamaCpp]:
    model = selection.open_model("llamacpp", smollm2, n_ctx=1024, n_slots=8, threads=1, library=None)
    assert isinstance(model, LlamaCpp)
    yield model
    model.close()


def prompts(template: ChatTemplate, rules: str) -> list[tuple[int, ...]]:
    return [tuple(template.prompt([Message("system", rules), Message("user", text)])) for text in QUESTIONS]


async def together(model: LlamaCpp, jobs: list[Job], ends: frozenset[int]) -> tuple[list[list[int]], list[int]]:
    """Run all jobs at once on a fresh scheduler; return the tokens of each, and the number of cached prompt tokens."""
    tokens: list[list[int]] = [[] for _ in jobs]
    cached = [0] * len(jobs)
    engine = Engine(model, ends)

    async def one(index: int) -> None:
        with engine.generate(jobs[index]) as outputs:
            async for piece in outputs:
                match piece:
                    case Token(id_):
                        tokens[index].append(id_)
                    case Started(n):
                        cached[index] = n

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        async with trio.open_nursery() as requests:
            for index in range(len(jobs)):
                requests.start_soon(one, index)
        nursery.cancel_scope.cancel()
    return tokens, cached


def alone(model: LlamaCpp, prompt: tuple[int, ...], most: int, ends: frozenset[int]) -> list[int]:
    """Run the bare loop in slot 0, with the whole prompt at once."""
    model.decode([BatchEntry(0, 0, prompt, logits=True)])
    tokens: list[int] = []
    while len(tokens) < most and (token := int(model.logits(0).argmax())) not in ends:
        tokens.append(token)
        model.decode([BatchEntry(0, len(prompt) + len(tokens) - 1, [token], logits=True)])
    return tokens


def assert_same(model: LlamaCpp, prompt: tuple[int, ...], got: list[int], expected: list[int]) -> None:
    """Assert equality up to a near tie: two most likely tokens that are closer than rounding errors."""
    if got == expected:
        return
    differ = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
    at = min(len(got), len(expected)) if differ is None else differ
    model.decode([BatchEntry(0, 0, [*prompt, *expected[:at]], logits=True)])
    second, first = np.sort(model.logits(0))[-2:]
    assert first - second < NEAR_TIE, f"token {at} differs, and it is no near tie: {first} against {second}"


@pytest.mark.parametrize("rules", ["Be brief.", RULES], ids=["little in common", "a long prefix in common"])
async def test_decode_of_eight_streams_equals_each_alone(
    model: LlamaCpp, parts: tuple[Vocabulary, ChatTemplate], rules: str
) -> None:
    vocabulary, template = parts
    asked = prompts(template, rules)
    jobs = [Job(prompt, TOKENS, GREEDY) for prompt in asked]
    got, cached = await together(model, jobs, vocabulary.end_tokens)
    shared = sum(n > 0 for n in cached)
    assert shared == (7 if rules == RULES else 0), "one evaluates the long prefix, the others take it"
    for prompt, tokens in zip(asked, got, strict=True):
        assert_same(model, prompt, tokens, alone(model, prompt, TOKENS, vocabulary.end_tokens))


def test_copy_prefix_answers_as_an_evaluated_prefix(model: LlamaCpp, parts: tuple[Vocabulary, ChatTemplate]) -> None:
    prompt = prompts(parts[1], "You are a helpful assistant.")[0]
    model.decode([BatchEntry(3, 0, prompt, logits=True)])
    model.copy_prefix(3, 5, len(prompt) - 4)
    model.decode([BatchEntry(5, len(prompt) - 4, prompt[-4:], logits=True)])
    assert np.abs(model.logits(5)).max() > 1
    copied = int(model.logits(5).argmax())
    model.decode([BatchEntry(3, len(prompt) - 4, prompt[-4:], logits=True)])
    assert copied == int(model.logits(3).argmax())


def test_decode_without_flash_attention_answers_the_same(
    model: LlamaCpp, parts: tuple[Vocabulary, ChatTemplate], smollm2: Path
) -> None:
    vocabulary, template = parts
    prompt = prompts(template, RULES)[0]
    other = selection.open_model(
        "llamacpp",
        smollm2,
        n_ctx=512,
        n_slots=2,
        threads=1,
        library=None,
        backend_options=BackendOptions(flash_attention=False),
    )
    assert isinstance(other, LlamaCpp)
    expected = alone(model, prompt, TOKENS, vocabulary.end_tokens)
    assert_same(model, prompt, alone(other, prompt, TOKENS, vocabulary.end_tokens), expected)
    other.copy_prefix(0, 1, len(prompt) - 1)
    other.decode([BatchEntry(1, len(prompt) - 1, prompt[-1:], logits=1)])
    assert int(other.logits(1).argmax()) == expected[0], "a slot can be copied without flash attention too"
    other.close()


def test_interrupt_ends_a_long_step_and_leaves_the_slot_usable(
    model: LlamaCpp, parts: tuple[Vocabulary, ChatTemplate]
) -> None:
    prompt = prompts(parts[1], "You are a helpful assistant.")[0]
    model.decode([BatchEntry(2, 0, prompt[:-1], logits=False)])
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.001):  # a call before the step begins has no effect
            model.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(ModelError, match="could not evaluate a step"):
        model.decode([BatchEntry(2, len(prompt) - 1, [7] * 500, logits=True)])
    ended.set()
    thread.join()
    model.decode([BatchEntry(2, len(prompt) - 1, prompt[-1:], logits=True)])
    assert parts[0].bytes_of(int(model.logits(2).argmax())) == b"The"


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_native_tokenizer_equals_our_vocabulary(
    smollm2: Path, parts: tuple[Vocabulary, ChatTemplate], text: str
) -> None:
    assert native(smollm2)(text) == parts[0].encode(text)


_native: dict[Path, NativeTokenizer] = {}


def native(path: Path) -> NativeTokenizer:
    if path not in _native:
        _native[path] = selection.native_tokenizer(path, None)
    return _native[path]
