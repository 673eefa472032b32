"""Calls that hold by construction: SmolLM2 on both engines, over a socket, read by the official client.

The tests and their cases are in an order in which prompts share much with the one before, also with a single slot.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from openai.types.responses import Response

from tests.support import wire
from tests.support.helpers import official_client
from tests.support.processes import Daemon, serving

pytestmark = pytest.mark.slow

MODEL = "smollm2"
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TIME: dict[str, Any] = {
    "type": "object",
    "properties": {
        "hours": {"type": "integer", "minimum": 0, "maximum": 24},
        "zone": {"type": "string", "pattern": "^[A-Z]{3}$"},
    },
    "required": ["zone"],
}
SCHEMAS = {"get_weather": WEATHER, "get_time": TIME}
TOOLS = [
    {"type": "function", "name": "get_weather", "description": "The weather.", "parameters": WEATHER, "strict": True},
    {"type": "function", "name": "get_time", "description": "What time it is.", "parameters": TIME, "strict": False},
]
INPUTS = {"dial": "[0-9]{3}-[0-9]{4}", "add": r"[0-9]{1,3}( \+ [0-9]{1,3}){0,3}"}
SUM = 'start: NUMBER (" + " NUMBER){0,3}\nNUMBER: /[0-9]{1,3}/'
DIAL, ADD = (
    {"type": "custom", "name": name, "format": {"type": "grammar", "syntax": syntax, "definition": definition}}
    for name, syntax, definition in (("dial", "regex", INPUTS["dial"]), ("add", "lark", SUM))
)
PICK: dict[str, Any] = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
FORMAT = {"format": {"type": "json_schema", "name": "pick", "schema": PICK | {"additionalProperties": False}}}
SAID = "How is the weather in Oslo, and what time is it there?"
HOT = {"temperature": 1.3, "top_p": 1, "max_output_tokens": 400}

only_time = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]}
CASES: dict[str, tuple[dict[str, Any], set[str], int]] = {
    "one of several": (
        {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}, {"get_weather", "get_time"}, 1,
    ),
    "required": ({"tools": TOOLS, "tool_choice": "required"}, {"get_weather", "get_time"}, 16),
    "by name": ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "get_weather"}}, {"get_weather"}, 1),
    "whatever the format": (
        {"tools": TOOLS, "tool_choice": {"type": "function", "name": "get_time"}, "text": FORMAT}, {"get_time"}, 1,
    ),
    "of those allowed": ({"tools": TOOLS, "tool_choice": only_time}, {"get_time"}, 16),
    "a regex": ({"tools": [DIAL], "tool_choice": {"type": "custom", "name": "dial"}}, {"dial"}, 1),
    "a grammar": ({"tools": [ADD, DIAL], "tool_choice": {"type": "custom", "name": "add"}}, {"add"}, 1),
}  # fmt: skip
"""Name -> fields of the request, allowed functions, and most calls."""
STOPS = {"stop": [",", "city", "\n", "<tool_call>"]}
STOPPED = ("required", "by name", "a regex")
CALLS = [(case, stop) for case in CASES for stop in ({}, STOPS) if not stop or case in STOPPED]


@pytest.fixture(scope="module", params=["llamacpp", "ctransformers"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running(engine: str, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    flags = ["--model", str(smollm2), "--alias", MODEL, "--engine", engine, "--context", "2048"]
    with serving(tmp_path_factory.mktemp("held"), *flags) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(running: Daemon) -> Iterator[openai.OpenAI]:
    with official_client(running.url) as client:
        yield client


def streams(engine: str, number: int) -> bool:
    """True if this request is to be streamed: every second one of an engine, which is not streamed at the other."""
    return (number + (engine == "llamacpp")) % 2 == 0


def asked(client: openai.OpenAI, stream: bool, seed: int, **fields: Any) -> Response:
    """Return the response; of a stream, the last event's: the client's own helper accepts no end but `completed`."""
    fields = {"model": MODEL, "input": SAID, "extra_body": {"seed": seed}, **HOT, **fields}
    if not stream:
        made: Response = client.responses.create(**fields)
        return made
    with client.responses.stream(**fields) as events:
        last = list(events)[-1]
    assert last.type in ("response.completed", "response.incomplete")
    return last.response


def check(response: Response, names: set[str], most: int) -> int:
    """Check that the output consists of valid calls of these functions, and return the number of complete ones."""
    wire.check_response(json.loads(response.to_json()))
    whole = [item for item in response.output if item.status == "completed"]  # type: ignore[union-attr]  # all have one
    assert len(whole) >= len(response.output) - (response.status == "incomplete")
    assert 1 <= len(response.output) <= most or response.status == "incomplete"
    for item in whole:
        assert item.type in ("function_call", "custom_tool_call")
        assert item.name in names
        if item.type == "function_call":
            jsonschema.validate(json.loads(item.arguments), SCHEMAS[item.name])
        else:
            assert re.fullmatch(INPUTS[item.name], item.input), item.input
    return len(whole)


EXAMPLE = 'Repeat after me: <tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
"""Six of ten times, it does."""


def test_call_by_choice_is_valid(client: openai.OpenAI) -> None:
    """A call is enforced once it begins, including `unit`, which the prompt's example lacks."""
    came = 0
    for seed in range(8):
        response = asked(client, False, seed, input=EXAMPLE, tools=TOOLS, temperature=0.4, max_output_tokens=48)
        calls = [item for item in response.output if item.type == "function_call" and item.status == "completed"]
        for item in calls:
            jsonschema.validate(json.loads(item.arguments), SCHEMAS[item.name])
        came += len(calls)
    assert came > 0


