"""The Agents SDK executes the calls of its own built-in tools: shell, local shell and patches."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    LocalShellCommandRequest,
    LocalShellTool,
    ShellCallOutcome,
    ShellCommandOutput,
    ShellCommandRequest,
    ShellResult,
    ShellTool,
    apply_diff,
)
from agents.editor import ApplyPatchOperation, ApplyPatchResult

from tests.server.api.tools.test_tools import HERMES, call
from tests.server.upstream.fronts import Served
from tests.support.helpers import statuses
from tests.system.clients.test_agents import WAYS, Run, runs, scripted

pytestmark = pytest.mark.slow


class Workplace:
    """A folder in which files are patched, and a shell that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[Any] = []

    async def shell(self, request: ShellCommandRequest) -> ShellResult:
        self.commands += request.data.action.commands
        failed = ShellCallOutcome("exit", 3)
        return ShellResult([ShellCommandOutput("one.txt\n"), ShellCommandOutput("", "no such file", failed)])

    def local_shell(self, request: LocalShellCommandRequest) -> str:
        self.commands.append(request.data.action.command)
        return "one.txt"

    def create_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        (self.folder / operation.path).write_text(apply_diff("", operation.diff or "", mode="create"))
        return ApplyPatchResult("completed", f"created {operation.path}")

    def update_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        path = self.folder / operation.path
        path.write_text(apply_diff(path.read_text(), operation.diff or ""))
        return ApplyPatchResult("completed", f"updated {operation.path}")

    def delete_file(self, operation: ApplyPatchOperation) -> ApplyPatchResult:
        return ApplyPatchResult("failed", f"{operation.path} is needed")


def steps(*calls: tuple[str, dict[str, Any]]) -> Any:
    """Return the reply of a model that makes these calls one after another, and then repeats all that it heard."""

    def reply(message: bytes) -> bytes:
        heard = message.split(b"</tool_call>")
        if len(heard) <= len(calls):
            name, arguments = calls[len(heard) - 1]
            return call(name, json.dumps(arguments)).encode()
        return b" | ".join(each.partition(b"<tool_call>")[0].strip() for each in heard[1:])

    return reply


@WAYS
async def test_agents_sdk_runs_shell_and_patches(
    served_alone: Served, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    place = Workplace(tmp_path)
    agent = Agent("Coder", tools=[ShellTool(place.shell), ApplyPatchTool(place)])
    reply = steps(
        ("shell", {"commands": ["ls", "cat x"]}),
        ("apply_patch", {"type": "create_file", "path": "a.txt", "diff": "+one\n+two"}),
        ("apply_patch", {"type": "update_file", "path": "a.txt", "diff": "@@\n one\n-two\n+three"}),
        ("apply_patch", {"type": "delete_file", "path": "a.txt", "diff": ""}),
    )
    async with served_alone(scripted(reply), template=HERMES) as running:
        result = await runs(running.url, run, agent, "Work.")
    assert place.commands == ["ls", "cat x"]
    assert (tmp_path / "a.txt").read_text() == "one\nthree"
    heard = ["one.txt\n\nno such file\nExit code 3.", "created a.txt", "updated a.txt", "failed: a.txt is needed"]
    assert result.final_output == " | ".join(heard)
    assert statuses(caplog.text) == [200] * 5


@WAYS
async def test_agents_sdk_runs_local_shell(served_alone: Served, run: Run, tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    agent = Agent("Coder", tools=[LocalShellTool(place.local_shell)])
    async with served_alone(scripted(steps(("local_shell", {"command": ["ls", "-l"]}))), template=HERMES) as running:
        result = await runs(running.url, run, agent, "Work.")
    assert (place.commands, result.final_output) == ([["ls", "-l"]], "one.txt")
