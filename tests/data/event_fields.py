"""The fields that an event, a response and its items must have, by the two specifications together.

Sources: OpenAI's API reference (Responses, streaming events) and Open Responses' schema of April 2026.
"""

from typing import Any

_PART = {"item_id", "output_index", "content_index"}
_CALL = {"item_id", "output_index"}
_COMMAND = {"output_index", "command_index"}

EVENTS = {
    "response.created": {"response"},
    "response.queued": {"response"},
    "response.in_progress": {"response"},
    "response.completed": {"response"},
    "response.incomplete": {"response"},
    "response.failed": {"response"},
    "response.output_item.added": {"output_index", "item"},
    "response.output_item.done": {"output_index", "item"},
    "response.content_part.added": {*_PART, "part"},
    "response.content_part.done": {*_PART, "part"},
    "response.output_text.delta": {*_PART, "delta", "logprobs"},
    "response.output_text.done": {*_PART, "text", "logprobs"},
    "response.refusal.delta": {*_PART, "delta"},
    "response.refusal.done": {*_PART, "refusal"},
    "response.reasoning_text.delta": {*_PART, "delta"},
    "response.reasoning_text.done": {*_PART, "text"},
    "response.reasoning_summary_part.added": {*_CALL, "summary_index", "part"},
    "response.reasoning_summary_part.done": {*_CALL, "summary_index", "part"},
    "response.reasoning_summary_text.delta": {*_CALL, "summary_index", "delta"},
    "response.reasoning_summary_text.done": {*_CALL, "summary_index", "text"},
    "response.function_call_arguments.delta": {*_CALL, "delta"},
    "response.function_call_arguments.done": {*_CALL, "arguments"},
    "response.custom_tool_call_input.delta": {*_CALL, "delta"},
    "response.custom_tool_call_input.done": {*_CALL, "input"},
    "response.shell_call_command.added": {*_COMMAND, "command"},
    "response.shell_call_command.delta": {*_COMMAND, "delta"},
    "response.shell_call_command.done": {*_COMMAND, "command"},
    "response.compaction.compacting": _CALL,
    "response.mcp_list_tools.in_progress": _CALL,
    "response.mcp_list_tools.completed": _CALL,
    "response.mcp_list_tools.failed": _CALL,
    "response.mcp_call.in_progress": _CALL,
    "response.mcp_call.completed": _CALL,
    "response.mcp_call.failed": _CALL,
    "response.mcp_call_arguments.delta": {*_CALL, "delta"},
    "response.mcp_call_arguments.done": {*_CALL, "arguments"},
    "error": {"code", "message", "param"},
}
"""Event type -> its fields, besides `type` and `sequence_number`."""

RESPONSE = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "store"),
    *("max_output_tokens", "max_tool_calls", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
}
"""Fields of a response, null or not."""

ITEMS = {
    "message": {"id", "type", "status", "role", "content"},
    "reasoning": {"id", "type", "summary"},
    "function_call": {"id", "type", "status", "call_id", "name", "arguments"},
    "custom_tool_call": {"id", "type", "call_id", "name", "input"},
    "compaction": {"id", "type", "encrypted_content"},
    "shell_call": {"id", "type", "status", "call_id", "action"},
    "local_shell_call": {"id", "type", "status", "call_id", "action"},
    "apply_patch_call": {"id", "type", "status", "call_id", "operation"},
    "mcp_list_tools": {"id", "type", "server_label", "tools"},
    "mcp_call": {"id", "type", "status", "server_label", "name", "arguments"},
    "mcp_approval_request": {"id", "type", "server_label", "name", "arguments"},
    "tool_search_call": {"id", "type", "status", "call_id", "arguments", "execution"},
}
"""Type of an output item -> its fields."""


def missing(event: dict[str, Any]) -> list[str]:
    """Return the paths of the fields that an event lacks."""
    kind = event["type"]
    assert kind in EVENTS, f"no specification knows the event {kind!r}"
    found = sorted({"sequence_number", *EVENTS[kind]} - event.keys())
    if "item" in event:
        found += [f"item.{name}" for name in _missing_of_item(event["item"])]
    if "response" in event:
        found += [f"response.{name}" for name in missing_of_response(event["response"])]
    return found


def missing_of_response(response: dict[str, Any]) -> list[str]:
    """Return the paths of the fields that a response lacks."""
    found = sorted(RESPONSE - response.keys())
    for index, item in enumerate(response.get("output", ())):
        found += [f"output[{index}].{name}" for name in _missing_of_item(item)]
    return found


def _missing_of_item(item: dict[str, Any]) -> list[str]:
    return sorted(ITEMS[item["type"]] - item.keys())
