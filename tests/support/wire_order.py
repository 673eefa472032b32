"""The legal order of a stream, as tables, by OpenAI's API reference (streaming events) and Open Responses.

Two machines. LIFECYCLE is that of the response; while an item is open it hands every event to that item's own
table. A table says which event is legal when; what an event must carry is one small method each. Event names
stand without their `response.`; those that open or close a part say the part's kind too.
"""

from typing import Any

from msgspec import Struct

Event = dict[str, Any]
Table = dict[str, dict[str, str]]

_ENDS = {"completed": "over", "incomplete": "over", "failed": "over", "error": "broken"}

LIFECYCLE: Table = {
    "new": {"created": "created"},
    "created": {"queued": "queued", "in_progress": "running"},
    # It may also end before its turn: cancelled, or the server stops.
    "queued": {"in_progress": "running", "incomplete": "over", "failed": "over", "error": "broken"},
    # in_progress again is a heartbeat while the prompt is read (1.6)
    "running": {"in_progress": "running", "output_item.added": "item", **_ENDS},
    "between": {"output_item.added": "item", **_ENDS},
    # A failure may leave an item open: it is then not in the final output.
    "item": {"output_item.done": "between", "failed": "over", "error": "broken"},
    "broken": {"failed": "over"},
    "over": {},
}

MESSAGE: Table = {
    "added": {"content_part.added output_text": "output_text", "content_part.added refusal": "refusal"},
    "output_text": {"output_text.delta": "output_text", "output_text.done": "output_text whole"},
    "output_text whole": {"content_part.done output_text": "more"},
    "refusal": {"refusal.delta": "refusal", "refusal.done": "refusal whole"},
    "refusal whole": {"content_part.done refusal": "more"},
    "more": {
        "content_part.added output_text": "output_text",
        "content_part.added refusal": "refusal",
        "output_item.done": "done",
    },
}

REASONING: Table = {
    "added": {
        "content_part.added reasoning_text": "reasoning_text",
        "reasoning_summary_part.added summary_text": "summary_text",
        "output_item.done": "done",
    },
    "reasoning_text": {
        "reasoning_text.delta": "reasoning_text",
        "reasoning_text.done": "reasoning_text whole",
    },
    "reasoning_text whole": {"content_part.done reasoning_text": "added"},
    "summary_text": {
        "reasoning_summary_text.delta": "summary_text",
        "reasoning_summary_text.done": "summary_text whole",
    },
    "summary_text whole": {"reasoning_summary_part.done summary_text": "summarized"},
    "summarized": {"reasoning_summary_part.added summary_text": "summary_text", "output_item.done": "done"},
}

FUNCTION_CALL: Table = {
    "added": {"function_call_arguments.delta": "added", "function_call_arguments.done": "whole"},
    "whole": {"output_item.done": "done"},
}

CUSTOM_TOOL_CALL: Table = {
    "added": {"custom_tool_call_input.delta": "added", "custom_tool_call_input.done": "whole"},
    "whole": {"output_item.done": "done"},
}

SHELL_CALL: Table = {
    "added": {"shell_call_command.added": "command", "output_item.done": "done"},
    "command": {"shell_call_command.delta": "command", "shell_call_command.done": "added"},
}

COMPACTION: Table = {
    "added": {"compaction.compacting": "compacting"},
    "compacting": {"compaction.compacting": "compacting", "output_item.done": "done"},
}

MCP_CALL: Table = {
    "added": {"mcp_call.in_progress": "arguments"},
    "arguments": {"mcp_call_arguments.delta": "arguments", "mcp_call_arguments.done": "whole"},
    "whole": {"mcp_call.completed": "returned", "mcp_call.failed": "returned", "output_item.done": "done"},
    "returned": {"output_item.done": "done"},
}

MCP_LIST: Table = {
    "added": {"mcp_list_tools.in_progress": "listing"},
    "listing": {"mcp_list_tools.completed": "listed", "mcp_list_tools.failed": "listed"},
    "listed": {"output_item.done": "done"},
}

