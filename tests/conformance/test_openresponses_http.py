"""HTTP cases of Open Responses' compliance suite, each under its name (openresponses, `compliance-tests.ts`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.test_reasoning import THINKS
from tests.server.api.tools.test_tools import HERMES
from tests.support import wire
from tests.support.helpers import NAME, Answer, Running, encode, exchange, post, served

CALL = b'<tool_call>\n{"name": "get_weather", "arguments": {"location": "San Francisco, CA"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


@asynccontextmanager
async def thinking_or_not(thinks: bool, answer: bytes = b"Hello there, friend.") -> AsyncIterator[Running]:
    """Serve a model that thinks or does not. Open Responses has names of its own for the events of reasoning."""
    if thinks:
        model = ScriptedModel(lambda message: b"<think>\nHm.\n</think>\n\n" + answer)
        async with served(model, template=THINKS, reasoning_events="open-responses") as running:
            yield running
    else:
        async with served(ScriptedModel(lambda message: answer)) as running:
            yield running


def message(role: str, content: object) -> dict[str, object]:
    return {"type": "message", "role": role, "content": content}


def check(answer: Answer) -> dict[str, Any]:
    """Check what all cases ask for: a valid response that is complete and has an output."""
    assert answer.status == 200, answer.body
    wire.check_response(answer.json)
    assert (answer.json["status"], bool(answer.json["output"])) == ("completed", True)
    found: dict[str, Any] = answer.json
    return found


both = pytest.mark.parametrize("thinks", [False, True], ids=["plain", "thinking"])


@both
async def test_basic_response(thinks: bool) -> None:
    async with thinking_or_not(thinks) as running:
        check(await post(running, model=NAME, input=[message("user", "Say hello in exactly 3 words.")], stream=False))


@both
async def test_streaming_response(thinks: bool) -> None:
    async with thinking_or_not(thinks) as running:
        answer = await post(running, model=NAME, input=[message("user", "Count from 1 to 5.")], stream=True)
    events = wire.open_responses_events(answer.body) if thinks else answer.events
    assert events[-1]["response"]["status"] == "completed"


@both
async def test_system_prompt(thinks: bool) -> None:
    pirate = message("system", "You are a pirate. Always respond in pirate speak.")
    async with thinking_or_not(thinks) as running:
        check(await post(running, model=NAME, input=[pirate, message("user", "Say hello.")], stream=False))


async def test_tool_calling() -> None:
    question = message("user", "What's the weather like in San Francisco?")
    async with served(ScriptedModel(lambda message: CALL), template=HERMES) as running:
        response = check(await post(running, model=NAME, input=[question], tools=[WEATHER], stream=False))
    assert "function_call" in [item["type"] for item in response["output"]]


async def test_image_input_says_that_the_model_reads_text_only() -> None:
    """This case fails here: a text model cannot see, and an answer that hides this would be a lie."""
    parts = [{"type": "input_text", "text": "What do you see?"}, {"type": "input_image", "image_url": PNG}]
    async with thinking_or_not(False) as running:
        answer = await post(running, model=NAME, input=[message("user", parts)], stream=False)
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (400, "input[0].content[1]")
    assert "image" in error["message"]


@both
async def test_multi_turn(thinks: bool) -> None:
    turns = [
        message("user", "My name is Alice."),
        message("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
        message("user", "What is my name?"),
    ]
    async with thinking_or_not(thinks) as running:
        check(await post(running, model=NAME, input=turns, stream=False))


async def test_compaction_without_a_model_is_refused() -> None:
    async with thinking_or_not(False) as running:
        answer = await exchange(running, "POST", "/v1/responses/compact", encode(model=None, input="Hello"))
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")
