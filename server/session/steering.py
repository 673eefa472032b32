"""Input that steers a response in progress (openai-python 3.57, `types/responses/response_steer_event.py`). Pure."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from server.prompt.items import stored_items
from server.protocol.errors import InvalidRequest
from server.protocol.response import Response
from server.session.client_events import Steer

MAX_PENDING = 16
"""Number of inputs that may wait for one response."""
MAX_PENDING_BYTES = 1 << 20
"""Bytes of the inputs that may wait for one response."""


class PendingSteer(Struct, frozen=True):
    """Accepted input."""

    id: str
    steer: Steer
    items: list[Raw]

    @property
    def size(self) -> int:
        """Bytes of the input."""
        return memoryview(self.steer.input).nbytes


class SteerRefused(Exception):
    """The input is refused, with a code of openai-python's `response_steer_error_code.py`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Part(Struct):
    type: Literal["input_text", "input_image", "input_file"]


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["user"]
    content: str | list[Raw]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None


_input = msgspec.json.Decoder(str | list[Raw])
_message = msgspec.json.Decoder(_Message)
_part = msgspec.json.Decoder(_Part)
_output = msgspec.json.Decoder(list[dict[str, Any]])


def items(steer: Steer) -> list[Raw]:
    """Return the input as messages of the user. Raises SteerRefused."""
    if steer.unknown:
        raise SteerRefused("invalid_input", f"`response.steer` has no field {steer.unknown[0]!r}; remove it.")
    try:
        input_: str | list[Raw] = _input.decode(steer.input)
        if isinstance(input_, str):
            input_ = [stored_items.user_message(input_)]
        for item in input_:
            content = _message.decode(item).content
            for part in content if isinstance(content, list) else ():
                _part.decode(part)
    except (msgspec.ValidationError, RecursionError) as error:
        message = f"`input` must be a text or a list of messages of the user: {error}."
        raise SteerRefused("invalid_input", message) from error
    if not input_:
        raise SteerRefused("invalid_input", "`input` must not be empty.")
    return input_


_RESULTS = {
    "function_call": ("function_call_output", ("call_id", "name"), {}),
    "custom_tool_call": ("custom_tool_call_output", ("call_id",), {}),
    "computer_call": ("computer_call_output", ("call_id",), {}),
    "shell_call": ("shell_call_output", ("call_id",), {}),
    "local_shell_call": ("local_shell_call_output", ("call_id",), {}),
    "apply_patch_call": ("apply_patch_call_output", ("call_id",), {}),
    "tool_search_call": ("tool_search_output", ("call_id",), {"execution": "client"}),
}
"""Type of a call that the client executes -> type and fields of its result (`response_steer_required_input.py`)."""


def required_input(response: Response) -> list[dict[str, Any]]:
    """Return stubs of the results that a response waits for."""
    stubs = []
    for item in _output.decode(msgspec.json.encode(response.output)):
        if item["type"] in _RESULTS:
            kind, names, fixed = _RESULTS[item["type"]]
            stubs.append({"type": kind, **{name: item.get(name, "") for name in names}, **fixed})
    return stubs


class _Call(Struct):
    type: str | None = None
    call_id: str | None = None

    @property
    def made(self) -> str | None:
        """Id of the call that the item is."""
        return self.call_id if (self.type or "").endswith("_call") else None

    @property
    def answered(self) -> str | None:
        """Id of the call that the item is the result of."""
        return self.call_id if (self.type or "").endswith("_call_output") else None


_call = msgspec.json.Decoder(_Call)


def check_outputs(past: Sequence[Raw], new: str | Sequence[Raw] | None) -> None:
    """Raise InvalidRequest for the result of a call that the continued conversation does not have."""
    if isinstance(new, str) or not new:
        return
    items = [_call_of(raw) for raw in (*past, *new)]
    if any(item.type == "compaction" for item in items):
        return  # which may have replaced the call
    made = {item.made for item in items}
    for index, item in enumerate(items[len(past) :]):
        if item.answered and item.answered not in made:
            message = (
                f"No tool call has the id {item.answered[:100]!r}: send the result of a call of this conversation."
            )
            raise InvalidRequest(message, param=f"input[{index}].call_id")


def _call_of(raw: Raw) -> _Call:
    try:
        return _call.decode(raw)
    except msgspec.ValidationError:
        return _Call()  # the item reader has an error for it
