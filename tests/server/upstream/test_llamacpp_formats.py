"""Tools, formats and reasoning with a real model behind a front: SmolLM2 in llama.cpp's server, with chat templates
whose formats that server parses."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.server.upstream.test_llamacpp_servers import llamacpp
from tests.support import wire
from tests.support.helpers import NAME, post
from tests.support.processes import Daemon, serving

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

ENFORCED = """\
{#- llama.cpp recognizes the format of functionary v3.2 by >>>all and >>>${recipient} in this text. -#}
{%- macro head(role) %}<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro %}
{%- if tools %}{{ head('system') }}Functions: {{ tools | tojson }}<|eot_id|>{% endif %}
{%- for message in messages %}{{ head(message.role) }}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}>>>{{ call.function.name }}
{{ call.function.arguments }}{% endfor %}<|eot_id|>{% endfor %}
{%- if add_generation_prompt %}{{ head('assistant') }}>>>{{ '' if tools else 'all\\n' }}{% endif %}"""
"""Template with calls whose arguments llama.cpp's server holds to their schema."""
LOOSE = """\
{#- llama.cpp recognizes the format of Gemma 4 by '<|tool_call>call:' in this text. -#}
{%- if tools %}<|turn>system
Functions: {{ tools | tojson }}<turn|>
{% endif %}
{%- for message in messages %}<|turn>{{ message.role }}
{{ message.content or '' }}<turn|>
{% endfor %}
{%- if add_generation_prompt %}<|turn>model
{% endif %}"""
"""Template with calls whose arguments llama.cpp's server does not hold to their schema."""
THINKS = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>
{% endif %}{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{{ '<think>\\n' if enable_thinking is not defined or enable_thinking else '<think>\\n\\n</think>\\n' }}{% endif %}"""
TEMPLATES = {"enforced": ENFORCED, "loose": LOOSE, "thinks": THINKS}

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SUM = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TIME = {"type": "function", "name": "get_time", "description": "The time in a city", "parameters": CITY, "strict": True}
ADD = {"type": "function", "name": "add", "description": "Add two numbers", "parameters": SUM, "strict": True}
WRITE = {"type": "custom", "name": "write", "description": "Write a text"}
ASKED: dict[str, Any] = {"model": NAME, "input": "What time is it in Paris?", "temperature": 0, "max_output_tokens": 80}
MUST: dict[str, Any] = ASKED | {"tool_choice": "required"}
FEW = {"max_output_tokens": 24}
"""Limit of answers whose end shows nothing."""
TWO = {"max_output_tokens": 40}
"""Limit of answers that repeat a call of 17 tokens to the end."""


@pytest.fixture(scope="module")
def front_with(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Daemon]]:
    """Return a function that starts the front with a template at its first use, and returns it."""
    with ExitStack() as stack:

        @cache
        def start(name: str) -> Daemon:
            folder = tmp_path_factory.mktemp(name)
            (folder / "template.jinja").write_text(TEMPLATES[name])
            flags = ("--chat-template", str(folder / "template.jinja"), "--reasoning-budget", "24")
            url, _ = stack.enter_context(llamacpp(smollm2, folder / "llama.log", *flags))
            return stack.enter_context(serving(folder, "--upstream", url, "--alias", NAME))

        yield start


async def both_ways(front: Daemon, **body: Any) -> list[dict[str, Any]]:
    """Return the responses of a request with and without a stream."""
    streamed = (await post(front, stream=True, **body)).events[-1]["response"]
    whole = (await post(front, **body)).json
    wire.check_response(whole)
    return [streamed, whole]


def calls(response: dict[str, Any], kind: str = "function_call") -> list[dict[str, Any]]:
    assert {item["type"] for item in response["output"]} == {kind}
    return list(response["output"])


async def test_call_of_a_strict_tool_has_its_arguments(front_with: Callable[[str], Daemon]) -> None:
    for response in await both_ways(front_with("enforced"), tools=[TIME], **MUST):
        called = calls(response)[0]
        assert (called["name"], called["status"], response["tools"][0]["strict"]) == ("get_time", "completed", True)
        arguments = json.loads(called["arguments"])
        assert (list(arguments), isinstance(arguments["city"], str)) == (["city"], True)


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "add"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]},
    ],
)
async def test_chosen_tool_is_called(front_with: Callable[[str], Daemon], choice: dict[str, Any]) -> None:
    body = MUST | TWO | {"tool_choice": choice}
    for response in await both_ways(front_with("enforced"), tools=[TIME, ADD], **body):
        called = calls(response)
        assert len({each["call_id"] for each in called}) == len(called)
        assert {each["name"] for each in called} == {"add"}
        arguments = json.loads(called[0]["arguments"])
        assert {name: type(value) for name, value in arguments.items()} == {"a": int, "b": int}


async def test_custom_tool_gets_text(front_with: Callable[[str], Daemon]) -> None:
    for response in await both_ways(front_with("enforced"), tools=[WRITE], **MUST | FEW):
        called = calls(response, "custom_tool_call")[0]
        assert (called["name"], bool(called["input"]), called["input"].startswith("{")) == ("write", True, False)


async def test_tool_of_a_namespace_is_called_by_its_name(front_with: Callable[[str], Daemon]) -> None:
    namespace = {"type": "namespace", "name": "clock", "description": "Clocks", "tools": [TIME]}
    for response in await both_ways(front_with("enforced"), tools=[namespace], **MUST):
        called = calls(response)[0]
        assert (called["namespace"], called["name"]) == ("clock", "get_time")


async def test_shell_gets_commands(front_with: Callable[[str], Daemon]) -> None:
    for response in await both_ways(front_with("enforced"), tools=[{"type": "shell"}], **MUST):
        assert all(isinstance(each, str) for each in calls(response, "shell_call")[0]["action"]["commands"])


async def test_output_of_a_call_goes_back_to_the_model(front_with: Callable[[str], Daemon]) -> None:
    first = (await post(front_with("enforced"), tools=[TIME], **MUST)).json
    call_id = calls(first)[0]["call_id"]
    output = {"type": "function_call_output", "call_id": call_id, "output": "Twelve o'clock"}
    body = (
        ASKED | {"input": [output], "previous_response_id": first["id"], "tools": [TIME], "tool_choice": "none"} | FEW
    )
    for response in await both_ways(front_with("enforced"), **body):
        assert [item["type"] for item in response["output"]] == ["message"]
        assert response["usage"]["input_tokens"] > 60, "the prompt has the call and its output"


async def test_calls_of_one_answer_are_one_item_each(front_with: Callable[[str], Daemon]) -> None:
    tick = {"type": "function", "name": "tick", "description": "Tick", "strict": False}
    for response in await both_ways(front_with("loose"), tools=[tick], **MUST | FEW):
        called = calls(response)
        assert len({each["call_id"] for each in called}) == len(called)
    for response in await both_ways(front_with("loose"), tools=[tick], parallel_tool_calls=False, **MUST | FEW):
        assert len(calls(response)) == 1


async def test_arguments_that_break_a_strict_schema_fail(front_with: Callable[[str], Daemon]) -> None:
    """llama.cpp's server lets the model write any value as the city; SmolLM2 writes a number."""
    body = MUST | {"tools": [TIME]}
    response = (await post(front_with("loose"), stream=True, **body)).events[-1]["response"]
    refused = await post(front_with("loose"), **body)
    assert (response["status"], response["responsed"]["fault"]) == ("failed", "output_mismatch")
    assert (refused.status, refused.json["error"]["code"]) == (502, "output_mismatch")


async def test_reasoning_comes_before_a_strict_format(front_with: Callable[[str], Daemon]) -> None:
    format_ = {"type": "json_schema", "name": "time", "schema": SUM, "strict": True}
    for response in await both_ways(front_with("thinks"), text={"format": format_}, **ASKED):
        reasoning, message = response["output"]
        assert (reasoning["type"], bool(reasoning["content"][0]["text"])) == ("reasoning", True)
        if response["status"] == "completed":
            assert json.loads(message["content"][0]["text"]).keys() == {"a", "b"}
        assert 0 < response["usage"]["output_tokens_details"]["reasoning_tokens"] <= 24


async def test_effort_none_turns_reasoning_off(front_with: Callable[[str], Daemon]) -> None:
    for response in await both_ways(front_with("thinks"), reasoning={"effort": "none"}, **ASKED | FEW):
        assert [item["type"] for item in response["output"]] == ["message"]
        assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 0


async def test_sealed_reasoning_goes_back_to_the_model(front_with: Callable[[str], Daemon]) -> None:
    fields: dict[str, Any] = {"store": False, "include": ["reasoning.encrypted_content"]}
    format_ = {"type": "json_object"}
    first = (
        await post(front_with("thinks"), text={"format": format_}, **ASKED | fields | {"max_output_tokens": 40})
    ).json
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    more = {"role": "user", "content": "And in Rome?"}
    counts = []
    for past in (first["output"], first["output"][1:]):
        again = await post(front_with("thinks"), **ASKED | fields | {"input": [*past, more], "max_output_tokens": 1})
        counts.append(again.json["usage"]["input_tokens"])
    assert counts[0] > counts[1]
