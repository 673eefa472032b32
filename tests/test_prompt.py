"""Good requests become these messages, this sampling, these jobs."""

import json
from typing import Any

import pytest

from engine import Job, Message, Sampling
from server import prompt, schema
from server.errors import InvalidRequest
from server.prompt import Conversation

DEFAULT = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)


def request(input_: Any = "hi", **fields: Any) -> schema.Request:
    return schema.decode(json.dumps({"model": "m", "input": input_} | fields).encode())


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | fields


def file(data: str) -> list[Any]:
    return [user([{"type": "input_file", "filename": "a.txt", "file_data": data}])]


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
    "no content": ({"input_": [{"role": "user"}]}, [Message("user", "")]),
    "content null": ({"input_": [user(None)]}, [Message("user", "")]),
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
    "a tool's turn": (
        {
            "input_": [
                user("Hot?"),
                {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"sky"}'},
                {"type": "function_call_output", "call_id": "call_1", "output": "21 C"},
                {"type": "function_call", "name": "again"},
                {"type": "function_call_output", "output": [{"type": "input_text", "text": "22 C"}]},
            ]
        },
        [
            Message("user", "Hot?"),
            Message("assistant", 'look({"at":"sky"})'),
            Message("user", "21 C"),
            Message("assistant", "again()"),
            Message("user", "22 C"),
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
def test_a_shape_becomes_these_messages(fields: dict[str, Any], expected: list[Message]) -> None:
    assert prompt.conversation(request(**fields)) == Conversation(tuple(expected), ())


def test_what_is_not_known_is_skipped_and_told() -> None:
    items = [
        {"type": "reasoning", "summary": []},
        user([{"type": "input_text", "text": "Hi"}, {"type": "zzz"}, {}]),
        {"type": "item_reference", "id": "msg_1"},
        {"id": "x"},
    ]
    skipped = ("item reasoning", "part zzz", "part without type", "item item_reference", "item without type and role")
    assert prompt.conversation(request(items)) == Conversation((HI,), skipped)


STOPS: list[tuple[Any, tuple[str, ...]]] = [
    (None, ()),
    ("END", ("END",)),
    ([], ()),
    (["a", "b"], ("a", "b")),
]


@pytest.mark.parametrize(("stop", "expected"), STOPS, ids=repr)
def test_stop_is_a_text_or_a_list(stop: Any, expected: tuple[str, ...]) -> None:
    assert prompt.stops(request(stop=stop)) == expected


SAMPLINGS: list[tuple[dict[str, Any], Sampling]] = [
    ({}, DEFAULT),
    (dict.fromkeys(Sampling.__struct_fields__), DEFAULT),
    ({"temperature": 0}, Sampling(0.0, 0.95, 40, 0.05)),
    (
        {"temperature": 1.5, "top_p": 0.5, "top_k": 0, "min_p": 0, "seed": 7},
        Sampling(1.5, 0.5, 0, 0.0, 7),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), SAMPLINGS, ids=repr)
def test_sampling_is_the_default_but_for_what_is_asked(fields: dict[str, Any], expected: Sampling) -> None:
    assert prompt.sampling(request(**fields), DEFAULT) == expected


JOBS: list[tuple[int | None, int, int]] = [
    (None, 97, 3),
    (1, 97, 1),
    (3, 97, 3),
    (4, 97, 3),
    (10**30, 97, 3),
    (None, 99, 1),
]
"""`max_output_tokens`, tokens of the prompt, and what is generated at most in a context of 100."""


@pytest.mark.parametrize(("wished", "n_prompt", "granted"), JOBS)
def test_a_job_gets_what_the_context_leaves(wished: int | None, n_prompt: int, granted: int) -> None:
    tokens = range(n_prompt)
    job = prompt.job(request(max_output_tokens=wished), tokens, DEFAULT, 100)
    assert job == Job(tuple(tokens), granted, DEFAULT)


@pytest.mark.parametrize("n_prompt", [100, 1000])
def test_too_long_a_prompt_is_refused(n_prompt: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prompt.job(request(), range(n_prompt), DEFAULT, 100)
    assert (caught.value.param, caught.value.code, caught.value.message) == (
        "input",
        "context_length_exceeded",
        (
            f"The input has {n_prompt} tokens, and the model's context holds 100. "
            "Shorten the input, or start the server with a larger --context."
        ),
    )
