"""The further tables of compatibility: members of fields, other resources, and the fields of the two older APIs."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any, get_args, get_type_hints

import openai
import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import ToolParam
from openai.types.responses import response_create_params as params

from tests.conformance.test_compatibility import WAYS, expected, literals, status, statuses, table
from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.api.tools.test_tools import HERMES, call, writes
from tests.server.upstream.fronts import Served
from tests.support.helpers import encode, exchange, get, post, served

UNIONS = ("input", "tools", "tool_choice")
"""Fields whose values are items, tools, or a choice."""
HINTS = get_type_hints(params.ResponseCreateParamsNonStreaming)


def objects(kind: Any) -> Iterator[Any]:
    """Yield the types of objects in a type."""
    if hasattr(kind, "__required_keys__"):
        yield kind
    else:
        for each in get_args(kind):
            yield from objects(each)


def resources() -> set[str]:
    """Return the names of the client's resources: attributes that are made, and whose modules are imported, at use."""
    found = {name for name, value in vars(openai.OpenAI).items() if isinstance(value, cached_property)}
    return {name for name in found if not name.startswith("with_")}


NAMES = {
    "Members of request fields": {
        f"{field}.{member}"
        for field, kind in HINTS.items()
        if field not in UNIONS
        for each in objects(kind)
        for member in get_type_hints(each)
    },
    "Types of `tool_choice`": {
        name for each in objects(HINTS["tool_choice"]) for name in literals(get_type_hints(each)["type"])
    },
    "Members of tools": {
        f"{kind}.{member}"
        for each in objects(ToolParam)
        for kind in literals(get_type_hints(each)["type"])
        if kind != "mcp" and table("Tools")[kind] == "supported"
        for member in get_type_hints(each).keys() - {"type"}
    },
    "Resources of the client": resources(),
    "Fields of chat completions": {*get_type_hints(chat_params.CompletionCreateParamsNonStreaming)},
    "Fields of completions": {*get_type_hints(text_params.CompletionCreateParamsNonStreaming)},
}


@pytest.mark.parametrize("heading", NAMES)
def test_table_has_every_name_of_the_client(heading: str) -> None:
    assert set(table(heading)) == NAMES[heading]


VALUES: dict[str, Any] = {
    "access_programs.cyber": "x",
    "background_options.completion_window": "8h",
    "background_options.continuation_id": "x",
    "image.context_compression": "auto",
    "moderation.model": "auto",
    "moderation.policy": {},
    "prompt.id": "pmpt_0",
    "prompt.variables": {},
    "prompt.version": "1",
    "prompt_cache_options.comparison_response_id": "resp_0",
    "prompt_cache_options.mode": "explicit",
    "prompt_cache_options.prewarm": True,
    "prompt_cache_options.ttl": "12h",
    "reasoning.context": "current_turn",
    "reasoning.effort": "low",
    "reasoning.generate_summary": "auto",
    "reasoning.mode": "pro",
    "reasoning.summary": "detailed",
    "stream_options.include_obfuscation": True,
    "text.format": {"type": "json_object"},
    "text.verbosity": "low",
}
"""A value for each member of an object that stands alone."""
WHOLE = ("access_programs", "image", "moderation")
"""Fields that are skipped as a whole."""
MEMBERS = {name: stated for name, stated in table("Members of request fields").items() if name in VALUES}


def test_other_members_belong_to_fields_with_tests_of_their_own() -> None:
    others = {name.partition(".")[0] for name in NAMES["Members of request fields"] - VALUES.keys()}
    assert others == {"conversation", "context_management"}


@pytest.mark.slow
@WAYS
async def test_members_have_their_stated_statuses(served: Served) -> None:
    asked, wanted = {}, {}
    for name, stated in MEMBERS.items():
        field, _, member = name.partition(".")
        asked[name] = {field: {member: VALUES[name]}}
        wanted[name] = expected(stated, field if field in WHOLE else name)
    assert await statuses(served, asked) == wanted


@pytest.mark.parametrize("field", ["background_options", "reasoning", "stream_options", "text"])
async def test_unknown_member_is_named_or_refused(field: str) -> None:
    """A newer client's member would otherwise be lost in silence."""
    body = {"input": "Is it?", field: {"newest": 1}}
    async with served(thinker(), template=THINKS) as running:
        answer = await post(running, **body)
    assert answer.json["responsed"]["skipped"] == [f"{field}.newest"]
    async with served(thinker(), template=THINKS, strict_fields=True) as running:
        answer = await post(running, **body)
    assert (answer.status, answer.json["error"]["param"]) == (400, f"{field}.newest")


TOOL_MEMBERS: dict[str, Any] = {
    "allowed_callers": ["programmatic"],
    "async": True,
    "defer_loading": True,
    "description": "Does it.",
    "environment": {"type": "local"},
    "execution": "client",
    "format": {"type": "text"},
    "name": "f",
    "output_schema": {"type": "object"},
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
    "tools": [{"type": "function", "name": "g", "parameters": None}],
}
"""A value for each member of a tool."""
REQUIRED = {"tool_search": {"execution": "client"}, "namespace": {"description": "Tools."}}


