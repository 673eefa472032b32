"""Requests in the shapes that clients send by default, with words of our own.

Shapes: openai-python 3.57, the Agents SDK 0.24, Codex CLI, Vercel's AI SDK and LangChain; the last ones are wrong.
"""

from typing import Any

Shape = dict[str, Any]

WEATHER = {
    "type": "function",
    "name": "look_up_weather",
    "description": "Say what the weather is in a town.",
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
        "required": ["town", "unit"],
        "additionalProperties": False,
    },
    "strict": True,
}
SHELL = {
    "type": "function",
    "name": "shell",
    "description": "Run a command.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "array", "items": {"type": "string"}}, "timeout_ms": {"type": "number"}},
        "required": ["command"],
        "additionalProperties": False,
    },
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Change a file.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin" /[a-z ]+/ "*** End"'},
}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


def _user(text: str) -> Shape:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def _codex(**fields: object) -> Shape:
    return {
        "model": "smollm2",
        "instructions": "You help with code in a terminal.",
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "Sandbox: read-only."}],
            },
            _user("List the files."),
        ],
        "tools": [
            SHELL,
            PATCH,
            {"type": "web_search", "external_web_access": False},
            {"type": "namespace", "name": "mcp__notes", "description": "Notes.", "tools": [{**SHELL, "name": "read"}]},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199aaaa-0000-7000-8000-000000000000",
        "text": {"verbosity": "low"},
        **fields,
    }


_CALLED = [
    {"type": "function_call", "call_id": "call_1", "name": "look_up_weather", "arguments": '{"town":"Ulm"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
]
_REPLAYED = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": None},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "It rains.", "annotations": [], "logprobs": []}],
    },
]

ANSWERED: dict[str, Shape] = {
    "curl": {"model": "smollm2", "input": "Say a word."},
    "no model": {"input": "Say a word."},
    "streamed": {"model": "smollm2", "input": "Say a word.", "stream": True},
    "openai-python": {"model": "smollm2", "input": "Say a word.", "instructions": "Be kind.", "temperature": 0},
    "openai-python, messages": {"model": "smollm2", "input": [{"role": "system", "content": "Be kind."}, _user("Hi.")]},
    "openai-python, short": {"model": "smollm2", "input": "Say a word.", "max_output_tokens": 3, "stream": True},
    "Agents SDK": {
        "model": "smollm2",
        "instructions": "Answer about the weather.",
        "input": [{"role": "user", "content": "How is it in Ulm?"}],
        "include": [],
        "tools": [WEATHER],
        "stream": True,
    },
    "Agents SDK, next turn": {
        "model": "smollm2",
        "instructions": "Answer about the weather.",
        "input": [{"role": "user", "content": "How is it in Ulm?"}, *_CALLED],
        "include": [],
        "tools": [WEATHER],
    },
    "Codex": _codex(),
    "Codex, next turn": _codex(input=[_user("How is it?"), *_REPLAYED, *_CALLED, _user("And now?")]),
    "AI SDK": {
        "model": "smollm2",
        "input": [{"role": "system", "content": "Be kind."}, _user("Hi.")],
        "stream": True,
        "tools": [{key: value for key, value in WEATHER.items() if key != "strict"}],
        "tool_choice": "auto",
    },
    "LangChain": {
        "model": "smollm2",
        "input": [{"type": "message", "role": "user", "content": "Hi."}],
        "stream": True,
        "temperature": 0.7,
        "truncation": "auto",
    },
    "unknown items and fields": {
        "model": "smollm2",
        "input": [{"type": "no_such_item", "id": "x"}, _user("Hi.")],
        "no_such_field": 1,
        "service_tier": "auto",
        "user": "somebody",
    },
    "a format": {
        "model": "smollm2",
        "input": "Give a point.",
        "text": {"format": {"type": "json_schema", "name": "point", "schema": POINT, "strict": True}},
        "max_output_tokens": 64,
    },
    "JSON": {"model": "smollm2", "input": "Give JSON.", "text": {"format": {"type": "json_object"}}},
    "a call": {
        "model": "smollm2",
        "input": "How is it in Ulm?",
        "tools": [WEATHER],
        "tool_choice": "required",
        "max_output_tokens": 64,
    },
    "in the background": {"model": "smollm2", "input": "Say a word.", "background": True},
}
"""Client -> body of a request that is answered."""

REFUSED: dict[str, tuple[Shape, str]] = {
    "goes on from nothing": ({"input": "Hi.", "previous_response_id": "resp_none"}, "previous_response_id"),
    "in the background, and not stored": ({"input": "Hi.", "background": True, "store": False}, "background"),
    "input missing": ({"model": "smollm2"}, "input"),
    "no input": ({"model": "smollm2", "input": []}, "input"),
    "only unknown items": ({"input": [{"type": "no_such_item"}]}, "input"),
    "an image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]},
        "input[0].content[0]",
    ),
    "temperature of the wrong kind": ({"input": "Hi.", "temperature": "hot"}, "temperature"),
    "temperature out of range": ({"input": "Hi.", "temperature": 3}, "temperature"),
    "a schema of no type": (
        {
            "input": "Hi.",
            "text": {"format": {"type": "json_schema", "name": "f", "schema": {"type": "no-such-type"}}},
        },
        "text.format.schema",
    ),
    "a call of nobody": (
        {"input": "Hi.", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "nope"}},
        "tool_choice",
    ),
}
"""Fault -> body of a request that gets a 400, and the field that its error names."""