WHOLE: Table = {"added": {"output_item.done": "done"}}
"""Types of items without streamed parts."""


class Kind(Struct, frozen=True):
    """An item kind: table, prefix of ids, and the lists its parts go into or the field its text goes into."""

    table: Table
    prefix: str
    lists: tuple[str, ...] = ()
    field: str = ""
    has_status: bool = True


KINDS = {
    "message": Kind(MESSAGE, "msg_", lists=("content",)),
    "reasoning": Kind(REASONING, "rs_", lists=("content", "summary")),
    "function_call": Kind(FUNCTION_CALL, "fc_", field="arguments"),
    "custom_tool_call": Kind(CUSTOM_TOOL_CALL, "ctc_", field="input"),
    "shell_call": Kind(SHELL_CALL, "sh_"),
    "local_shell_call": Kind(WHOLE, "lsh_"),
    "apply_patch_call": Kind(WHOLE, "apc_"),
    "tool_search_call": Kind(WHOLE, "tsc_"),
    "mcp_call": Kind(MCP_CALL, "mcp_", field="arguments"),
    "mcp_list_tools": Kind(MCP_LIST, "mcpl_", has_status=False),
    "mcp_approval_request": Kind(WHOLE, "mcpr_", has_status=False),
    "compaction": Kind(COMPACTION, "cmp_", has_status=False),
}


class Part(Struct, frozen=True):
    """A part kind: the item's list that it goes into, the event's index field there, and its text's field."""

    list: str
    index: str
    field: str


PARTS = {
    "output_text": Part("content", "content_index", "text"),
    "refusal": Part("content", "content_index", "refusal"),
    "reasoning_text": Part("content", "content_index", "text"),
    "summary_text": Part("summary", "summary_index", "text"),
}


def short_name(event: Event) -> str:
    """`content_part.added refusal` for a `response.content_part.added` whose part is a `refusal`."""
    name = str(event["type"]).removeprefix("response.")
    return f"{name} {event['part']['type']}" if "part" in event else name


def must_equal(found: object, wanted: object, event: Event, what: str) -> None:
    assert found == wanted, f"event {event['sequence_number']} {event['type']}: {what} is {found!r}, not {wanted!r}"


