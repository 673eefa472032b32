"""Calls of built-in tools while they stream: the model writes the arguments of a function, the client gets an item.

Only commands of a shell stream; the specification has no events for the parts of the other items. Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct

from server.protocol.builtin_calls import (
    ApplyPatchCall,
    BuiltinCall,
    CallStatus,
    LocalShellAction,
    LocalShellCall,
    PatchOperation,
    ShellAction,
    ShellCall,
    ShellCommandAdded,
    ShellCommandDelta,
    ShellCommandDone,
    ToolSearchCall,
)
from server.protocol.events import Event, OutputItemAdded, OutputItemDone
from server.protocol.output_items import Logprob
from server.stream.decoders import PartialObject
from server.stream.inputs import BuiltinName
from server.stream.open_item import NextNumber, Opening, Outcome

A = TypeVar("A")


class ShellArguments(Struct, frozen=True):
    """Arguments of `shell` as the model wrote them. Models without a grammar may write one command as a text."""

    commands: list[str] | str = []
    timeout_ms: int | None = None
    max_output_length: int | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.commands,) if isinstance(self.commands, str) else tuple(self.commands)


class LocalShellArguments(Struct, frozen=True):
    """Arguments of `local_shell`."""

    command: list[str] | str = []
    working_directory: str | None = None
    timeout_ms: int | None = None
    env: dict[str, str] = {}
    user: str | None = None


class PatchArguments(Struct, frozen=True):
    """Arguments of `apply_patch`."""

    type: Literal["create_file", "update_file", "delete_file"] = "update_file"
    path: str = ""
    diff: str = ""


class OpenBuiltinCall(Generic[A]):
    """Open call of a built-in tool. A subclass makes its item of the arguments so far."""

    prefix: str
    kind: type[A]
    silent = True

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        self._id = id_
        self._call_id = f"call_{id_.partition('_')[2]}"
        self._index = output_index
        self._number = number
        self._written = PartialObject()
        self._arguments = self.kind()

    def added(self) -> Iterator[Event]:
        yield OutputItemAdded(self._number(), self._index, self._item("in_progress"))

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._written.feed(text)
        yield from ()

    def done(self, status: Outcome) -> Iterator[Event]:
        self._read()
        yield OutputItemDone(self._number(), self._index, self._item(status))

    def _read(self) -> None:
        """Update the arguments, unless they are invalid where they end."""
        arguments = self._written.decode(self.kind)
        self._arguments = self._arguments if arguments is None else arguments

    def _item(self, status: CallStatus) -> BuiltinCall:
        raise NotImplementedError


class OpenShellCall(OpenBuiltinCall[ShellArguments]):
    """Shell call, whose commands stream."""

    prefix = "sh"
    kind = ShellArguments
    silent = False

    def __init__(self, id_: str, output_index: int, number: NextNumber, input_: Opening) -> None:
        super().__init__(id_, output_index, number, input_)
        self._sent: list[str] = []
        """Text of each command that was sent."""

    def delta(self, text: str, logprobs: Sequence[Logprob] = ()) -> Iterator[Event]:
        self._written.feed(text)
        self._read()
        yield from self._commands()

    def done(self, status: Outcome) -> Iterator[Event]:
        yield from self._commands()
        if self._sent:
            yield self._command_done()
        yield OutputItemDone(self._number(), self._index, self._item(status))

    def _commands(self) -> Iterator[Event]:
        for index, command in enumerate(self._arguments.lines):
            if index == len(self._sent):
                if self._sent:
                    yield self._command_done()
                self._sent.append("")
                yield ShellCommandAdded(self._number(), self._index, index, "")
            if len(command) > len(self._sent[index]):
                delta = command[len(self._sent[index]) :]
                self._sent[index] = command
                yield ShellCommandDelta(self._number(), self._index, index, delta)

    def _command_done(self) -> Event:
        """Return the end of the last command that was sent."""
        return ShellCommandDone(self._number(), self._index, len(self._sent) - 1, self._sent[-1])

    def _item(self, status: CallStatus) -> BuiltinCall:
        written = self._arguments
        action = ShellAction(written.lines, written.max_output_length, written.timeout_ms)
        return ShellCall(self._id, self._call_id, action, status)


class OpenLocalShellCall(OpenBuiltinCall[LocalShellArguments]):
    prefix = "lsh"
    kind = LocalShellArguments

    def _item(self, status: CallStatus) -> BuiltinCall:
        written = self._arguments
        command = ("bash", "-lc", written.command) if isinstance(written.command, str) else tuple(written.command)
        action = LocalShellAction(command, written.env, written.timeout_ms, written.user, written.working_directory)
        return LocalShellCall(self._id, self._call_id, action, status)


class OpenApplyPatchCall(OpenBuiltinCall[PatchArguments]):
    prefix = "apc"
    kind = PatchArguments

    def _item(self, status: CallStatus) -> BuiltinCall:
        written = self._arguments
        diff = None if written.type == "delete_file" else written.diff
        operation = PatchOperation(written.type, written.path, diff)
        return ApplyPatchCall(
            self._id, self._call_id, operation, "completed" if status == "completed" else "in_progress"
        )


class OpenToolSearchCall(OpenBuiltinCall[dict[str, Any]]):
    prefix = "tsc"
    kind = dict[str, Any]

    def _item(self, status: CallStatus) -> BuiltinCall:
        return ToolSearchCall(self._id, self._call_id, Raw(msgspec.json.encode(self._arguments)), status)


BuiltinCallClass: TypeAlias = (
    type[OpenShellCall] | type[OpenLocalShellCall] | type[OpenApplyPatchCall] | type[OpenToolSearchCall]
)
BUILTIN_CALLS: dict[BuiltinName, BuiltinCallClass] = {
    "shell": OpenShellCall,
    "local_shell": OpenLocalShellCall,
    "apply_patch": OpenApplyPatchCall,
    "tool_search": OpenToolSearchCall,
}
"""Class of the open item, by the tool's type."""
