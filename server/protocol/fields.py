"""Unsupported fields of a body: skipped ones, and refused ones, which would change the output."""

from collections.abc import Mapping, Sequence, Set

import msgspec

from server.protocol.errors import InvalidRequest

MOVED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "functions": "tools",
    "function_call": "tool_choice",
}
"""Chat Completions field -> its Responses equivalent, refused as by OpenAI: skipping it would change the output."""


_FORMAT = "send a `text.format` (in Chat Completions: `response_format`)"
_GRAMMAR = "send a custom tool with a grammar, or a JSON schema"
_TEMPLATE = "start the server with --chat-template"
REFUSED = {
    "grammar": _GRAMMAR,
    "guided_choice": _FORMAT,
    "guided_grammar": _GRAMMAR,
    "guided_json": _FORMAT,
    "guided_regex": _GRAMMAR,
    "json_schema": _FORMAT,
    "structured_outputs": _FORMAT,
    "chat_template": _TEMPLATE,
    "continue_final_message": "send the text as the user's, or ask the model to continue",
    "add_generation_prompt": "the prompt always asks for a reply",
    "best_of": "send the request again with another `seed`",
    "prefix": "send the text as the user's, or ask the model to continue",
}
"""Fields of other servers that are refused, since skipping them would change the output -> alternative."""

NO_MEMBERS: Mapping[str, Set[str]] = {}

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_null(raw: msgspec.Raw) -> bool:
    """True if the value is null, like a missing one."""
    return bytes(raw) == b"null"


def refuse_fields(body: bytes, refused: Mapping[str, str]) -> None:
    """Raise InvalidRequest for the first field in `refused`."""
    for name, value in _fields.decode(body).items():
        if name in refused and not is_null(value):
            raise InvalidRequest(f"`{name}` is not supported; {refused[name]}.", param=name)


def unknown_fields(body: bytes, known: Set[str], members: Mapping[str, Set[str]] = NO_MEMBERS) -> set[str]:
    """Return the unknown fields of a valid body, except those that are null.

    `members`: fields whose values are objects -> known members of the object. An unknown one is named `field.member`.
    """
    found = {name: value for name, value in _fields.decode(body).items() if not is_null(value)}
    within = (
        f"{name}.{member}"
        for name, known_members in members.items()
        if name in found
        for member in unknown_fields(bytes(found[name]), known_members)
    )
    return {*(found.keys() - known), *within}


def check_strict(unknown: Sequence[str], strict: bool) -> None:
    """Raise InvalidRequest for the first unknown field if the server was started with --strict-fields."""
    if unknown and strict:
        raise InvalidRequest(f"`{unknown[0]}` is not a known field; remove it (--strict-fields).", param=unknown[0])


def skipped_fields(body: bytes, known: Set[str], members: Mapping[str, Set[str]] = NO_MEMBERS) -> set[str]:
    """Return the unknown fields of a request for a response. Raises InvalidRequest for fields of Chat Completions."""
    unknown = unknown_fields(body, known, members)
    for name in sorted(unknown & MOVED.keys()):
        raise InvalidRequest(f"`{name}` is a field of Chat Completions; use `{MOVED[name]}`.", param=name)
    return unknown
