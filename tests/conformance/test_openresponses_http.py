"""HTTP cases of Open Responses' compliance suite, each under its name (openresponses, `compliance-tests.ts`).

The server has its default flags, and the requests have the suite's headers: those of Bun's `fetch`.

The suite of 17 has ten of these. Older versions have others, which are here too: `tool-calling-streaming`,
`function-call-roundtrip`, `file-input` and `previous-response-id`. `file-search` and `offline-web-search` need tools
of OpenAI's own servers; the suite skips them unless they are switched on.
"""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.test_reasoning import THINKS
from tests.server.api.tools.test_tools import HERMES
from tests.server.upstream.fronts import Served
from tests.support import wire
from tests.support.helpers import (
    NAME,
    Answer,
    Running,
    encode,
    exchange,
    get,
    prompt_text,
    text,
    types,
)

AGENT = "Bun/1.4.5"
CALL = b'<tool_call>\n{"name": "get_weather", "arguments": {"location": "San Francisco, CA"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
PHASES = [
    {"type": "message", "role": "assistant", "phase": "commentary", "content": "I should answer with the number."},
    {"type": "message", "role": "assistant", "phase": "final_answer", "content": "The number is four."},
]
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


@asynccontextmanager
async def thinking_or_not(
    served: Served, thinks: bool, answer: bytes = b"Hello there, friend."
) -> AsyncIterator[Running]:
    """Serve a model that thinks or does not. Open Responses has names of its own for the events of reasoning."""
    if thinks:
        model = ScriptedModel(lambda message: b"<think>\nHm.\n</think>\n\n" + answer)
        async with served(model, template=THINKS) as running:
            yield running
    else:
        async with served(ScriptedModel(lambda message: answer)) as running:
            yield running


async def post(running: Running, path: str = "/v1/responses", **body: Any) -> Answer:
    return await exchange(running, "POST", path, encode(**body), f"User-Agent: {AGENT}")


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


@pytest.mark.slow
@both
async def test_basic_response(served: Served, thinks: bool) -> None:
    async with thinking_or_not(served, thinks) as running:
        check(await post(running, model=NAME, input=[message("user", "Say hello in exactly 3 words.")], stream=False))


@pytest.mark.slow
@both
async def test_streaming_response(served: Served, thinks: bool) -> None:
    async with thinking_or_not(served, thinks) as running:
        answer = await post(running, model=NAME, input=[message("user", "Count from 1 to 5.")], stream=True)
    events = wire.open_responses_events(answer.body)
    assert (b"event: response.reasoning.delta" in answer.body) is thinks
    assert events[-1]["response"]["status"] == "completed"


@both
async def test_system_prompt(served: Served, thinks: bool) -> None:
    pirate = message("system", "You are a pirate. Always respond in pirate speak.")
    async with thinking_or_not(served, thinks) as running:
        check(await post(running, model=NAME, input=[pirate, message("user", "Say hello.")], stream=False))


@pytest.mark.slow
async def test_tool_calling(served: Served) -> None:
    question = message("user", "What's the weather like in San Francisco?")
    async with served(ScriptedModel(lambda message: CALL), template=HERMES) as running:
        response = check(await post(running, model=NAME, input=[question], tools=[WEATHER], stream=False))
    assert "function_call" in [item["type"] for item in response["output"]]


async def test_image_input_says_that_the_model_reads_text_only(served: Served) -> None:
    """This case fails here: a text model cannot see, and an answer that hides this would be a lie."""
    parts = [{"type": "input_text", "text": "What do you see?"}, {"type": "input_image", "image_url": PNG}]
    async with thinking_or_not(served, False) as running:
        answer = await post(running, model=NAME, input=[message("user", parts)], stream=False)
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (400, "input[0].content[1]")
    assert "image" in error["message"]