CHAT = [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} for tool in TOOLS]


def test_call_in_chat_completions_is_valid(client: openai.OpenAI) -> None:
    """A call of either function is demanded of an answer, and a certain one of a stream."""
    messages: Any = [{"role": "user", "content": SAID}]
    fields: Any = {"model": MODEL, "messages": messages, "tools": CHAT, "temperature": 1.3, "max_tokens": 400}
    completion = client.chat.completions.create(**fields, tool_choice="required", parallel_tool_calls=False)
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    with client.chat.completions.stream(**fields, tool_choice=named, parallel_tool_calls=False) as events:
        streamed = events.get_final_completion()
    for choice in (*completion.choices, *streamed.choices):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    assert call.function.name == "get_weather"


@pytest.mark.parametrize(("case", "stop"), CALLS, ids=[case + ", stop" * bool(stop) for case, stop in CALLS])
def test_demanded_call_is_made_and_valid(client: openai.OpenAI, engine: str, case: str, stop: dict[str, Any]) -> None:
    """Stop strings cut no demanded call."""
    fields, names, most = CASES[case]
    stream = not stop and streams(engine, list(CASES).index(case))
    seed = 5 if stop else len(case)
    assert check(asked(client, stream, seed, **fields, extra_body={"seed": seed, **stop}), names, most) > 0


def test_format_beside_tools_gives_valid_call_or_json(client: openai.OpenAI, engine: str) -> None:
    response = asked(client, streams(engine, 0), 3, tools=TOOLS, text=FORMAT)
    if response.output_text:
        jsonschema.validate(json.loads(response.output_text), PICK)
    else:
        check(response, set(SCHEMAS), 16)


def test_stop_string_ends_a_formatted_answer(client: openai.OpenAI, engine: str) -> None:
    response = asked(client, streams(engine, 1), 5, text=FORMAT, extra_body={"stop": [":"], "seed": 5})
    assert (response.status, response.incomplete_details) == ("incomplete", None)
    assert response.output_text.startswith('{"')
    assert ":" not in response.output_text
    assert response.model_extra == {**(response.model_extra or {}), "responsed": {"stop": ":"}}