class ItemCheck:
    """One item from its `added` to its `done`."""

    def __init__(self, event: Event, output_index: int) -> None:
        self.added = event["item"]
        self.output_index = output_index
        self.state = "added"
        self.text = ""
        self.logprobs: list[Any] = []
        assert self.added["type"] in KINDS, f"an item of unknown type: {self.added}"
        self.kind = KINDS[self.added["type"]]
        self.part: Part | None = None
        self.parts: dict[str, list[Any]] = {name: [] for name in self.kind.lists}
        self.commands: list[str] = []
        """Commands of a shell call."""
        self._check_added(event)

    def _check_added(self, event: Event) -> None:
        """Present at once, and empty: streamable fields begin with their zero value."""
        must_equal(event["output_index"], self.output_index, event, "output_index")
        begun = "in_progress" if self.kind.has_status else None
        must_equal(self.added.get("status"), begun, event, "the new item's status")
        for name in self.kind.lists:
            must_equal(self.added.get(name) or [], [], event, f"the new item's {name}")
        if self.kind.field:
            must_equal(self.added[self.kind.field], "", event, f"the new item's {self.kind.field}")
            has_call_id = self.kind.table is not MCP_CALL
            assert not has_call_id or self.added["call_id"] != self.added["id"], f"call_id is the id: {self.added}"
        assert str(self.added.get("id")).startswith(self.kind.prefix), (
            f"item id without {self.kind.prefix}: {self.added}"
        )

    def take(self, event: Event) -> None:
        """One event inside this item: legal now, with this item's ids, and true to what came before."""
        name = short_name(event)
        legal = self.kind.table[self.state]
        assert name in legal, (
            f"event {event['sequence_number']} {name!r}: the open {self.added['type']} is at {self.state!r},"
            f" which allows only {sorted(legal)}"
        )
        must_equal(event["output_index"], self.output_index, event, "output_index")
        if name == "output_item.done":
            self._finish(event)
        elif self.kind.table is SHELL_CALL:
            self._take_command(event, name)
        else:
            must_equal(event["item_id"], self.added["id"], event, "item_id")
            self._take_text(event, name)
        self.state = legal[name]

    def _take_command(self, event: Event, name: str) -> None:
        """Take one event of a shell command; they have no `item_id`."""
        if name.endswith(".added"):
            self.commands.append(event["command"])
        must_equal(event["command_index"], len(self.commands) - 1, event, "command_index")
        if name.endswith(".delta"):
            self.commands[-1] += event["delta"]
        else:
            must_equal(event["command"], self.commands[-1], event, "the command against the deltas")

    def _take_text(self, event: Event, name: str) -> None:
        if name == "compaction.compacting":
            return
        if "part.added" in name:
            self.part, self.text, self.logprobs = PARTS[event["part"]["type"]], "", []
            must_equal(event["part"][self.part.field], "", event, "the new part's text")
            must_equal(event["part"].get("logprobs") or [], [], event, "the new part's logprobs")
        if self.part is not None:
            must_equal(event[self.part.index], len(self.parts[self.part.list]), event, self.part.index)
        if name.endswith(".delta"):
            self.text += event["delta"]
            self.logprobs += event.get("logprobs") or []
        elif "part.done" in name:
            self._close_part(event)
        elif name.endswith(".done"):
            field = self.part.field if self.part else self.kind.field
            must_equal(event[field], self.text, event, f"{field} against the deltas")
            must_equal(event.get("logprobs") or [], self.logprobs, event, "logprobs against the deltas")
        if name == "function_call_arguments.done":  # openai-python 2 requires what 3 dropped (1.1)
            must_equal(event.get("name"), self.added["name"], event, "name")

    def _close_part(self, event: Event) -> None:
        assert self.part is not None
        must_equal(event["part"][self.part.field], self.text, event, "the part's text against the deltas")
        must_equal(event["part"].get("logprobs") or [], self.logprobs, event, "the part's logprobs against the deltas")
        self.parts[self.part.list].append(event["part"])

    def _finish(self, event: Event) -> None:
        item = event["item"]
        for name in ("id", "type", "role", "call_id", "name", "namespace", "phase"):
            must_equal(item.get(name), self.added.get(name), event, f"the item's {name}")
        # The type of a patch has no status for a call that was cut.
        ends = {"completed", "in_progress"} if item["type"] == "apply_patch_call" else {"completed", "incomplete"}
        ends |= {"failed"} if item["type"] == "mcp_call" else set()
        assert item.get("status") in ends or not self.kind.has_status, f"a finished item's status: {item}"
        if self.kind.table is SHELL_CALL:
            must_equal(item["action"]["commands"], self.commands, event, "the commands against the deltas")
        for name in self.kind.lists:
            must_equal(item.get(name) or [], self.parts[name], event, f"the item's {name} against its parts")
        if self.kind.field:
            must_equal(item[self.kind.field], self.text, event, f"{self.kind.field} against the deltas")


