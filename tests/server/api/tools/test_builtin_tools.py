"""Built-in tools that the client executes: functions for the model, items of their own for the client."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from tests.server.api.tools.test_tools import HERMES, WEATHER, call, output, writes
from tests.support.helpers import Answer, Client, PacedModel, encode, post, prompt_text, served

SHELL = {"type": "shell", "environment": {"type": "local"}}
LOCAL_SHELL = {"type": "local_shell"}
APPLY_PATCH = {"type": "apply_patch"}
TOOL_SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools.",
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]},
}
ALL = [SHELL, LOCAL_SHELL, APPLY_PATCH, TOOL_SEARCH]


async def asked(name: str, arguments: dict[str, Any], **fields: Any) -> Answer:
    """Return the answer of a model that calls the function."""
    async with served(writes(call(name, json.dumps(arguments))), template=HERMES) as running:
        return await post(running, stream=True, **{"input": "Do it.", "tools": ALL, **fields})


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


CALLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("shell", {"commands": ["ls", "cd x\nls 'é'"], "timeout_ms": 9},
     {"type": "shell_call", "status": "completed", "environment": {"type": "local"},
      "action": {"commands": ["ls", "cd x\nls 'é'"], "timeout_ms": 9}}),
    ("local_shell", {"command": ["ls", "-l"], "working_directory": "/x"},
     {"type": "local_shell_call", "status": "completed",
      "action": {"type": "exec", "command": ["ls", "-l"], "env": {}, "timeout_ms": None, "user": None,
                 "working_directory": "/x"}}),
    ("apply_patch", {"type": "update_file", "path": "a.py", "diff": "@@\n-a\n+b"},
     {"type": "apply_patch_call", "status": "completed",
      "operation": {"type": "update_file", "path": "a.py", "diff": "@@\n-a\n+b"}}),
    ("apply_patch", {"type": "create_file", "path": "a.py", "diff": ""},
     {"type": "apply_patch_call", "status": "completed",
      "operation": {"type": "create_file", "path": "a.py", "diff": ""}}),
    ("apply_patch", {"type": "delete_file", "path": "a.py", "diff": ""},
     {"type": "apply_patch_call", "status": "completed", "operation": {"type": "delete_file", "path": "a.py"}}),
    ("tool_search", {"q": "mail"},
     {"type": "tool_search_call", "status": "completed", "execution": "client", "arguments": {"q": "mail"}}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "item"), CALLS)
@pytest.mark.parametrize("chooses", [False, True])
async def test_call_of_builtin_tool_is_an_item_of_its_type(
    name: str, arguments: dict[str, Any], item: dict[str, Any], chooses: bool
) -> None:
    choice: Any = {"type": name} if chooses else "required"
    answer = await asked(name, arguments, tool_choice=choice)
    response = answer.events[-1]["response"]
    if chooses and name in ("local_shell", "tool_search"):
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": name}]}
    assert [without_ids(each) for each in output(answer)] == [item]
    assert (response["tools"], response["tool_choice"]) == (ALL, choice)


@pytest.mark.slow
async def test_commands_of_shell_stream_one_after_another() -> None:
    answer = await asked("shell", {"commands": ["ls", "", "pwd"]})
    commands = [event for event in answer.events if "shell_call_command" in event["type"]]
    assert "".join(event["delta"] for event in commands if event["type"].endswith("delta")) == "lspwd"
    assert [(event["command_index"], event["command"]) for event in commands if event["type"].endswith("done")] == [
        (0, "ls"),
        (1, ""),
        (2, "pwd"),
    ]


@pytest.mark.parametrize(("name", "arguments"), [each[:2] for each in CALLS])
@pytest.mark.slow
async def test_call_cut_by_limit_ends_the_response_incomplete(name: str, arguments: dict[str, Any]) -> None:
    async with served(writes(call(name, json.dumps(arguments))), template=HERMES) as running:
        ends = set()
        for limit in range(20, 110, 3):
            answer = await post(running, input="Do it.", tools=ALL, max_output_tokens=limit, stream=True)
            last = answer.events[-1]
            if last["type"] == "response.incomplete":
                calls = [item for item in output(answer) if item["type"] != "message"]
                assert all(item["status"] == "completed" for item in calls[:-1])
                ends |= {item["status"] for item in calls[-1:]}
    assert ends <= {"completed", "in_progress" if name == "apply_patch" else "incomplete"}


@pytest.mark.slow
async def test_stream_has_comments_while_a_patch_is_written() -> None:
    """A patch has no events until it is complete."""
    arguments = json.dumps({"type": "create_file", "path": "a", "diff": "+a" * 60})
    model = PacedModel(lambda message: call("apply_patch", arguments).encode(), n_ctx=1 << 14)
    async with served(model, template=HERMES, heartbeat_seconds=0.05) as running, await Client.to(running) as client:
        model.hold()
        await client.request("POST", "/v1/responses", encode(input="Do it.", tools=ALL, stream=True))
        model.allow(150)  # steps: the prompt, and the beginning of the call
        await client.read_past(b"response.output_item.added")
        await client.read_past(b": still here")
        model.go()
        await client.read_past(b"response.completed")


@pytest.mark.slow
async def test_stream_has_no_comments_while_commands_are_written() -> None:
    """Commands of a shell stream, so that their stream shows by itself that it lives."""
    arguments = json.dumps({"commands": ["ls " * 40]})
    model = PacedModel(lambda message: call("shell", arguments).encode(), n_ctx=1 << 14)
    async with served(model, template=HERMES, heartbeat_seconds=0.05) as running, await Client.to(running) as client:
        model.hold()
        await client.request("POST", "/v1/responses", encode(input="Do it.", tools=ALL, stream=True))
        model.allow(150)
        await model.wait_begun(151)
        await trio.sleep(0.2)
        model.go()
        answer = await client.answer("POST")
    assert b": still here" not in answer.body[answer.body.index(b"response.shell_call_command.added") :]


HOSTED: list[tuple[dict[str, Any], str]] = [
    ({"type": "shell", "environment": {"type": "container_auto"}}, "tool shell"),
    ({"type": "tool_search"}, "tool tool_search"),
    ({"type": "tool_search", "execution": "server"}, "tool tool_search"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("tool", "skipped"), HOSTED)
async def test_builtin_tool_that_openai_executes_is_skipped(tool: dict[str, Any], skipped: str) -> None:
    response = (await asked("get_weather", {"city": "Rome"}, tools=[tool, WEATHER])).events[-1]["response"]
    assert (response["tools"], response["responsed"]["skipped"]) == ([WEATHER | {"strict": True}], [skipped])


REFUSED: list[tuple[list[Any], Any, str]] = [
    ([WEATHER], {"type": "shell"}, "tool_choice"),
    ([SHELL, {"type": "function", "name": "shell"}], "auto", "tools[1].name"),
    ([SHELL, SHELL], "auto", "tools[1].name"),
    ([TOOL_SEARCH | {"parameters": []}], "auto", "tools[0].parameters"),
    ([WEATHER], {"type": "web_search_preview"}, "tool_choice.type"),
]


@pytest.mark.parametrize(("tools", "choice", "param"), REFUSED)
async def test_wrong_builtin_tool_or_choice_is_rejected(tools: Sequence[Any], choice: Any, param: str) -> None:
    answer = await asked("shell", {}, tools=tools, tool_choice=choice)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.slow
async def test_allowed_tools_restrict_builtin_tools() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "apply_patch"}]}
    answer = await asked("apply_patch", {"type": "delete_file", "path": "x", "diff": ""}, tool_choice=choice)
    assert [item["type"] for item in output(answer)] == ["apply_patch_call"]
    assert answer.events[-1]["response"]["tool_choice"] == choice


@pytest.mark.slow
async def test_replayed_call_looks_as_the_model_wrote_it() -> None:
    async with served(writes(call("shell", '{"commands": ["ls"]}')), template=HERMES) as running:
        first = await post(running, input="Do it.", tools=ALL)
        (item,) = first.json["output"]
        result = {"stdout": "x.py\n", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
        outcome = {"type": "shell_call_output", "call_id": item["call_id"], "output": [result]}
        await post(running, input=[{"role": "user", "content": "Do it."}, item, outcome], tools=ALL)
        prompt = prompt_text(running.model)
    assert 'Do it.<tool_call>{"name": "shell", "arguments": {"commands": ["ls"]}}</tool_call>x.py\n' in prompt
