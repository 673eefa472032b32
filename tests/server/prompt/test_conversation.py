"""Requests become messages, sampling settings and engine jobs."""

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from engine.chat_template.message import Call, Message
from server.prompt import conversation
from server.prompt.conversation import PromptMessages
from server.protocol.errors import InvalidRequest
from tests.server.prompt.requests import request


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | fields


def file(data: str) -> list[Any]:
    return [user([{"type": "input_file", "filename": "a.txt", "file_data": data}])]


def text_part(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def called(*calls: Call, reasoning: str = "") -> Message:
    return Message("assistant", "", reasoning, calls)


def gave(content: str, name: str, call_id: str) -> Message:
    return Message("tool", content, name=name, call_id=call_id)


HI = Message("user", "Hi")

SHAPES: dict[str, tuple[dict[str, Any], list[Message]]] = {
    "a text": ({"input_": "Hi"}, [HI]),
    "an easy message": ({"input_": [user("Hi")]}, [HI]),
    "a typed message": ({"input_": [user("Hi", type="message", id="msg_1", status="completed")]}, [HI]),
    "a message of nobody's type": ({"input_": [user("Hi", type=None)]}, [HI]),
    "parts": (
        {"input_": [user([{"type": "input_text", "text": "H"}, {"type": "text", "text": "i"}])]}, [HI],
    ),
    "an empty part": ({"input_": [user([{"type": "input_text", "text": ""}])]}, [Message("user", "")]),
    "a text null": ({"input_": [user([{"type": "input_text", "text": None}])]}, [Message("user", "")]),
    "content without parts": ({"input_": [user([])]}, [Message("user", "")]),
    "a conversation": (
        {
            "input_": [
                user("One?"),
                {"role": "assistant", "content": [{"type": "output_text", "text": "1", "annotations": []}]},
                {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
                user("Two?"),
            ]
        },
        [Message("user", "One?"), Message("assistant", "1"), Message("assistant", "No."), Message("user", "Two?")],
    ),
    "calls and outputs": (
        {
            "input_": [
                user("Hot?"),
                {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"sky"}'},
                {"type": "function_call_output", "call_id": "call_1", "output": "21 C"},
                {"type": "function_call", "name": "again", "id": "fc_1", "status": "completed"},
                {"type": "function_call_output", "output": [{"type": "input_text", "text": "22"}, text_part(" C")]},
            ]
        },
        [
            Message("user", "Hot?"),
            called(Call("call_1", "look", '{"at":"sky"}')),
            gave("21 C", "look", "call_1"),
            called(Call("", "again", "")),
            gave("22 C", "again", ""),
        ],
    ),
    "calls side by side, after a text": (
        {
            "input_": [
                {"role": "assistant", "content": "Let me see."},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
                {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "*** Begin"},
                {"type": "custom_tool_call_output", "call_id": "b", "output": "done"},
                user("Hurry."),
                {"type": "function_call_output", "call_id": "a", "output": "1"},
                {"role": "assistant", "content": "There."},
            ]
        },
        [
            *(Message("assistant", "Let me see."), Message("user", "Hurry.")),
            Message("assistant", "", calls=(Call("a", "f", "{}"), Call("b", "patch", "*** Begin"))),
            *(gave("1", "f", "a"), gave("done", "patch", "b"), Message("assistant", "There.")),
        ],
    ),
    "a call without its output, and the other way round": (
        {
            "input_": [
                {"type": "function_call_output", "call_id": "a", "output": "1"},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}'},
                user("Hi"),
            ]
        },
        [Message("user", "1"), Message("assistant", 'f({"x":1})'), HI],
    ),
    "calls of one id": (
        {
            "input_": [
                {"type": "function_call", "call_id": "a", "name": "f"},
                {"type": "function_call_output", "call_id": "a", "output": "1"},
                {"type": "function_call", "call_id": "a", "name": "g"},
                {"type": "function_call_output", "call_id": "a", "output": "2"},
            ]
        },
        [called(Call("a", "f", "")), gave("1", "f", "a"), called(Call("a", "g", "")), gave("2", "g", "a")],
    ),
    "outputs and arguments that are JSON": (
        {
            "input_": [
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": {"x": 1}},
                {"type": "function_call_output", "call_id": "a", "output": {"y": [2]}},
                {"type": "function_call", "call_id": "b", "name": "g", "arguments": None},
                {"type": "function_call_output", "call_id": "b", "output": [{"z": 3}]},
                {"type": "function_call", "call_id": "c", "name": "h"},
                {"type": "function_call_output", "call_id": "c", "output": None},
            ]
        },
        [
            *(called(Call("a", "f", '{"x": 1}')), gave('{"y": [2]}', "f", "a")),
            *(called(Call("b", "g", "")), gave('[{"z": 3}]', "g", "b"), called(Call("c", "h", "")), gave("", "h", "c")),
        ],
    ),
    "reasoning before a text and before a call": (
        {
            "input_": [
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                {"role": "assistant", "content": "Well."},
                {"type": "reasoning", "summary": [], "content": "Hm"},
                {"type": "reasoning", "summary": [], "content": "m."},
                {"type": "function_call", "call_id": "a", "name": "f"},
                {"type": "reasoning", "content": "And?"},
                {"type": "function_call", "call_id": "b", "name": "g"},
                {"type": "function_call_output", "call_id": "a", "output": "1"},
                {"type": "reasoning", "content": "So"},
                {"type": "function_call_output", "call_id": "b", "output": "2"},
                {"type": "message", "role": "assistant", "content": "Yes."},
                {"type": "reasoning", "content": "Nobody answers this."},
                user("Hi"),
            ]
        },
        [
            Message("assistant", "Well.", "Hm."),
            *(called(Call("a", "f", ""), reasoning="Hm\n\nm."), gave("1", "f", "a")),
            *(called(Call("b", "g", ""), reasoning="And?"), gave("2", "g", "b")),
            *(Message("assistant", "Yes.", "So"), HI),
        ],
    ),
    "instructions": ({"input_": "Hi", "instructions": "Be brief."}, [Message("system", "Be brief."), HI]),
    "no instructions": ({"input_": "Hi", "instructions": None}, [HI]),
    "empty instructions": ({"input_": "Hi", "instructions": ""}, [HI]),
    "developers are system": ({"input_": [{"role": "developer", "content": "D"}]}, [Message("system", "D")]),
    "leading system messages are one": (
        {
            "input_": [{"role": "system", "content": "S"}, {"role": "developer", "content": "D"}, user("Hi")],
            "instructions": "I",
        },
        [Message("system", "I\n\nS\n\nD"), HI],
    ),
    "later system messages stay where they are": (
        {"input_": [user("Hi"), {"role": "system", "content": "S"}], "instructions": "I"},
        [Message("system", "I"), HI, Message("system", "S")],
    ),
    "a file's text": ({"input_": file("Hi")}, [HI]),
    "a file as data URL, base64": ({"input_": file("data:text/plain;base64,SGk=")}, [HI]),
    "a file as data URL, percent": ({"input_": file("data:text/plain;charset=utf-8,H%69")}, [HI]),
    "a file of base64 in percent": ({"input_": file("data:;base64,SGk%3D")}, [HI]),
    "an empty file": ({"input_": file("data:,")}, [Message("user", "")]),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), SHAPES.values(), ids=SHAPES)