class StreamCheck:
    """The whole stream: number, lifecycle, open item, finished items."""

    def __init__(self) -> None:
        self.state = "new"
        self.item: ItemCheck | None = None
        self.finished: list[Any] = []
        self.first: Event = {}

    def take(self, event: Event) -> None:
        name = short_name(event)
        legal = LIFECYCLE[self.state]
        if self.state == "item" and self.item and name not in {"failed", "error"}:
            self.item.take(event)
        else:
            assert name in legal, (
                f"event {event['sequence_number']} {name!r}: the stream is {self.state!r},"
                f" which allows only {sorted(legal)}"
            )
        if name == "output_item.added":
            self._open(event)
        elif name == "output_item.done":
            self.finished.append(event["item"])
        elif "response" in event:
            self._check_response(event)
        self.state = legal.get(name, self.state)

    def _open(self, event: Event) -> None:
        self.item = ItemCheck(event, output_index=len(self.finished))
        taken = [item["id"] for item in self.finished]
        assert event["item"]["id"] not in taken, f"item id used twice: {event['item']['id']}"

    def _check_response(self, event: Event) -> None:
        response = event["response"]
        self.first = self.first or response
        for name in ("id", "object", "created_at", "model"):
            must_equal(response[name], self.first[name], event, f"the response's {name}")
        if "conversation" in response:  # it goes where the disk fails
            must_equal(response["conversation"], self.first.get("conversation"), event, "the response's conversation")
        must_equal(response["output"], self.finished, event, "output against the finished items")
        name = event["type"].removeprefix("response.")
        allowed = STATUSES.get(name, {name})
        assert response["status"] in allowed, f"{event['type']}: the response's status is {response['status']!r}"
        check_outcome(response)


# Events whose name is not the status. Neither specification has an event of its own for `cancelled`.
STATUSES = {"created": {"queued", "in_progress"}, "incomplete": {"incomplete", "cancelled"}}


def check_order(events: list[Event]) -> None:
    """Check the whole stream. Relies on each event's shape having been checked."""
    stream = StreamCheck()
    for number, event in enumerate(events):
        must_equal(event["sequence_number"], number, event, "sequence_number")
        stream.take(event)
    assert stream.state == "over", f"the stream ends without a terminal event, at {stream.state!r}"


# status -> the fields of a response that are null, and those that are not (1.5)
OUTCOMES = {
    "queued": ("usage completed_at error incomplete_details", ""),
    "in_progress": ("usage completed_at error incomplete_details", ""),
    "completed": ("error incomplete_details", "usage completed_at"),
    "incomplete": ("error completed_at", "usage incomplete_details"),
    "failed": ("completed_at incomplete_details", "error"),
    "cancelled": ("completed_at error", ""),
}


def check_outcome(response: Event) -> None:
    """Check the fields, items and usage of a response against its status."""
    status = response["status"]
    null, present = OUTCOMES[status]
    for name in null.split():
        assert name in response, f"{status} response: no {name}; it must be there, null"
        assert response[name] is None, f"{status} response: {name} is {response[name]!r}, not null"
    for name in present.split():
        if name == "incomplete_details" and response.get("responsed", {}).get("stop"):
            assert response[name] is None, "incomplete at a stop string: incomplete_details is not null"
            continue
        assert response.get(name) is not None, f"{status} response: no {name}"
    assert response["id"].startswith("resp_"), f"response id {response['id']!r}"
    _check_items(status, response["output"])
    if response.get("usage") is not None:
        _check_usage(response["usage"])


def _check_items(status: str, output: list[dict[str, Any]]) -> None:
    for position, item in enumerate(output):
        if not KINDS[item["type"]].has_status:
            continue
        assert item.get("status"), f"an item without status: {item}"
        if item["status"] == "incomplete":
            assert status in ("incomplete", "cancelled", "failed"), f"{status} response with an incomplete item: {item}"
            assert position == len(output) - 1, f"an incomplete item that is not the last: {item}"
        ends = ("completed", "failed") if item["type"] == "mcp_call" else ("completed",)
        assert status != "completed" or item["status"] in ends, f"unfinished at completed: {item}"


def _check_usage(usage: Event) -> None:
    cached = usage["input_tokens_details"]["cached_tokens"]
    reasoning = usage["output_tokens_details"]["reasoning_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], f"total: {usage}"
    assert 0 <= cached <= usage["input_tokens"], f"cached: {usage}"
    assert 0 <= reasoning <= usage["output_tokens"], f"reasoning: {usage}"
