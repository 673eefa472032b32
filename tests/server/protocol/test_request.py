"""Decoding of bodies: errors that name the field, and no other exceptions."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.http.bodies import clean
from server.prompt import conversation
from server.protocol import fields
from server.protocol import request as schema
from server.protocol.errors import InvalidRequest

DEEP = 10_000


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi"} | fields).encode()


def raw(fields: bytes, input_: bytes = b'"hi"') -> bytes:
    """Return a body with fields that `json.dumps` cannot write."""
    return b'{"model":"m","input":' + input_ + b"," + fields + b"}"


def user_item(*parts: Any, **fields: Any) -> bytes:
    """Return a body with a message of these parts."""
    return body(input=[{"role": "user", "content": list(parts)} | fields])


def file(data: str) -> bytes:
    return user_item({"type": "input_file", "filename": "a.txt", "file_data": data})


def read(data: bytes) -> conversation.PromptMessages:
    """Decode a body up to the messages for the model."""
    data = clean(data)
    request = schema.decode(data)
    fields.unknown_fields(data, schema.KNOWN)
    return conversation.messages_of(request)


ARRAYS, OBJECTS = b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP
NESTED = "The body is nested deeper than 64 levels"
PART = "input[0].content[0]"

BAD: dict[str, tuple[bytes, str | None, str]] = {
    # The body as a whole
    "empty": (b"", None, "The body is empty; send a JSON object."),
    "blank": (b" \r\n", None, "The body is empty; send a JSON object."),
    "not JSON": (b"model=m", None, "The body is not valid JSON"),
    "cut": (body()[:-1], None, "The body is not valid JSON"),
    "two": (body() * 2, None, "The body is not valid JSON"),
    "NaN": (raw(b'"temperature":NaN'), None, "The body is not valid JSON"),
    "an array": (b"[]", None, "must be an object, not an array"),
    "null": (b"null", None, "must be an object, not null"),
    # Encoding
    "bad UTF-8": (raw(b'"user":"x"', b'"\xff"'), None, "not UTF-8: byte 22 is 0xff"),
    "bad UTF-8 in a skipped field": (raw(b'"zzz":"\xff"'), None, "not UTF-8: byte 33 is 0xff"),
    "bad UTF-8 in a field's name": (raw(b'"z\xff":1'), None, "not UTF-8"),
    "bad UTF-8 in a skipped item": (raw(b'"user":"x"', b'[{"type":"z","x":"\xff"}]'), None, "not UTF-8"),
    "a surrogate as UTF-8": (raw(b'"user":"x"', b'"\xed\xa0\x80"'), None, "not UTF-8"),
    # Depth
    "a deep body": (ARRAYS, None, NESTED),
    "a deep input": (b'{"model":"m","input":' + ARRAYS + b"}", None, NESTED),
    "a deep item": (raw(b'"user":"x"', b'[{"role":"user","content":' + OBJECTS + b"}]"), None, NESTED),
    "a deep skipped item": (raw(b'"user":"x"', b'[{"type":"z","x":' + OBJECTS + b"}]"), None, NESTED),
    "a deep skipped field": (raw(b'"zzz":' + ARRAYS), None, NESTED),
    "deep skipped objects": (raw(b'"zzz":' + OBJECTS), None, NESTED),
    "deep metadata": (raw(b'"metadata":' + OBJECTS), None, NESTED),
    # Numbers
    "temperature 1e400": (raw(b'"temperature":1e400'), "temperature", "Number out of range"),
    "temperature text": (body(temperature="hot"), "temperature", "must be a number or null, not a string"),
    "temperature a number in a text": (body(temperature="0.5"), "temperature", "not a string"),
    "temperature below": (body(temperature=-5), "temperature", "must be at least 0.0"),
    "temperature above": (body(temperature=3), "temperature", "must be at most 2.0"),
    "temperature true": (body(temperature=True), "temperature", "not a boolean"),
    "temperature list": (body(temperature=[]), "temperature", "not an array"),
    "top_p above": (body(top_p=2), "top_p", "must be at most 1.0"),
    "top_p -1e400": (raw(b'"top_p":-1e400'), "top_p", "Number out of range"),
    "top_k below": (body(top_k=-2), "top_k", "must be at least -1"),
    "top_k a fraction": (body(top_k=1.5), "top_k", "must be a whole number or null, not a fraction"),
    "min_p above": (body(min_p=1.5), "min_p", "must be at most 1.0"),
    "seed beyond 64 bits": (body(seed=2**63), "seed", "must be at most 9223372036854775807"),
    "top_logprobs above": (body(top_logprobs=21), "top_logprobs", "must be at most 20"),
    "top_logprobs below": (body(top_logprobs=-1), "top_logprobs", "must be at least 0"),
    "include a text": (body(include="message.output_text.logprobs"), "include", "must be an array or null, not"),
    "include of numbers": (body(include=["a", 3]), "include[1]", "must be a string, not a whole number"),
    "presence_penalty below": (body(presence_penalty=-2.1), "presence_penalty", "must be at least -2.0"),
    "presence_penalty above": (body(presence_penalty=2.1), "presence_penalty", "must be at most 2.0"),
    "frequency_penalty above": (body(frequency_penalty=3), "frequency_penalty", "must be at most 2.0"),
    "repeat_penalty zero": (body(repeat_penalty=0), "repeat_penalty", "must be above 0.0"),
    "repetition_penalty above": (body(repetition_penalty=11), "repetition_penalty", "must be at most 10.0"),
    "repeat_last_n below": (body(repeat_last_n=-2), "repeat_last_n", "must be at least -1"),
    "a bias above": (
        body(logit_bias={"1": 100, "2": 101}), "logit_bias.2", "`logit_bias.2` must be at most 100.0.",
    ),
    "a bias of a text": (
        body(logit_bias={"5": 1, "the": 1}),
        "logit_bias",
        "The key 'the' of `logit_bias` must be a whole number, not a string.",
    ),
    "a bias of no token": (body(logit_bias={"-1": 1}), "logit_bias", "The key '-1' of `logit_bias` must be at least 0"),
    "a bias far behind": (
        body(logit_bias={n: n // 50 for n in range(10_000)}), "logit_bias[...]", "must be at most 100.0",
    ),
    "a bias of pairs": (body(logit_bias=[[1, 1]]), "logit_bias", "not an array"),
    "no output tokens": (body(max_output_tokens=0), "max_output_tokens", "must be at least 1"),
    "output tokens text": (body(max_output_tokens="5"), "max_output_tokens", "not a string"),
    # Other fields
    "model a number": (body(model=3), "model", "must be a string or null, not a whole number"),
    "stream a text": (body(stream="yes"), "stream", "must be a boolean or null, not a string"),
    "instructions a list": (body(instructions=[]), "instructions", "not an array"),
    "too many stops": (body(stop=["a"] * 17), "stop", "may have at most 16 entries"),
    "a long stop": (body(stop=["a" * 1001]), "stop[0]", "may have at most 1000 characters"),
    "a long stop alone": (body(stop="a" * 1001), "stop", "may have at most 1000 characters"),
    "a stop that is none": (body(stop=["a", 3]), "stop[1]", "must be a string, not a whole number"),
    "too much metadata": (
        body(metadata={str(n): "x" for n in range(17)}), "metadata", "may have at most 16 entries",
    ),
    "a long key": (
        body(metadata={"k" * 65: "x"}), "metadata", f"The key '{'k' * 64}...' of `metadata` may have at most 64",
    ),
    "a long value": (body(metadata={"a": "x", "k": "x" * 513}), "metadata.k", "may have at most 512 characters"),
    "metadata of numbers": (body(metadata={"k": 3}), "metadata.k", "`metadata.k` must be a string, not a"),
    "metadata twice": (raw(b'"metadata":{"k":3,"k":"x"}'), "metadata[...]", "must be a string, not a whole number"),
    "metadata, cut": (b'{"metadata":{"k":3}', "metadata[...]", "must be a string, not a whole number"),
    "a place in a value": (
        body(truncation="x - at `$.z[...]`"), "truncation", "Invalid enum value 'x",
    ),
    # Input
    "input missing": (b'{"model":"m"}', "input", "`input` is missing"),
    "input null": (body(input=None), "input", "`input` is missing"),
    "input empty": (body(input=""), "input", "`input` has no text"),
    "input without items": (body(input=[]), "input", "`input` has no text"),
    "input a number": (body(input=5), "input", "must be a string, an array or null, not a whole number"),
    "input an object": (body(input={}), "input", "must be a string, an array or null, not an object"),
    "only unknown items": (
        body(input=[{"type": "reasoning"}, {"type": "zzz"}, {}]),
        "input",
        "`input` has no text for the model to answer; skipped: item zzz, item without",
    ),
    "only instructions": (body(input=[], instructions="Be brief."), "input", "`input` has no text"),
    # Items
    "an item that is a text": (body(input=["hi"]), "input[0]", "must be an object, not a string"),
    "an item that is null": (body(input=[None]), "input[0]", "must be an object, not null"),
    "an item's type a number": (body(input=[{"type": 5}]), "input[0].type", "must be a string or null, not a"),
    "a message without role": (body(input=[{"type": "message"}]), "input[0]", "`role` is missing in"),
    "a message of nobody we know": (
        body(input=[{"role": "user", "content": "x"}, {"role": "boss", "content": "x"}]),
        "input[1].role",
        "`input[1].role` is 'boss'; it must be one of user, assistant, system, developer.",
    ),
    "content a number": (user_item(content=5), "input[0].content", "must be a string, an array or null"),
    "truncation": (body(truncation="always"), "truncation", "Invalid enum value 'always'"),
    "a call without name": (body(input=[{"type": "function_call"}]), "input[0]", "`name` is missing in"),
    # Parts
    "a part that is a text": (user_item("x"), PART, "must be an object, not a string"),
    "a part without its text": (user_item({"type": "input_text"}), PART, "`text` is missing in"),
    "a part's text a number": (user_item({"type": "input_text", "text": 5}), f"{PART}.text", "not a whole number"),
    "an image": (user_item({"type": "input_image", "image_url": "data:,"}), PART, "is of type input_image; this model"),
    "a sound": (user_item({"type": "input_audio"}), PART, "is of type input_audio; this model reads text only"),
    "a file by id": (user_item({"type": "input_file", "file_id": "file_1"}), PART, "contain its text in `file_data`"),
    "a file by URL": (user_item({"type": "input_file", "file_url": "http://x/"}), PART, "ids and URLs are not read"),
    "a file of no base64": (file("data:text/plain;base64,!!"), f"{PART}.file_data", "is not UTF-8 text"),
    "a file of no ASCII": (file("data:text/plain;base64,é"), f"{PART}.file_data", "is not UTF-8 text"),
    "a file of no text": (file("data:text/plain;base64,//8="), f"{PART}.file_data", "is not UTF-8 text"),
    "a file of no text, by percent": (file("data:,%ff"), f"{PART}.file_data", "is not UTF-8 text"),
    "a data URL without its comma": (file("data:text/plain"), f"{PART}.file_data", "is not UTF-8 text"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "param", "message"), BAD.values(), ids=BAD)
def test_decode_of_an_invalid_body_names_the_field(data: bytes, param: str | None, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(data)
    error = caught.value
    code = "json_too_deep" if message == NESTED else None
    assert (error.status, error.type, error.code, error.param) == (400, "invalid_request_error", code, param)
    assert message in error.message
    payload = {"message": error.message, "type": error.type, "param": param, "code": code}
    assert json.loads(error.body()) == {"error": payload}


GOOD: dict[str, bytes] = {
    "1e400 where nobody reads": raw(b'"zzz":1e400'),
    "whole numbers": body(temperature=0, top_p=1, min_p=0),
    "the bounds": body(temperature=2, top_p=1, top_k=0, min_p=1, seed=-(2**63), max_output_tokens=1),
    "more tokens than there are atoms": body(max_output_tokens=10**30),
    "a pair of surrogates": raw(b'"user":"x"', b'"\\ud83d\\ude00"'),
    "every field null": body(**dict.fromkeys(schema.KNOWN - {"model", "input"})),
    "model null": body(model=None),
    "as much metadata as may be": body(metadata={f"{n:064}": "x" * 512 for n in range(16)}),
    "unknown fields": body(tools=[{"type": "web_search"}], reasoning={"effort": "low"}, zzz=[[[{}]]]),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
def test_decode_of_a_valid_body_returns_its_messages(data: bytes) -> None:
    assert read(data).messages[-1].role == "user"


def test_unknown_fields_returns_the_names() -> None:
    assert fields.unknown_fields(body(zzz=1, temperature=1, functions=[], yyy=None), schema.KNOWN) == {
        "zzz",
        "functions",
    }
    assert fields.skipped_fields(body(zzz=1, temperature=1, max_tokens=None), schema.KNOWN) == {"zzz"}


def test_unknown_fields_returns_members_by_their_paths() -> None:
    found = body(reasoning={"effort": "low", "zzz": 1, "yyy": None}, text=None, stream_options={})
    assert fields.unknown_fields(found, schema.KNOWN, schema.MEMBERS) == {"reasoning.zzz"}


@pytest.mark.parametrize("name", fields.MOVED)
def test_field_of_chat_completions_is_refused_with_its_equivalent(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"`{name}` .* `{fields.MOVED[name]}`") as refused:
        fields.skipped_fields(body(**{name: 1}), schema.KNOWN)
    assert refused.value.param == name
    assert fields.MOVED[name].partition(".")[0] in schema.KNOWN


WORDS = [
    "type",
    "role",
    "content",
    "text",
    "message",
    "user",
    "input_text",
    "input_file",
    "file_data",
    "output",
    "data:,",
]
NAMES = st.sampled_from([*WORDS, *sorted(schema.KNOWN)]) | st.text(max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(NAMES, JSON, max_size=6), JSON)
def test_decode_of_any_json_returns_or_raises_invalid_request(fields: dict[str, Any], input_: Any) -> None:
    with suppress(InvalidRequest):
        read(json.dumps(fields | {"input": input_}).encode())


@given(st.binary(max_size=60))
def test_decode_of_any_bytes_returns_or_raises_invalid_request(data: bytes) -> None:
    with suppress(InvalidRequest):
        read(data)