def test_conversation_of_each_shape_has_expected_messages(fields: dict[str, Any], expected: list[Message]) -> None:
    assert replace(conversation.messages_of(request(**fields)), items=()) == PromptMessages(tuple(expected), ())


def test_conversation_with_unknown_items_names_the_skipped() -> None:
    parts = [text_part("1"), {"type": "input_image", "image_url": "data:,"}, {"type": "input_file", "file_data": "2"}]
    items = [
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAA"},
        user([text_part("Hi"), {"type": "zzz"}, {}]),
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"status": "completed"},
        {"type": "function_call", "name": "f"},
        {"type": "function_call_output", "output": [*parts, {"type": "input_file", "file_data": "data:,%ff"}]},
    ]
    skipped = (
        *("item reasoning, encrypted by another server", "part zzz", "part without type", "item web_search_call"),
        *("item without type and role", "part input_image of an output", "part input_file of an output"),
    )
    omitted = "[image omitted: this model reads text]"
    messages = (HI, called(Call("", "f", "")), gave(f"1{omitted}2[file omitted: this model reads text]", "f", ""))
    assert replace(conversation.messages_of(request(items)), items=()) == PromptMessages(messages, skipped)


ORDERS: list[tuple[list[str], list[str]]] = [
    (["u1", "c1", "o1", "a1"], ["u1", "c1", "o1", "a1"]),
    (["u1", "c1", "a1", "o1"], ["u1", "a1+c1", "o1"]),
    (["u1", "a1", "c1", "o1"], ["u1", "a1+c1", "o1"]),
    (["u1", "c1", "u2", "o1"], ["u1", "u2", "c1", "o1"]),
    (["u1", "c1", "c2", "o1", "a1", "o2"], ["u1", "a1+c1+c2", "o1", "o2"]),
    (["u1", "c1", "c2", "o2", "o1"], ["u1", "c1+c2", "o1", "o2"]),
    (["u1", "c1", "o1", "c2", "o2", "a1"], ["u1", "c1", "o1", "c2", "o2", "a1"]),
    (["u1", "c1", "s1", "o1"], ["u1", "s1", "c1", "o1"]),
    (["u1", "c1", "a1", "u2", "o1", "a2"], ["u1", "a1", "u2", "c1", "o1", "a2"]),
]


