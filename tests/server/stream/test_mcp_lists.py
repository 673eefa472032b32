"""Lists of MCP tools in the state machine: opened and closed apart, and those that older versions stored."""

from collections.abc import Sequence

import msgspec
import pytest
from msgspec import Raw

from server.protocol.builtin_calls import McpListedTool, McpListTools
from server.protocol.errors import ConnectorFailed
from server.protocol.response import Response
from server.stream import Cancelled, End, McpListStarted, McpToolsListed, PromptMade, StreamInput, failure
from server.stream.open_mcp_calls import LIST_INTERRUPTED
from server.stream.replay import events, opening_inputs
from tests.server.stream.test_machine import RESPONSE, usage

ADD = McpListedTool("add", Raw(b"{}"))
LISTED = McpToolsListed("calc", (ADD,))
END = End(1, usage(1))


def played(*inputs: StreamInput) -> tuple[list[str], Response]:
    """Return the types of the events behind the first two, and the last response."""
    stored = msgspec.json.encode([*opening_inputs(RESPONSE), *inputs])
    made = list(events(msgspec.json.encode(RESPONSE), stored))
    response: Response = made[-1].response  # type: ignore[union-attr]  # the terminal event has it
    return [str(event.__struct_config__.tag) for event in made[2:]], response


def lists(response: Response) -> Sequence[McpListTools]:
    return [item for item in response.output if isinstance(item, McpListTools)]


BEGUN = ["response.output_item.added", "response.mcp_list_tools.in_progress"]
DONE = [*BEGUN, "response.mcp_list_tools.completed", "response.output_item.done"]


@pytest.mark.parametrize("inputs", [(McpListStarted("calc"), LISTED), (LISTED,)], ids=["now", "older version"])
def test_list_has_these_events_and_tools(inputs: Sequence[StreamInput]) -> None:
    kinds, response = played(*inputs, END)
    (item,) = lists(response)
    assert kinds[:4] == DONE
    assert (item.tools, item.error, response.status) == ((ADD,), None, "completed")


ENDS = {
    "failed": (failure(ConnectorFailed("Down.", param="tools[0]")), "Down.", ["error", "response.failed"]),
    "cancelled": (Cancelled(), LIST_INTERRUPTED, ["response.incomplete"]),
}


@pytest.mark.parametrize(("end", "error", "last"), ENDS.values(), ids=ENDS)
def test_list_that_does_not_arrive_fails_with_its_response(end: StreamInput, error: str, last: list[str]) -> None:
    kinds, response = played(McpListStarted("calc"), end)
    (item,) = lists(response)
    assert kinds == [*BEGUN, "response.mcp_list_tools.failed", "response.output_item.done", *last]
    assert (item.tools, item.error) == ((), error)


def test_facts_about_the_prompt_are_in_the_last_response() -> None:
    _, response = played(McpListStarted("calc"), LISTED, PromptMade(("tools[0]",)), END)
    assert msgspec.to_builtins(response.responsed) == {"unenforced": ("tools[0]",)}
