"""Fields of a body that nobody reads: which ones are skipped, and which refused since they would change the answer."""

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
"""What Chat Completions calls it -> where it stands here. To skip it would change the answer; OpenAI refuses it."""


_FORMAT = "send a `text.format` (in Chat Completions: `response_format`)"
_GRAMMAR = "send a custom tool with a grammar, or a JSON schema"
_TEMPLATE = "start the server with the chat template that you want"
REFUSED = {
    "grammar": _GRAMMAR,
    "guided_choice": _FORMAT,
    "guided_grammar": _GRAMMAR,
    "guided_json": _FORMAT,
    "guided_regex": _GRAMMAR,
    "json_schema": _FORMAT,
    "structured_outputs": _FORMAT,
    "chat_template": _TEMPLATE,
    "continue_final_message": "send the text as the user's, or ask the model to go on",
    "add_generation_prompt": "the model's answer is always asked for",
    "ignore_eos": "set a limit of tokens",
    "best_of": "send the request again with another `seed`",
    "prefix": "send the text as the user's, or ask the model to go on",
}
"""Fields of other servers that would change the answer and have no effect here -> what to do instead."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def absent(raw: msgspec.Raw) -> bool:
    """Whether nothing was said: null, or not even that."""
    return bytes(raw) == b"null"


def refuse_fields(body: bytes, refused: Mapping[str, str]) -> None:
    """Raises InvalidRequest for a field that would change the answer and has no effect here."""
    for name, value in _fields.decode(body).items():
        if name in refused and not absent(value):
            raise InvalidRequest(f"`{name}` has no effect on this server: {refused[name]}.", param=name)


def unknown_fields(body: bytes, known: Set[str]) -> set[str]:
    """The fields of a body that decoded well which nobody reads; null says nothing."""
    return {name for name, value in _fields.decode(body).items() if not absent(value)} - known


def check_strict(unknown: Sequence[str], strict: bool) -> None:
    """Raise InvalidRequest for the first unknown field if the server was started with --strict-fields."""
    if unknown and strict:
        raise InvalidRequest(f"`{unknown[0]}` is no field of this request (--strict-fields).", param=unknown[0])


def skipped_fields(body: bytes, known: Set[str]) -> set[str]:
    """Those of a request for a response. Raises InvalidRequest for one that is called otherwise here."""
    unknown = unknown_fields(body, known)
    for name in sorted(unknown & MOVED.keys()):
        raise InvalidRequest(f"`{name}` is a field of Chat Completions: here it is `{MOVED[name]}`.", param=name)
    return unknown
