"""Logprobs of deltas: every emitted token once, with the text that it begins."""

import json
import math
from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from engine.backends.scripted import ScriptedModel
from engine.gguf.header import Header, MetadataEntry, Value
from engine.job import EngineOutput, Finished, FinishReason, Started, Token, TokenLogprobs
from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE
from engine.tokenizer.entries import TokenType
from engine.tokenizer.vocabulary import Vocabulary
from server.postprocessing.logprobs import PendingLogprobs, logprob
from server.postprocessing.output_processor import OutputProcessor
from server.protocol import sse
from server.protocol.events import Event, OutputTextDelta, OutputTextDone
from server.protocol.output_items import MIN_LOGPROB, Logprob, TopLogprob
from server.protocol.response import Response
from server.stream import replay
from server.stream.inputs import Created, InProgress, StreamInput
from server.stream.machine import Stream
from server.stream.replay import feed_all
from tests.support import wire
from tests.support.helpers import NAME, encode, exchange, get, official_client, post, served

WORDS = [b"a", b"b", b"ab", b" ba", b"E", b"N", b"D", b"xEN", b"Dy", b"END", "é".encode(), "日本".encode()]
PARTS = ["日".encode()[:1], "日".encode()[1:], "日".encode()[:2], "日".encode()[2:], b"a\xe2\x80", b"\xa6b", b"\xff"]
TOKENS = [*WORDS, *PARTS]
CONTROL = len(TOKENS)
RESPONSE = Response(id="resp_x", created_at=1, model="m", temperature=0.8, top_p=0.95)
FIRST: list[StreamInput] = [Created(), InProgress()]


def vocabulary() -> Vocabulary:
    """Return the pieces of these tokens, and of a control token."""
    texts = ["".join(BYTE_TO_UNICODE[byte] for byte in token) for token in TOKENS]
    values: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*texts, "<|end|>"],
        "tokenizer.ggml.token_type": [*[int(TokenType.NORMAL)] * len(texts), int(TokenType.CONTROL)],
    }
    return Vocabulary(Header(3, 32, {name: MetadataEntry(value, 0, 0, 0) for name, value in values.items()}, (), 0))


VOCABULARY = vocabulary()


def token(id_: int, number: float = -0.5) -> Token:
    return Token(id_, TokenLogprobs(number, ()))


def play(pieces: Sequence[EngineOutput], stops: Sequence[str]) -> tuple[list[Event], list[StreamInput]]:
    answer = OutputProcessor(VOCABULARY, 1, stops)
    cues = [*FIRST, *(cue for piece in pieces for cue in answer.process(piece, 2))]
    return list(feed_all(Stream(RESPONSE), cues)), cues


def starts(ids: Sequence[int]) -> list[int]:
    """Return the number of characters decoded before each token."""
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    found, count = [], 0
    for id_ in ids:
        found.append(count)
        count += len(decoder.decode(VOCABULARY.bytes_of(id_)))
    return found


ids = st.lists(st.integers(0, CONTROL), max_size=14)
stops = st.lists(st.sampled_from(["END", "N", "日", "ab", "…b", "b a"]), max_size=2)


@given(ids, stops)
@pytest.mark.slow
def test_delta_has_the_logprobs_of_the_tokens_that_begin_in_it(ids: list[int], stops: list[str]) -> None:
    pieces = [token(id_, -float(index)) for index, id_ in enumerate(ids)]  # the number identifies the token
    events, cues = play([Started(0), *pieces, Finished(FinishReason.STOP)], stops)
    deltas = [event for event in events if isinstance(event, OutputTextDelta)]
    shown, delivered = 0, list[int]()
    for delta in deltas:
        end = shown + len(delta.delta)
        within = [i for i, start in enumerate(starts(ids)) if shown <= start < end and ids[i] != CONTROL]
        assert delta.logprobs == tuple(logprob(pieces[i], VOCABULARY) for i in within)
        shown, delivered = end, [*delivered, *within]
    assert delivered == [i for i, start in enumerate(starts(ids)) if start < shown and ids[i] != CONTROL]
    (done,) = [event for event in events if isinstance(event, OutputTextDone)]
    assert done.logprobs == tuple(each for delta in deltas for each in delta.logprobs)
    wire.check_stream([json.loads(msgspec.json.encode(event)) for event in events])  # the parts too
    again = replay.events(msgspec.json.encode(RESPONSE), msgspec.json.encode(cues))
    assert sse.encode(list(again)) == sse.encode(events)


@given(st.lists(st.sampled_from(range(len(WORDS))), max_size=14))
def test_logprobs_bytes_join_to_the_text(ids: list[int]) -> None:
    events, _ = play([Started(0), *map(token, ids), Finished(FinishReason.STOP)], ["zzz"])
    (done,) = [event for event in events if isinstance(event, OutputTextDone)]
    assert b"".join(bytes(each.bytes) for each in done.logprobs) == done.text.encode()
    assert [each.token for each in done.logprobs] == [TOKENS[id_].decode() for id_ in ids]


@pytest.mark.parametrize(
    ("id_", "text", "data"),
    [
        (TOKENS.index(b" ba"), " ba", b" ba"),
        (TOKENS.index("日本".encode()), "日本", "日本".encode()),
        (TOKENS.index("日".encode()[:2]), "bytes:\\xe6\\x97", "日".encode()[:2]),
        (TOKENS.index(b"a\xe2\x80"), "bytes:a\\xe2\\x80", b"a\xe2\x80"),
        (CONTROL, "<|end|>", b""),
    ],
)
def test_logprob_has_the_text_and_bytes_of_its_token(id_: int, text: str, data: bytes) -> None:
    likelihood = TokenLogprobs(-0.25, ((id_, -0.125), (0, -math.inf)))
    top = (TopLogprob(text, -0.125, tuple(data)), TopLogprob("a", MIN_LOGPROB, (97,)))
    assert logprob(Token(id_, likelihood), VOCABULARY) == Logprob(text, -0.25, tuple(data), top)