@both
async def test_multi_turn(served: Served, thinks: bool) -> None:
    turns = [
        message("user", "My name is Alice."),
        message("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
        message("user", "What is my name?"),
    ]
    async with thinking_or_not(served, thinks) as running:
        check(await post(running, model=NAME, input=turns, stream=False))


@both
async def test_assistant_phase(served: Served, thinks: bool) -> None:
    async with thinking_or_not(served, thinks) as running:
        answer = await post(running, model=NAME, input=[*PHASES, message("user", "Repeat the number.")], stream=False)
    assert "responsed" not in check(answer), "a phase is part of the history"


async def test_response_output_phase_schema(served: Served, tmp_path: Path) -> None:
    """The suite checks a fixture of its own by its schema. Here the phases come back from the store."""
    async with served(ScriptedModel(lambda message: b"Four."), state=tmp_path) as running:
        answer = check(await post(running, model=NAME, input=[*PHASES, message("user", "And?")], stream=False))
        items = (await get(running, f"/v1/responses/{answer['id']}/input_items?order=asc")).json["data"]
    assert [item.get("phase") for item in items] == ["commentary", "final_answer", None]
    labelled = [each | {"status": "completed"} for each in items[:2]]
    wire.check_response(answer | {"output": [*labelled, *answer["output"]]})


@both
async def test_compact_response(served: Served, thinks: bool) -> None:
    turns = [
        message("user", "We agreed to launch on Tuesday and notify support first."),
        message("assistant", "Understood. The launch is Tuesday, with support notified beforehand."),
    ]
    async with thinking_or_not(served, thinks) as running:
        key = "openresponses-compact-test"
        answer = await post(running, "/v1/responses/compact", prompt_cache_key=key, input=turns)
    assert (answer.status, answer.json["object"]) == (200, "response.compaction")
    wire.check_against("CompactResource", answer.json, "the compacted conversation")
    assert "compaction" in [item["type"] for item in answer.json["output"]]


@pytest.mark.parametrize("model", [{}, {"model": None}], ids=["missing", "null"])
async def test_compact_missing_model(served: Served, model: dict[str, None]) -> None:
    body = msgspec.json.encode(model | {"input": [message("user", "Compact this conversation.")]})
    async with thinking_or_not(served, False) as running:
        answer = await exchange(running, "POST", "/v1/responses/compact", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")


@pytest.mark.slow
async def test_tool_calling_streaming(served: Served) -> None:
    question = message("user", "What's the weather like in San Francisco?")
    async with served(ScriptedModel(lambda message: CALL), template=HERMES) as running:
        answer = await post(running, model=NAME, input=[question], tools=[WEATHER], stream=True)
    calls = [event["type"] for event in answer.events if event.get("item", {}).get("type") == "function_call"]
    assert calls == ["response.output_item.added", "response.output_item.done"]
    kinds = set(types(answer.events))
    assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds


@pytest.mark.slow
async def test_function_call_roundtrip(served: Served) -> None:
    model = ScriptedModel(lambda message: b"It is 18 degrees." if b"temperature_c" in message else CALL)
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    async with served(model, template=HERMES) as running:
        question = "Use the weather tool to get the temperature in San Francisco."
        first = check(await post(running, model=NAME, input=question, stream=False, **asked))
        call = first["output"][0]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"temperature_c": 18}'}
        history = [message("user", question), call, output]
        second = check(await post(running, model=NAME, input=history, tools=[WEATHER], stream=False))
    assert (call["name"], text(second)) == ("get_weather", "It is 18 degrees.")


@both
async def test_file_input(served: Served, thinks: bool) -> None:
    """The suite's file is a PDF without compression, which is text."""
    pdf = b"%PDF-1.1\n4 0 obj\nstream\n(Title: OpenResponses File Input Fixture) Tj\nendstream\nendobj\n%%EOF"
    data = f"data:application/pdf;base64,{base64.b64encode(pdf).decode()}"
    file = {"type": "input_file", "filename": "openresponses-fixture.pdf", "file_data": data}
    parts = [{"type": "input_text", "text": "Read the attached file and answer with its title only."}, file]
    async with thinking_or_not(served, thinks) as running:
        answer = await post(running, model=NAME, input=[message("user", parts)], stream=False)
        prompt = prompt_text(running.model)
    assert "responsed" not in check(answer)
    assert "Title: OpenResponses File Input Fixture" in prompt


async def test_previous_response_id(served: Served, tmp_path: Path) -> None:
    model = ScriptedModel(lambda message: b"papaya" if b"What code word" in message else b"OK")
    async with served(model, state=tmp_path) as running:
        remember = "Remember this code word: papaya. Reply with only OK."
        first = check(await post(running, model=NAME, input=remember, stream=False))
        question = "What code word did I ask you to remember?"
        answer = await post(running, model=NAME, input=question, previous_response_id=first["id"], stream=False)
        prompt = prompt_text(running.model)
    assert text(check(answer)) == "papaya"
    assert prompt.index("Remember this code word") < prompt.index("What code word")
