"""`prompt_cache_breakpoint` marks a place in the prompt; the scripted model's tokens are bytes."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template.template import ChatTemplate
from engine.model import SavedState
from server.prompt import breakpoints, chat, conversation
from server.protocol import chat_request
from server.protocol import request as schema
from server.protocol.errors import InvalidRequest
from tests.support.helpers import post, served

VOCABULARY = scripted.vocabulary()
TEMPLATE = ChatTemplate(scripted.TEMPLATE, VOCABULARY)
MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "input_text", "text": text, **more}


def user(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def rendered_before(prompt: conversation.PromptMessages) -> list[str]:
    """Return the prompt before each breakpoint."""
    tokens = TEMPLATE.prompt(prompt.messages)
    positions = breakpoints.token_positions(tokens, prompt.items, VOCABULARY.bytes_of)
    return [
        "".join(scripted.CONTROL[token - 256] if token >= 256 else chr(token) for token in tokens[:position])
        for position in positions
    ]


OUTPUT = [
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": [text("4", **MARK), text("5")]},
]
PLACES: dict[str, tuple[list[Any], list[str]]] = {
    "none": ([user(text("Hello"))], []),
    "null": ([user(text("Hello", prompt_cache_breakpoint=None))], []),
    "the end of a text": ([user(text("Hello", **MARK))], ["<|user|>Hello"]),
    "between two parts": ([user(text("He", **MARK), text("llo"))], ["<|user|>He"]),
    "two messages": (
        [user(text("Rules", **MARK), role="developer"), user(text("A", **MARK), text("B", **MARK))],
        ["<|system|>Rules", "<|system|>Rules<|user|>A", "<|system|>Rules<|user|>AB"],
    ),
    "the latest four": (
        [user(*(text(letter, **MARK) for letter in "abcdef"))],
        ["<|user|>abc", "<|user|>abcd", "<|user|>abcde", "<|user|>abcdef"],
    ),
    "a file": (
        [user({"type": "input_file", "file_data": "data:,abc", **MARK}, text("?"))], ["<|user|>abc"],
    ),
    "white space": ([user(text(" a ", **MARK), text("b"))], ["<|user|> a "]),
}  # fmt: skip


@pytest.mark.parametrize(("items", "expected"), PLACES.values(), ids=PLACES)
def test_breakpoint_marks_the_end_of_its_part(items: list[Any], expected: list[str]) -> None:
    request = schema.decode(json.dumps({"input": items}).encode())
    assert rendered_before(conversation.messages_of(request)) == expected


def test_breakpoint_of_an_output_is_behind_its_part() -> None:
    request = schema.decode(json.dumps({"input": OUTPUT}).encode())
    [before] = rendered_before(conversation.messages_of(request))
    assert before.endswith("4")


def test_breakpoint_of_a_chat_message_is_behind_its_part() -> None:
    parts = [{"type": "text", "text": "He", **MARK}, {"type": "text", "text": "llo"}]
    body = chat_request.decode(json.dumps({"messages": [{"role": "user", "content": parts}]}).encode())
    assert rendered_before(chat.messages_of(body)) == ["<|user|>He"]


def test_breakpoint_ttl_has_no_effect_and_is_named() -> None:
    part = text("Hello", prompt_cache_breakpoint={"mode": "explicit", "ttl": "12h"})
    request = schema.decode(json.dumps({"input": [user(part)]}).encode())
    assert conversation.messages_of(request).skipped == ("prompt_cache_breakpoint.ttl",)


REFUSED = {
    "no mode": ({}, "input[0].content[0].prompt_cache_breakpoint"),
    "another mode": ({"mode": "implicit"}, "input[0].content[0].prompt_cache_breakpoint.mode"),
    "another member": ({"mode": "explicit", "x": 1}, "input[0].content[0].prompt_cache_breakpoint"),
}


@pytest.mark.parametrize(("mark", "param"), REFUSED.values(), ids=REFUSED)
def test_invalid_breakpoint_is_refused_by_its_place(mark: dict[str, Any], param: str) -> None:
    request = schema.decode(json.dumps({"input": [user(text("Hello", prompt_cache_breakpoint=mark))]}).encode())
    with pytest.raises(InvalidRequest) as refusal:
        conversation.messages_of(request)
    assert refusal.value.param == param


class SavingModel(ScriptedModel):
    """Model that records the ends of saved states."""

    def __init__(self, cuts_state: bool) -> None:
        super().__init__(n_slots=1, batched=True)
        self.info = replace(self.info, cuts_state=cuts_state, truncates=cuts_state)
        self.saved: list[int] = []

    def save(self, slot: int, start: int, end: int) -> SavedState:
        self.saved.append(end)
        return super().save(slot, start, end)


@pytest.mark.slow
@pytest.mark.parametrize("cuts_state", [False, True])
async def test_state_that_cannot_be_cut_is_saved_at_the_breakpoint(cuts_state: bool) -> None:
    model = SavingModel(cuts_state)
    async with served(model) as running:
        answer = await post(running, input=[user(text("He" * 30, **MARK), text("llo" * 30))])
    assert answer.status == 200
    assert (1 + 2 * 30 in model.saved) is not cuts_state