def test_logprobs_not_asked_for_are_omitted() -> None:
    ledger = PendingLogprobs(VOCABULARY)
    ledger.add(0, Token(0))
    assert ledger.between(0, 9) == ()
    assert all(event.logprobs == () for event in play([Token(0)], ())[0] if isinstance(event, OutputTextDelta))


def test_logprobs_of_skipped_text_are_discarded() -> None:
    ledger = PendingLogprobs(VOCABULARY)
    for start in range(4):
        ledger.add(start, token(start))
    assert [each.token for each in ledger.between(1, 2)] == ["b"]
    assert [each.token for each in ledger.between(3, 9)] == [" ba"]


# Over a socket. The scripted model has a logit of 20 for the right byte and of 0 for the 260 others.

RIGHT = -math.log(1 + 260 * math.exp(-20))
WRONG = RIGHT - 20
ASKED = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}


async def test_stream_with_logprobs_has_them_on_deltas_and_done() -> None:
    async with served() as running:
        answer = await post(running, input="Aé!", stream=True, **ASKED)
        whole = (await post(running, input="Aé!", **ASKED)).json
    deltas = [event for event in answer.events if event["type"] == "response.output_text.delta"]
    logprobs = [[(each["token"], each["bytes"]) for each in delta["logprobs"]] for delta in deltas]
    assert logprobs == [[("A", [65])], [("bytes:\\xc3", [0xC3]), ("bytes:\\xa9", [0xA9])], [("!", [33])]]
    last = answer.events[-1]["response"]
    assert last["top_logprobs"] == 2
    first = last["output"][0]["content"][0]["logprobs"][0]
    assert first["logprob"] == first["top_logprobs"][0]["logprob"] == pytest.approx(RIGHT)
    assert first["top_logprobs"][1]["logprob"] == pytest.approx(WRONG)
    assert [len(each["top_logprobs"]) for delta in deltas for each in delta["logprobs"]] == [2] * 4
    wire.check_response(whole)
    assert whole["output"][0]["content"] == last["output"][0]["content"]


@pytest.mark.parametrize(
    ("fields", "expected"), [({"include": ASKED["include"]}, [0]), ({"top_logprobs": 1}, [1]), ({"include": ["x"]}, [])]
)
async def test_request_by_either_field_gets_logprobs(fields: dict[str, Any], expected: list[int]) -> None:
    async with served() as running:
        body = (await post(running, input="A", **fields)).json
    logprobs = body["output"][0]["content"][0]["logprobs"]
    assert [len(each["top_logprobs"]) for each in logprobs] == expected


@pytest.mark.slow
async def test_replayed_stream_has_its_logprobs(tmp_path: Any) -> None:
    async with served(state=tmp_path) as running:
        answer = await post(running, input="Aé!", stream=True, **ASKED)
        again = await get(running, f"/v1/responses/{answer.events[0]['response']['id']}?stream=true")
    assert again.body == answer.body


@pytest.mark.slow
async def test_logprobs_ignore_the_logit_bias() -> None:
    async with served() as running:
        body = (await post(running, input="A", temperature=0, logit_bias={"66": 100}, **ASKED)).json
    (logprobs, *_) = body["output"][0]["content"][0]["logprobs"]
    assert (logprobs["token"], logprobs["logprob"]) == ("B", pytest.approx(WRONG))
    assert logprobs["top_logprobs"][0] == {"token": "A", "logprob": pytest.approx(RIGHT), "bytes": [65]}


@pytest.mark.slow
async def test_drafted_tokens_have_their_own_logprobs() -> None:
    model = ScriptedModel(n_slots=1, batched=True)
    text = "one two three one two three one two three " * 3
    async with served(model) as running:
        body = (await post(running, input=text, temperature=0, **ASKED)).json
    part = body["output"][0]["content"][0]
    assert bytes(byte for each in part["logprobs"] for byte in each["bytes"]).decode() == part["text"] == text
    assert {round(each["logprob"], 9) for each in part["logprobs"]} == {round(RIGHT, 9)}
    assert any(chunk.logits > 1 for chunk in model.decoded), "guesses were made"


HI: Any = [{"role": "user", "content": "Hé"}]


def chat_stream(url: str) -> list[list[tuple[str, float]]]:
    with official_client(url) as client:
        options: Any = {"stream": True, "logprobs": True, "top_logprobs": 1}
        chunks = list(client.chat.completions.create(model=NAME, messages=HI, **options))
    logprobs = [chunk.choices[0].logprobs for chunk in chunks]
    return [[(each.token, each.top_logprobs[0].logprob) for each in one.content or ()] for one in logprobs if one]


async def test_chat_completions_have_logprobs() -> None:
    async with served() as running:
        streamed = await trio.to_thread.run_sync(chat_stream, running.url)
        body = encode(messages=HI, logprobs=True)
        whole = await exchange(running, "POST", "/v1/chat/completions", body)
    right: Any = pytest.approx(RIGHT)
    assert streamed == [[("H", right)], [("bytes:\\xc3", right), ("bytes:\\xa9", right)]]
    ChatCompletion.model_validate_json(whole.body, strict=True)
    logprobs = whole.json["choices"][0]["logprobs"]
    assert [(each["bytes"], each["top_logprobs"]) for each in logprobs["content"]] == [
        ([72], []),
        ([0xC3], []),
        ([0xA9], []),
    ]
