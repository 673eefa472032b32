"""Items for the store and for listings: complete by the types of the official client."""

import json
from typing import Any, get_args

import pytest
from msgspec import Raw
from openai.types.responses import ResponseItem

from server.prompt.items.stored_items import encode_input_items

CALL_ID = {"call_id": "call_1"}
SENT: list[dict[str, Any]] = [
    {"type": "function_call", "name": "f", "arguments": "{}", **CALL_ID},
    {"type": "function_call_output", "name": "f", "output": "y"},
    {"type": "custom_tool_call", "name": "f", "input": "y", **CALL_ID},
    {"type": "custom_tool_call_output", "output": "y", **CALL_ID},
    {"type": "reasoning", "content": None},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "configuration_update", "reasoning": {"effort": "low"}},
    {
        "type": "additional_tools",
        "role": "developer",
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
    },
    {"type": "shell_call", "action": {"commands": ["ls"]}, **CALL_ID},
    {
        "type": "shell_call_output",
        "output": [{"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        **CALL_ID,
    },
    {
        "type": "local_shell_call",
        "status": "completed",
        "action": {"type": "exec", "command": [], "env": {}},
        **CALL_ID,
    },
    {"type": "local_shell_call_output", "id": "lsh_1", "output": "x"},
    {"type": "apply_patch_call", "status": "completed", "operation": {"type": "delete_file", "path": "x"}, **CALL_ID},
    {"type": "apply_patch_call_output", "status": "failed", **CALL_ID},
    {"type": "tool_search_call", "arguments": {}, **CALL_ID},
    {"type": "tool_search_output", "tools": [], **CALL_ID},
]
CLASSES = {get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(get_args(ResponseItem)[0])}


@pytest.mark.parametrize("item", SENT, ids=lambda item: item["type"])
def test_stored_item_has_every_field_that_clients_require(item: dict[str, Any]) -> None:
    (stored,) = json.loads(encode_input_items([Raw(json.dumps(item).encode())], f"resp_{'0' * 32}"))
    CLASSES[item["type"]].model_validate_json(json.dumps(stored), strict=True)
    assert item.items() <= stored.items() or item["type"] == "reasoning"