@pytest.mark.slow
async def test_members_of_tools_have_their_stated_statuses() -> None:
    asked, wanted = dict[str, Any](), {}
    for name, stated in table("Members of tools").items():
        kind, _, member = name.partition(".")
        tool = {"type": kind, "name": "f"} | REQUIRED.get(kind, {}) | {member: TOOL_MEMBERS[member]}
        asked[name] = {"tools": [tool, tool | {"name": "h"}][: 2 if kind in ("function", "custom") else 1]}
        wanted[name] = expected(stated, f"tool {name}")
    assert await statuses(served, asked) == wanted


@pytest.mark.slow
async def test_callers_that_are_the_model_are_supported() -> None:
    tool = {"type": "function", "name": "f", "allowed_callers": ["direct"], "defer_loading": False}
    assert await status(served, tools=[tool]) == (200, [])


TOOLS = [
    {"type": "function", "name": "f", "parameters": None},
    {"type": "custom", "name": "c"},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "apply_patch"},
]
CHOICES: dict[str, dict[str, Any]] = {
    "function": {"name": "f"},
    "custom": {"name": "c"},
    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "f"}]},
}


@pytest.mark.slow
async def test_types_of_tool_choice_have_their_stated_statuses() -> None:
    """`mcp` needs a server; `tests/server/mcp` shows it."""
    stated = {name: status for name, status in table("Types of `tool_choice`").items() if name != "mcp"}
    choices = {name: {"type": name} | CHOICES.get(name, {}) for name in stated}
    found = {}
    async with served(writes(call("f", "{}")), template=HERMES) as running:
        for name, choice in choices.items():
            answer = await post(running, input="Call.", tools=TOOLS, tool_choice=choice, max_output_tokens=50)
            found[name] = answer.status, answer.json["tool_choice"] if stated[name] == "supported" else None
    assert found == {
        name: (400 if stated[name] == "refused" else 200, choice if stated[name] == "supported" else None)
        for name, choice in choices.items()
    }


@pytest.mark.slow
async def test_resources_have_their_stated_statuses() -> None:
    stated = table("Resources of the client")
    async with served() as running:
        paths = {name: {"chat": "chat/completions"}.get(name, name) for name in stated}
        found = {name: (await get(running, f"/v1/{path}")).status == 404 for name, path in paths.items()}
    assert found == {name: status == "never" for name, status in stated.items()}


MESSAGES = [{"role": "user", "content": "Is it?"}]
CHAT: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 50,
    "max_tokens": 50,
    "messages": MESSAGES,
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "model": "scripted",
    "moderation": {"model": "auto"},
    "n": 1,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"ttl": "30m"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "s",
    "seed": 1,
    "service_tier": "flex",
    "stop": ["x"],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 1,
    "top_p": 0.5,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {},
}
TEXT: dict[str, Any] = {name: CHAT[name] for name in NAMES["Fields of completions"] & CHAT.keys()} | {
    "best_of": 1,
    "echo": False,
    "logprobs": 1,
    "prompt": "Is it?",
    "suffix": "x",
}
NEEDS: dict[str, Any] = {
    "response_format": {"max_tokens": 60},
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
}
"""Field -> others without which it is refused, or takes long."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "heading", "body", "values"),
    [
        ("chat/completions", "Fields of chat completions", {"messages": MESSAGES}, CHAT),
        ("completions", "Fields of completions", {"prompt": "Is it?"}, TEXT),
    ],
    ids=["chat/completions", "completions"],
)
async def test_fields_of_an_older_api_have_their_stated_statuses(
    path: str, heading: str, body: dict[str, Any], values: dict[str, Any]
) -> None:
    stated, found = table(heading), {}
    async with served(thinker(), template=THINKS) as running:
        for field in stated:
            sent = encode(**body | NEEDS.get(field, {}) | {field: values[field]})
            answer = await exchange(running, "POST", f"/v1/{path}", sent)
            found[field] = answer.status, None if field.startswith("stream") else answer.json.get("responsed")
    assert found == {
        field: (400 if status == "refused" else 200, {"skipped": [field]} if status == "skipped" else None)
        for field, status in stated.items()
    }


async def test_stream_of_an_older_api_names_the_skipped_fields() -> None:
    body = {"messages": MESSAGES, "web_search_options": {}, "stream": True}
    async with served(thinker(), template=THINKS) as running:
        answer = await exchange(running, "POST", "/v1/chat/completions", encode(**body))
    chunks = [json.loads(line[6:]) for line in answer.body.splitlines() if line.startswith(b"data: {")]
    named = [(chunk["choices"][0]["finish_reason"], chunk["responsed"]) for chunk in chunks if "responsed" in chunk]
    assert named == [("stop", {"skipped": ["web_search_options"]})]


@pytest.mark.parametrize(
    ("path", "body"), [("chat/completions", {"messages": MESSAGES}), ("completions", {"prompt": "Is it?"})], ids=str
)
async def test_unknown_member_in_an_older_api_is_named(path: str, body: dict[str, Any]) -> None:
    sent = encode(**body, stream_options={"include_obfuscation": True, "newest": 1})
    async with served(thinker(), template=THINKS) as running:
        answer = await exchange(running, "POST", f"/v1/{path}", sent)
    assert answer.json["responsed"] == {"skipped": ["stream_options.newest"]}