@pytest.mark.parametrize(("names", "expected"), ORDERS)
def test_history_with_calls_keeps_order_and_last_turn(names: list[str], expected: list[str]) -> None:
    """u, a, s: messages of user, assistant, system; c, o: a call and its output."""
    roles = {"u": "user", "a": "assistant", "s": "system"}

    def item(name: str) -> dict[str, Any]:
        if name[0] == "c":
            return {"type": "function_call", "call_id": name[1:], "name": name, "arguments": "{}"}
        if name[0] == "o":
            return {"type": "function_call_output", "call_id": name[1:], "output": name}
        return {"role": roles[name[0]], "content": name}

    messages = conversation.messages_of(request([item(name) for name in names])).messages
    found = ["+".join(filter(None, [each.content, *(call.name for call in each.calls)])) for each in messages]
    assert found == expected


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
OMITTED = "[image omitted: this model reads text]"
HISTORY: list[tuple[list[Any], list[str]]] = [
    ([user([text_part("a"), IMAGE]), {"role": "assistant", "content": "b"}, user("c")], [f"a{OMITTED}", "b", "c"]),
    ([user([{"type": "input_file", "file_id": "file_1"}]), user("c")],
     ["[file omitted: this server reads text in `file_data` only]", "c"]),
    ([user([{"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0xLjcK/w=="}]), user("c")],
     ["[file omitted: this server reads text in `file_data` only]", "c"]),
    ([user([{"type": "input_audio", "input_audio": {}}]), user("c")], ["[audio omitted: this model reads text]", "c"]),
    ([user("a"), {"type": "function_call", "call_id": 7, "name": "f", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "7", "output": [IMAGE]}], ["a", "f{}", OMITTED]),
    ([user("a"), {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}},
      {"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "x.py", "stderr": "", "outcome": {}}]}],
     ["a", 'shell{"commands":["ls"]}', "x.py"]),
    ([user("a"), {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls", "x"], "timeout_ms": None}},
      {"type": "shell_call_output", "call_id": "s", "output": [
          {"stdout": "", "stderr": "No x.", "outcome": {"type": "exit", "exit_code": 2}},
          {"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}},
          {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}}]}],
     ["a", 'shell{"commands":["ls","x"]}', "No x.\nExit code 2.\nThe command timed out."]),
    ([user("a"), {"type": "local_shell_call", "call_id": "s", "action": {"command": ["ls"]}},
      {"type": "local_shell_call_output", "id": "s", "output": "x.py"}],
     ["a", 'local_shell{"command":["ls"]}', "x.py"]),
    ([user("a"), {"type": "local_shell_call", "id": "lsh_1", "call_id": "s", "status": "completed",
                  "action": {"type": "exec", "command": ["ls"], "env": {}, "timeout_ms": 9}},
      {"type": "local_shell_call_output", "id": "lsh_1", "output": "x.py"}],
     ["a", 'local_shell{"command":["ls"],"timeout_ms":9}', "x.py"]),
    ([user("a"), {"type": "apply_patch_call", "call_id": "p", "operation": {"type": "delete_file", "path": "x"}},
      {"type": "apply_patch_call_output", "call_id": "p", "status": "completed", "output": "gone"}],
     ["a", 'apply_patch{"type":"delete_file","path":"x"}', "gone"]),
    ([user("a"), {"type": "apply_patch_call", "call_id": "p", "operation": {"type": "delete_file", "path": "x"}},
      {"type": "apply_patch_call_output", "call_id": "p", "status": "failed", "output": "no x"}],
     ["a", 'apply_patch{"type":"delete_file","path":"x"}', "failed: no x"]),
    ([user("a"), {"type": "apply_patch_call", "call_id": "p", "operation": {"type": "delete_file", "path": "x"}},
      {"type": "apply_patch_call_output", "call_id": "p", "status": "completed"}],
     ["a", 'apply_patch{"type":"delete_file","path":"x"}', "completed"]),
    ([user("a"), {"type": "tool_search_call", "call_id": "t", "execution": "client", "arguments": {"query": "mail"}},
      {"type": "tool_search_output", "call_id": "t", "execution": "client", "tools": [
          {"type": "function", "name": "send"},
          {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}]}]}],
     ["a", 'tool_search{"query":"mail"}', "send\ncrm__find"]),
    ([user("a"), {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {}},
      {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": []}],
     ["a", "tool_search{}", "No tool was found."]),
    ([user("a"), {"type": "mcp_call", "id": "m", "name": "roll", "server_label": "d", "arguments": '{"n":1}',
                  "output": "4"}], ["a", 'd__roll{"n":1}', "4"]),
    ([user("a"), {"type": "mcp_call", "id": "m", "name": "roll", "arguments": "{}", "error": "no dice"}],
     ["a", "roll{}", "no dice"]),
    ([user("a"), {"type": "code_interpreter_call", "id": "c", "code": "1+1", "container_id": "k",
                  "outputs": [{"type": "logs", "logs": "2"}]}],
     ["a", 'code_interpreter{"code":"1+1","container_id":"k"}', "2"]),
    ([user("a"), {"type": "file_search_call", "id": "f", "queries": ["q"], "results": [{"text": "found", "score": 1}]}],
     ["a", 'file_search{"queries":["q"]}', "found"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([{"name": "g"}, {"name": "f"}], ["f{}", "1", "g{}", "0"]),
        ([{"name": "f", "namespace": None}, {"call_id": "two"}], ["f{}", "0", "g{}", "1"]),
        ([{"name": "f", "call_id": "two"}, {"name": "f"}], ["f{}", "1", "g{}", "0"]),
        ([{"name": "h"}, {"name": "f", "namespace": "s"}], ["f({})", "g({})", "0", "1"]),
    ],
)
def test_output_without_call_id_belongs_to_call_of_its_name(outputs: list[dict[str, Any]], expected: list[str]) -> None:
    """Asynchronous tools answer turns later."""
    calls = [
        {"type": "function_call", "call_id": id_, "name": name, "arguments": "{}"}
        for id_, name in (("one", "f"), ("two", "g"))
    ]
    later = [{"type": "function_call_output", "output": str(n)} | each for n, each in enumerate(outputs)]
    messages = conversation.messages_of(request([*calls, *later])).messages
    found = [call.name + call.arguments for each in messages for call in each.calls]
    results = [each.content for each in messages if each.content]
    assert sorted([*found, *results]) == sorted(expected)


@pytest.mark.parametrize(("items", "expected"), HISTORY)
def test_history_with_unreadable_parts_has_text_or_placeholder(items: list[Any], expected: list[str]) -> None:
    messages = conversation.messages_of(request(items)).messages
    assert [each.content + "".join(call.name + call.arguments for call in each.calls) for each in messages] == expected


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (None, "input[1].content"),
        ([{"type": "bogus", "x": 1}], "input[1].content"),
        ([{}], "input[1].content"),
        ([text_part("a"), IMAGE], "input[1].content[1]"),
        ([{"type": "input_file", "file_id": "file_1"}], "input[1].content[0]"),
    ],
)
def test_newest_user_message_with_unreadable_part_is_rejected(content: Any, place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        conversation.messages_of(request([user("first"), user(content), {"role": "assistant", "content": "x"}]))
    assert caught.value.param == place


PARTS = [{"type": "reasoning_text", "text": "H"}, {"type": "summary_text", "text": "m"}, {"type": "zzz"}, "."]
REASONING: list[tuple[dict[str, Any], str]] = [
    ({"content": PARTS}, "H\n\nm\n\n."),
    ({"content": PARTS[:1], "summary": "S", "encrypted_content": None, "id": "rs_1", "status": None}, "H"),
    ({"content": "H", "summary": []}, "H"),
    ({"content": None, "summary": [{"type": "summary_text", "text": "S"}]}, "S"),
    ({"content": [], "summary": "S"}, "S"),
    ({"summary": ["S", "T"], "encrypted_content": "gAAAAA"}, "S\n\nT"),
    ({"summary": []}, ""),
    ({"content": None, "summary": None}, ""),
    ({"content": 5, "summary": {"text": "S"}}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("fields", "text"), REASONING)
def test_reasoning_item_of_each_shape_is_read(fields: dict[str, Any], text: str) -> None:
    items = [{"type": "reasoning"} | fields, {"role": "assistant", "content": "A"}]
    assert replace(conversation.messages_of(request(items)), items=()) == PromptMessages(
        (Message("assistant", "A", text),), ()
    )


def item(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


QUESTION = item(type="message", id="msg_1", role="user", content="Hi")
CALL = item(type="function_call", id="fc_1", call_id="a", name="f", arguments="{}")
PAST = [msgspec.Raw(item(role="developer", content="D")), msgspec.Raw(QUESTION), msgspec.Raw(CALL)]


def test_past_follows_instructions_and_precedes_input() -> None:
    answered = request([{"type": "function_call_output", "call_id": "a", "output": "1"}], instructions="I")
    messages = (Message("system", "I\n\nD"), HI, called(Call("a", "f", "{}")), gave("1", "f", "a"))
    assert replace(conversation.messages_of(answered, PAST), items=()) == PromptMessages(messages, ())


@pytest.mark.parametrize(
    ("fields", "name"), [({}, "previous_response_id"), ({"conversation": "conv_1"}, "conversation")]
)
def test_past_with_unreadable_item_names_its_field(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        conversation.messages_of(request(**fields), [msgspec.Raw(item(role="boss"))])
    assert caught.value.param == f"{name}[0].role"


@pytest.mark.parametrize(
    ("input_", "message"), [(None, "`input` is missing"), ("", "has no text"), ([], "has no text")]
)
def test_conversation_with_past_needs_no_input(input_: Any, message: str) -> None:
    assert replace(conversation.messages_of(request(input_), [msgspec.Raw(QUESTION)]), items=()) == PromptMessages(
        (HI,), ()
    )
    for past in ([], [msgspec.Raw(item(type="zzz"))]):
        with pytest.raises(InvalidRequest, match="has no text" if past else message):
            conversation.messages_of(request(input_), past)


def test_conversation_without_content_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="`input` has no text for the model to answer; skipped: item zzz"):
        conversation.messages_of(request([{"type": "zzz"}]), [msgspec.Raw(QUESTION)])
