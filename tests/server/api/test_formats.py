"""`text.format` and `response_format` over the socket: enforced, echoed and described to the model."""

import json
from typing import Annotated, Any

import pydantic
import pytest
import trio

from engine.backends.scripted import ScriptedModel
from tests.support.helpers import NAME, Answer, encode, exchange, official_client, post, served

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Oslo"]}, "sunny": {"type": "boolean"}},
    "required": ["city", "sunny"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "name": "pick", "schema": SCHEMA}


CANNOT = "The schema in `text.format.schema` cannot be enforced{}."


def stubborn() -> ScriptedModel:
    """Return a script that prefers text outside the format."""
    return ScriptedModel(lambda message: b"Well, I would say Oslo.", n_ctx=8192)


async def ask(model: ScriptedModel, format_: dict[str, Any], **body: Any) -> Answer:
    async with served(model) as running:
        return await post(running, input="Where?", temperature=0, text={"format": format_}, **body)


@pytest.mark.parametrize("stream", [False, True])
async def test_schema_format_is_enforced_and_echoed(stream: bool) -> None:
    answer = await ask(stubborn(), FORMAT, stream=stream)
    response = answer.events[-1]["response"] if stream else answer.json
    parsed = json.loads(answer.text)
    assert (parsed["city"] in ("Paris", "Oslo"), parsed["sunny"] in (True, False), len(parsed)) == (True, True, 2)
    assert response["text"]["format"] == FORMAT | {"description": None, "strict": True}
    assert response["status"] == "completed"


async def test_schema_format_without_strict_is_enforced() -> None:
    answer = await ask(stubborn(), FORMAT | {"strict": False, "description": "Where to go"})
    assert answer.json["text"]["format"] == FORMAT | {"description": "Where to go", "strict": True}
    assert set(json.loads(answer.text)) == {"city", "sunny"}


async def test_json_object_format_is_enforced() -> None:
    answer = await ask(ScriptedModel(lambda message: b'{"a": [1]}'), {"type": "json_object"})
    assert (answer.text, answer.json["text"]) == ('{"a": [1]}', {"format": {"type": "json_object"}})


@pytest.mark.parametrize("text", [None, {}, {"format": None}, {"format": {"type": "text"}}])
async def test_text_format_leaves_output_unconstrained(text: Any) -> None:
    async with served(ScriptedModel(lambda message: b"So.")) as running:
        answer = await post(running, input="Where?", text=text)
    assert (answer.text, answer.json["text"]) == ("So.", {"format": {"type": "text"}})


async def test_formatted_answer_cut_by_limit_is_incomplete() -> None:
    answer = await ask(ScriptedModel(lambda message: b'{"city": "Oslo"}'), FORMAT, max_output_tokens=10)
    reason = {"reason": "max_output_tokens"}
    assert (answer.json["status"], answer.json["incomplete_details"]) == ("incomplete", reason)
    assert answer.text == '{"city": "'


@pytest.mark.parametrize(
    ("format_", "param", "message"),
    [
        (
            FORMAT | {"schema": {"type": "object", "properties": {"a": {"not": {"multipleOf": 3}}}}},
            "text.format.schema",
            CANNOT.format(
                ", at `properties.a.not`: the keyword `not` is not supported"
                " unless the negation of its schema can be written with supported keywords"
            ),
        ),
        (
            FORMAT | {"schema": {"type": "no-such-type"}},
            "text.format.schema",
            CANNOT.format(", at `type`: Invalid type: no-such-type"),
        ),
        (
            {"type": "json_schema", "schema": SCHEMA},
            "text.format",
            "`name` is missing in `text.format`.",
        ),
        ({"type": "xml"}, "text.format.type", "Invalid value 'xml' in `text.format.type`."),
    ],
)
async def test_unenforceable_format_is_rejected(format_: dict[str, Any], param: str, message: str) -> None:
    answer = await ask(stubborn(), format_)
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    assert (answer.status, answer.json["error"]) == (400, error)


@pytest.mark.slow
async def test_usage_counts_forced_tokens() -> None:
    schema = {"type": "object", "properties": {"key": {"const": "value"}}, "required": ["key"]}
    text = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    chat_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "Hi"}]
    async with served(stubborn(), metrics=True) as running:
        answer = (await post(running, input="Hi", text=text, temperature=0, max_output_tokens=200)).json
        body = encode(messages=messages, response_format=chat_format, temperature=0, max_tokens=200)
        chat = (await exchange(running, "POST", "/v1/chat/completions", body)).json
        free = (await post(running, input="Hi", max_output_tokens=3)).json
    forced = answer["usage"]["output_tokens_details"]["forced_tokens"]
    assert 0 < forced < answer["usage"]["output_tokens"]
    assert chat["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0, "forced_tokens": forced}
    assert free["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.slow
async def test_chat_response_format_is_enforced() -> None:
    schema_format = {"type": "json_schema", "json_schema": {"name": "pick", "schema": SCHEMA}}
    refused = {"type": "json_schema", "json_schema": {"name": "pick", "schema": {"not": {}}}}
    messages = [{"role": "user", "content": "Where?"}]
    async with served(stubborn()) as running:
        answers = [
            await exchange(running, "POST", "/v1/chat/completions", encode(messages=messages, response_format=each))
            for each in (schema_format, {"type": "text"}, refused)
        ]
    assert set(json.loads(answers[0].json["choices"][0]["message"]["content"])) == {"city", "sunny"}
    assert answers[1].json["choices"][0]["message"]["content"] == "Well, I would say Oslo."
    assert answers[2].json["error"]["param"] == "response_format.json_schema.schema"


async def test_format_note_follows_instructions() -> None:
    """The prompt therefore has an equal prefix with and without a format."""
    model = stubborn()
    async with served(model) as running:
        await post(running, input="Where?", instructions="Be brief.", text={"format": FORMAT}, max_output_tokens=1)
    prompt = bytes(token for chunk in model.decoded for token in chunk.tokens if token < 256)
    expected = f"Be brief.\n\nAnswer with JSON only, as this JSON schema says:\n{json.dumps(SCHEMA)}Where?"
    assert prompt == expected.encode()


class Pick(pydantic.BaseModel):
    city: str = pydantic.Field(pattern="^[A-Z][a-z]{2,6}$")
    days: int = pydantic.Field(ge=1, le=9)
    weather: "Weather"
    then: "Pick | None"


class Weather(pydantic.BaseModel):
    sunny: bool
    degrees: list[Annotated[int, pydantic.Field(ge=-60, le=60)]] = pydantic.Field(min_length=1, max_length=2)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_formatted_answer_is_parsed_by_official_client(temperature: float) -> None:
    def parse(url: str) -> Pick | None:
        with official_client(url) as client:
            return client.responses.parse(
                model=NAME, input="Where?", text_format=Pick, temperature=temperature, extra_body={"seed": 3}
            ).output_parsed

    async with served(stubborn()) as running:
        picked = await trio.to_thread.run_sync(parse, running.url)
    assert isinstance(picked, Pick)
