"""Answers in which some values are others: each reader reads them, or raises an error that ends the attempt."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends import scripted
from server.stream import ToolCallStarted
from server.upstream.chat.job import Answered, ChatProcessor, Deltas
from server.upstream.chat.output_checks import OutputChecks
from server.upstream.chat.reader import ChatReader
from server.upstream.tokens import kind_of
from server.upstream.tokens.servers import NEUTRAL, Continuation, PartReader
from server.upstream.transport import OutputMismatch, UpstreamFault, faults

ODD: list[Any] = [None, True, 0, -1, 10**30, -(10**30), 1 << 63, 1.5, "", "a", "\0", "token_id:x", "abort", [], {}]
ODD += [[None], [-1], [10**30], [[]], {"a": 1}]
ROUNDS = 20
VOCABULARY = scripted.vocabulary()
FUNCTION = {"name": "w", "arguments": "{}"}
LOGPROB = {"token": "Hi", "logprob": -0.1, "bytes": [72], "top_logprobs": [{"token": "a", "logprob": -1}]}
CHAT: list[Any] = [
    {"choices": [{"index": 0, "delta": {"content": "Hi", "reasoning": "r"}, "logprobs": {"content": [LOGPROB]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "a", "function": FUNCTION}]}, "finish_reason": None}]},
    {"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": "x"}]},
    {
        "choices": [],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    },
]
LIKELY = {"token_logprobs": [-0.1, None], "top_logprobs": [{"token_id:5": -1.0}, None]}
CHOSEN = {"id": 72, "token": "H", "logprob": -0.1, "top_logprobs": [{"id": 5, "logprob": -1}]}
META = {"completion_tokens": 2, "cached_tokens": 2, "output_token_logprobs": [[-0.1, 72, None], [-0.2, 105, None]]}
TOKENS: dict[str, list[Any]] = {
    "vllm": [
        {"choices": [{"index": 0, "text": "Hi", "token_ids": [72, 105], "logprobs": LIKELY}]},
        {"choices": [{"text": "", "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}},
    ],
    "llamacpp": [
        {"tokens_predicted": 0, "prompt_progress": {"total": 5, "cache": 2, "processed": 3}},
        {"content": "Hi", "tokens": [72, 105], "tokens_predicted": 2, "completion_probabilities": [CHOSEN, CHOSEN]},
        {"content": "", "tokens": [], "stop": True, "stop_type": "eos", "tokens_predicted": 3},
    ],
    "sglang": [
        {"text": "Hi", "output_ids": [72, 105], "meta_info": META | {"output_top_logprobs": [[[-1, 5, None]], None]}},
        {"text": "Hi!", "output_ids": [72, 105, 33], "meta_info": {"completion_tokens": 3, "finish_reason": {}}},
    ],
}


def mutated(parts: Sequence[Any], source: random.Random) -> list[Any]:
    """Return the parts with other values in up to three places."""
    found = copy.deepcopy(list(parts))
    for _ in range(source.randint(1, 3)):
        places = [(holder, key) for holder in holders(found) for key in keys(holder)]
        holder, key = source.choice(places)
        holder[key] = copy.deepcopy(source.choice(ODD))
    return found


def holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if keys(value) else ()), *(each for part in inner for each in holders(part))]


def keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


def read_chat(parts: Sequence[Any]) -> None:
    reader = ChatReader("http://a", {"w": ToolCallStarted("w")}, True, OutputChecks())
    processor = ChatProcessor(5)
    for part in parts:
        inputs = tuple(reader.feed(f"data: {json.dumps(part)}\n\n".encode()))
        processor.process(Deltas(inputs, reader.deltas, reader.reasoning_deltas), 0)
    reader.finish()
    processor.process(Answered(reader.usage, reader.incomplete, reader.stop), 0)
    usage = processor.usage
    assert 0 <= usage.input_tokens_details.cached_tokens <= usage.input_tokens < 1 << 32
    assert 0 <= usage.output_tokens_details.reasoning_tokens <= usage.output_tokens < 1 << 32


def reader_of(kind: str) -> PartReader:
    return kind_of(kind, VOCABULARY).reader("http://a", Continuation([1], 9, NEUTRAL, 2, [256]))


def read_tokens(kind: str, parts: Sequence[Any]) -> None:
    reader = reader_of(kind)
    for part in parts:
        try:
            reader.part(json.dumps(part).encode())
        except faults.DECODING_ERRORS:
            return


READERS: dict[str, tuple[Callable[[Sequence[Any]], None], list[Any]]] = {
    "chat": (read_chat, CHAT),
    **{kind: (lambda parts, kind=kind: read_tokens(kind, parts), parts) for kind, parts in TOKENS.items()},  # type: ignore[misc]
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@given(st.integers(0, 1 << 32))
def test_mutated_answer_is_read_or_ends_the_attempt(name: str, seed: int) -> None:
    read, parts = READERS[name]
    read(parts)
    source = random.Random(seed)
    for _ in range(ROUNDS):
        with suppress(UpstreamFault, OutputMismatch):
            read(mutated(parts, source))


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("llamacpp", {"content": "Hi", "tokens": [1 << 63], "tokens_predicted": 3}),
        ("llamacpp", {"content": "Hi", "tokens": [-1], "tokens_predicted": 3}),
        ("sglang", {"text": "Hi", "output_ids": [72], "meta_info": META | {"completion_tokens": 1 << 80}}),
    ],
)
def test_number_out_of_range_is_an_error_of_the_answer(kind: str, part: Any) -> None:
    with pytest.raises(faults.DECODING_ERRORS):
        reader_of(kind).part(json.dumps(part).encode())
