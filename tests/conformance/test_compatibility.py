"""The tables of compatibility: complete by openai-python's types, and true by the server's answers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import openai
import pytest
from openai.types.responses import (
    ResponseIncludable,
    ResponseInputItemParam,
    ResponseOutputItem,
    ResponsesClientEvent,
    ResponsesServerEvent,
    ResponseStreamEvent,
    ToolParam,
    response_create_params,
)

from server.protocol.events import Event
from server.session.server_events import SessionEvent
from server.stream import encode_summary
from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.upstream.fronts import Served, fronting, token_fronting
from tests.support import helpers
from tests.support.helpers import post

PAGE = Path(__file__).parents[2] / "server" / "docs" / "compatibility.md"


def table(heading: str) -> dict[str, str]:
    """Return name -> status of a table in the page."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \| (\w+) \|", section, re.MULTILINE)
    names = [(name, status) for cell, status in rows for name in re.findall(r"`([^`]+)`", cell)]
    assert len(dict(names)) == len(names), f"{heading}: a name is listed twice"
    return dict(names)


def type_names(kind: Any) -> Iterator[str]:
    """Yield the values of `type` in a union of models."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if hasattr(kind, "model_fields"):
        yield from literals(kind.model_fields["type"].annotation)
    elif hasattr(kind, "__required_keys__"):
        yield from literals(get_type_hints(kind)["type"])
    else:
        for each in get_args(kind):
            yield from type_names(each)


def literals(kind: Any) -> Iterator[str]:
    for each in get_args(kind):
        if isinstance(each, str):
            yield each
        else:
            yield from literals(each)


def client_methods() -> set[str]:
    client = openai.OpenAI(api_key="none")
    resources = ("responses", "responses.input_items", "responses.input_tokens", "conversations", "conversations.items")
    found = set()
    for name in (*resources, "models", "chat.completions", "completions"):
        resource: Any = client
        for part in name.split("."):
            resource = getattr(resource, part)
        found |= {
            f"{name}.{method}"
            for method in dir(resource)
            if not method.startswith(("_", "with_")) and callable(getattr(resource, method))
        }
    return found


NAMES = {
    "Request fields": {*get_type_hints(response_create_params.ResponseCreateParamsNonStreaming)},
    "Items": {*type_names(ResponseInputItemParam), *type_names(ResponseOutputItem)},
    "Tools": {*type_names(ToolParam)},
    "Values of `include`": {*get_args(ResponseIncludable)},
    "Events": {*type_names(ResponseStreamEvent), *type_names(ResponsesServerEvent)},
    "Events of WebSocket clients": {*type_names(ResponsesClientEvent)},
}


@pytest.mark.parametrize("heading", NAMES)
def test_table_has_every_name_of_the_client(heading: str) -> None:
    assert set(table(heading)) == NAMES[heading]


@pytest.mark.slow
def test_table_has_every_method_of_the_client() -> None:
    assert set(table("Methods of the client")) == client_methods()


def test_events_that_are_sent_are_those_of_the_server() -> None:
    sent = {name for name, status in table("Events").items() if status == "sent"}
    assert sent == {str(kind.__struct_config__.tag) for union in (Event, SessionEvent) for kind in get_args(union)}


VALUES: dict[str, Any] = {
    "access_programs": [{"type": "x"}],
    "background": True,
    "background_options": {"completion_window": "8h", "continuation_id": "x"},
    "context_management": [{"type": "compaction", "compact_threshold": 100_000}],
    "conversation": "conv_0",
    "image": {"size": "auto"},
    "include": ["message.output_text.logprobs"],
    "input": "Hello",
    "instructions": "Be kind.",
    "max_output_tokens": 5,
    "max_tool_calls": 2,
    "metadata": {"a": "b"},
    "model": "scripted",
    "moderation": {"model": "auto"},
    "parallel_tool_calls": False,
    "previous_response_id": "resp_0",
    "prompt": {"id": "pmpt_0"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"prewarm": True},
    "prompt_cache_retention": "in_memory",
    "reasoning": {"effort": "low"},
    "safety_identifier": "s",
    "service_tier": "flex",
    "store": False,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "temperature": 0.5,
    "text": {"format": {"type": "json_object"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 2,
    "top_p": 0.5,
    "truncation": "auto",
    "user": "u",
}
"""A value for each field."""
ITEM = {
    "id": "x_1", "role": "user", "content": "Hello", "name": "f", "arguments": "{}", "call_id": "call_1", "tools": [],
    "input": "x", "output": "Out", "code": "1", "server_label": "s", "results": [],
    "encrypted_content": encode_summary("Past."),
    "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}, "result": "r",
    "action": {"type": "exec", "commands": ["ls"], "command": ["ls"]},
    "operation": {"type": "delete_file", "path": "a"}, "approval_request_id": "x", "approve": True,
}  # fmt: skip
"""Fields of all items: each type reads its own."""
TOOL = {
    "name": "f", "description": "d", "server_label": "s", "server_url": "https://a.test", "vector_store_ids": [],
    "tools": [{"type": "function", "name": "g", "parameters": None}], "environment": {"type": "local"},
    "execution": "client", "container": {"type": "auto"},
}  # fmt: skip
REFERENCES = ("conversation", "previous_response_id", "item_reference")
"""Names whose samples refer to nothing, so that the answer is an error that names them."""


WAYS = pytest.mark.parametrize(
    "served",
    [
        pytest.param(helpers.served, id="embedded"),
        pytest.param(fronting, marks=pytest.mark.slow, id="front"),
        pytest.param(token_fronting, marks=pytest.mark.slow, id="tokens"),
    ],
)


async def status(served: Served, **fields: Any) -> tuple[int, list[str]]:
    """Return the HTTP status of a request, and what the response says had no effect."""
    return (await statuses(served, {"": fields}))[""]


async def statuses(served: Served, requests: dict[str, dict[str, Any]]) -> dict[str, tuple[int, list[str]]]:
    """Return the same for each of several requests to one server."""
    found = {}
    async with served(thinker(), template=THINKS) as running:
        for name, fields in requests.items():
            answer = await post(running, **{"input": "Hello", "max_output_tokens": 60} | fields)
            named = answer.status == 200 and not fields.get("stream")
            found[name] = answer.status, answer.json.get("responsed", {}).get("skipped", []) if named else []
    return found


def expected(status: str, skipped: str) -> tuple[int, list[str]]:
    return 400 if status == "refused" else 200, [skipped] if status == "skipped" else []


FIELDS = {name: status for name, status in table("Request fields").items() if name not in REFERENCES}


@pytest.mark.slow
@WAYS
async def test_fields_have_their_stated_statuses(served: Served) -> None:
    """`background` and `store` need a store; `test_stored_responses` shows them."""
    asked = {name: {name: VALUES[name]} for name in FIELDS if name not in ("background", "store")}
    assert await statuses(served, asked) == {name: expected(FIELDS[name], name) for name in asked}


@pytest.mark.slow
@WAYS
async def test_items_have_their_stated_statuses(served: Served) -> None:
    stated = {name: status for name, status in table("Items").items() if name not in REFERENCES}
    before, after = ({"role": "user", "content": text} for text in ("Hello", "And?"))
    asked = {name: {"input": [before, ITEM | {"type": name}, after]} for name in stated}
    assert await statuses(served, asked) == {name: expected(stated[name], f"item {name}") for name in asked}


@pytest.mark.slow
@WAYS
async def test_tools_have_their_stated_statuses(served: Served) -> None:
    """`mcp` needs a server; `tests/server/mcp` shows it."""
    stated = {name: status for name, status in table("Tools").items() if name != "mcp"}
    asked = {name: {"tools": [TOOL | {"type": name}]} for name in stated}
    assert await statuses(served, asked) == {name: expected(stated[name], f"tool {name}") for name in asked}


@pytest.mark.slow
@WAYS
async def test_values_of_include_have_their_stated_statuses(served: Served) -> None:
    stated = table("Values of `include`")
    asked = {name: {"include": [name]} for name in stated}
    assert await statuses(served, asked) == {name: expected(stated[name], f"include {name}") for name in asked}
