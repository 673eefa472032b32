"""Reasoning as an item: streamed, plain, replayed, turned off, and in Chat Completions."""

from pathlib import Path
from typing import Any

import openai
import pytest
import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.dialects.families import detect_dialect
from engine.dialects.parser import Parser
from engine.job import EngineOutput, Finished, FinishReason, Started, Token
from engine.notations.argument_schema import ArgumentSchema
from server.postprocessing.output_processor import OutputProcessor
from server.postprocessing.tool_call_mapper import ToolCallMapper
from server.stream.inputs import (
    ArgumentsAdded,
    End,
    ReasoningAdded,
    StreamInput,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from tests.support import wire
from tests.support.helpers import NAME, encode, exchange, frames, get, official_client, post, served, types

THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}{% endfor %}{% if enable_thinking is defined %}<|system|>"
    "{{ 'think' if enable_thinking else 'do not' }}{% endif %}<|assistant|>"
)
"""Template of a reasoning model that can turn reasoning off."""
ANSWER = b"<think>\nSo it is.\n</think>\n\nYes."
REASONED = {"type": "reasoning_text", "text": "So it is."}


def thinker(answer: bytes = ANSWER) -> ScriptedModel:
    return ScriptedModel(lambda message: answer)


def kinds(response: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(item["type"], item["status"], item["content"][0]["text"]) for item in response["output"]]


@pytest.mark.slow
async def test_reasoning_is_an_item_before_message() -> None:
    async with served(thinker(), template=THINKS) as running:
        streamed = await post(running, input="Is it?", stream=True)
        folded = await post(running, input="Is it?")
    response = streamed.events[-1]["response"]
    wire.check_response(folded.json)
    assert kinds(response) == kinds(folded.json)
    assert kinds(response) == [("reasoning", "completed", "So it is."), ("message", "completed", "Yes.")]
    reasoning, message = response["output"]
    stem = response["id"].removeprefix("resp_")
    assert reasoning == {
        "type": "reasoning", "id": f"rs_{stem}00", "status": "completed", "content": [REASONED], "summary": [],
    }  # fmt: skip
    assert message["id"] == f"msg_{stem}01"
    # A byte is a token: usage counts the markers and their white space; the space after them belongs to the text.
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": len(b"<think>\nSo it is.\n</think>") - 6}
    reasoning_types = [kind for kind in types(streamed.events) if "reasoning" in kind]
    assert reasoning_types == ["response.reasoning_text.delta"] * 7 + ["response.reasoning_text.done"]


async def test_reasoning_events_setting_renames_events(tmp_path: Path) -> None:
    async with served(thinker(), template=THINKS, state=tmp_path, reasoning_events="open-responses") as running:
        streamed = await post(running, input="Is it?", stream=True)
        response = wire.open_responses_events(streamed.body)[-1]["response"]
        again = await get(running, f"/v1/responses/{response['id']}?stream=true")
    assert kinds(response)[0] == ("reasoning", "completed", "So it is.")
    assert again.body == streamed.body
    assert b"event: response.reasoning.delta\n" in frames(streamed.body)[4]


@pytest.mark.slow
async def test_client_of_open_responses_gets_its_names(tmp_path: Path) -> None:
    """The header of its examples asks for them, in this request only."""
    header = "OpenResponses-Version: latest"
    async with served(thinker(), template=THINKS, state=tmp_path) as running:
        streamed = await exchange(running, "POST", "/v1/responses", encode(input="Is it?", stream=True), header)
        path = f"/v1/responses/{wire.open_responses_events(streamed.body)[0]['response']['id']}?stream=true"
        again = await exchange(running, "GET", path, None, header)
        by_name = await get(running, path)
    assert again.body == streamed.body
    assert {"response.reasoning_text.delta", "response.reasoning_text.done"} <= set(types(by_name.events))


async def test_stored_stream_with_reasoning_is_replayed_exactly(tmp_path: Path) -> None:
    async with served(thinker(), template=THINKS, state=tmp_path) as running:
        streamed = await post(running, input="Is it?", stream=True)
        again = await get(running, f"/v1/responses/{streamed.events[0]['response']['id']}?stream=true")
    assert again.body == streamed.body


@pytest.mark.parametrize(
    ("reasoning", "rendered", "echoed"),
    [
        ({"effort": "none"}, "do not", {"effort": "none", "summary": None}),
        ({"effort": "minimal"}, "do not", {"effort": "minimal", "summary": None}),
        ({"effort": "low"}, "think", {"effort": "low", "summary": None}),
        ({"effort": "xhigh"}, "think", {"effort": "xhigh", "summary": None}),
        ({"summary": "auto"}, "", {"effort": None, "summary": "concise"}),
        ({"summary": "concise"}, "", {"effort": None, "summary": "concise"}),
        ({"summary": "detailed"}, "", {"effort": None, "summary": "detailed"}),
        ({"generate_summary": "detailed"}, "", {"effort": None, "summary": "detailed"}),
        ({"generate_summary": "detailed", "summary": "auto"}, "", {"effort": None, "summary": "concise"}),
        ({"summary": "none"}, "", {"effort": None, "summary": None}),
        (None, "", {"effort": None, "summary": None}),
    ],
)
async def test_effort_is_rendered_as_template_expects(reasoning: object, rendered: str, echoed: object) -> None:
    prompts: list[bytes] = []
    async with served(thinker(), template=THINKS) as running:
        answer = await post(running, input="Is it?", reasoning=reasoning)
        chunks = running.model.decoded
        prompts += [bytes(id_ for chunk in chunks[:1] for id_ in chunk.tokens if id_ < 256)]
    assert prompts == [f"Is it?{rendered}".encode()]
    assert answer.json["reasoning"] == echoed


async def test_effort_unknown_to_template_is_not_echoed() -> None:
    async with served() as running:
        answer = await post(running, input="Hi.", reasoning={"effort": "high"})
        wrong = await post(running, input="Hi.", reasoning={"effort": "very"})
    assert answer.json["reasoning"] == {"effort": None, "summary": None}
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "reasoning.effort")


@pytest.mark.slow
async def test_replayed_reasoning_is_rendered() -> None:
    async with served(thinker(), template=THINKS) as running:
        first = await post(running, input="Is it?")
        running.model.decoded.clear()
        again = [{"role": "user", "content": "Is it?"}, *first.json["output"], {"role": "user", "content": "Sure?"}]
        await post(running, input=again)
        evaluated = bytes(id_ for chunk in running.model.decoded for id_ in chunk.tokens if id_ < 256)
    # The first request has evaluated `Is it?<think>`.
    assert evaluated.startswith(b"So it is.</think>Yes.Sure?")


def by_the_official_client(url: str) -> openai.types.responses.Response:
    with (
        official_client(url) as client,
        client.responses.stream(model=NAME, input="Is it?") as stream,
    ):
        return stream.get_final_response()


@pytest.mark.slow
async def test_reasoning_is_read_by_official_client() -> None:
    async with served(thinker(), template=THINKS) as running:
        response = await trio.to_thread.run_sync(by_the_official_client, running.url)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == "Yes."


async def test_chat_completion_has_reasoning_content() -> None:
    body = encode(messages=[{"role": "user", "content": "Is it?"}], reasoning_effort="low")
    async with served(thinker(), template=THINKS) as running:
        answer = await exchange(running, "POST", "/v1/chat/completions", body)
    message = answer.json["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("So it is.", "Yes.")
    assert answer.json["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_answer_cut_in_reasoning_is_incomplete() -> None:
    async with served(thinker(), template=THINKS) as running:
        answer = await post(running, input="Is it?", stream=True, max_output_tokens=12)
    response = answer.events[-1]["response"]
    assert (response["status"], kinds(response)) == ("incomplete", [("reasoning", "incomplete", "So i")])


VOCABULARY = scripted.vocabulary()


def cues(answer: bytes, stops: tuple[str, ...] = (), knows: str = "<think></think>") -> list[StreamInput]:
    parser = Parser(detect_dialect(knows), {"f": ArgumentSchema({}, {})})
    listener = OutputProcessor(VOCABULARY, 3, stops, ToolCallMapper(parser, {}))
    pieces: list[EngineOutput] = [Started(0), *map(Token, answer), Finished(FinishReason.STOP)]
    return [cue for piece in pieces for cue in listener.process(piece, 7)]


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "b, c"}}\n</tool_call>'


def test_stop_string_in_call_is_ignored() -> None:
    found = cues(f"A{CALL}B, C".encode(), (",",), "<tool_call></tool_call>")
    arguments = "".join(cue.text for cue in found if isinstance(cue, ArgumentsAdded))
    text = "".join(cue.text for cue in found if isinstance(cue, TextAdded))
    assert (arguments, text) == ('{"a": "b, c"}', "AB")
    assert [cue for cue in found if not isinstance(cue, TextAdded | ArgumentsAdded | End)] == [
        ToolCallStarted("f"),
        ToolCallEnded(),
    ]


@pytest.mark.parametrize("stop", ["<tool_call>", "\n", '"name"', "{", "}", "f", "call>"])
def test_stop_string_in_call_marker_is_ignored(stop: str) -> None:
    found = cues(f"A{CALL}".encode(), (stop,), "<tool_call></tool_call>")
    assert [cue for cue in found if not isinstance(cue, ArgumentsAdded)][:3] == [
        TextAdded("A"),
        ToolCallStarted("f"),
        ToolCallEnded(),
    ]
    assert isinstance(found[-1], End)
    assert found[-1].stop is None


@pytest.mark.parametrize(
    ("output", "stop", "expected"),
    [
        ("one\n\ntwo", "\n\n", [TextAdded("one")]),
        (f"one; two{CALL}", ";", [TextAdded("one")]),
        (
            f"A{CALL}B, C",
            ", ",
            [TextAdded("A"), ToolCallStarted("f"), ArgumentsAdded('{"a": "b, c"}'), ToolCallEnded(), TextAdded("B")],
        ),
        ("<think>\n\n</think>\n\nA", "\n\n", [TextAdded("A")]),
        ("<think>a\n\nb</think>\n\nA", "\n\n", [ReasoningAdded("a")]),
        ("<think>x y</think>x, y", ", ", [ReasoningAdded("x y"), TextAdded("x")]),
        ("<think>ab</think>cd", "bc", [ReasoningAdded("ab"), TextAdded("cd")]),
        ("<think>ab</think>cd", "</think>", [ReasoningAdded("ab"), TextAdded("cd")]),
        (f"ab{CALL}", "bc", [TextAdded("ab"), ToolCallStarted("f"), ArgumentsAdded('{"a": "b, c"}'), ToolCallEnded()]),
        ("ab", "bc", [TextAdded("ab")]),
    ],
)
def test_stop_string_matches_text_as_client_sees_it(output: str, stop: str, expected: list[StreamInput]) -> None:
    *found, end = cues(output.encode(), (stop,), "<think></think><tool_call></tool_call>")
    assert joined(found) == expected
    assert isinstance(end, End)
    assert end.stop == (
        None if expected == joined(cues(output.encode(), (), "<think></think><tool_call></tool_call>")[:-1]) else stop
    )


def joined(found: list[StreamInput]) -> list[StreamInput]:
    """Return the stream inputs with neighbours of one kind joined."""
    whole: list[StreamInput] = []
    for cue in found:
        last = whole[-1] if whole else None
        if isinstance(cue, TextAdded | ReasoningAdded | ArgumentsAdded) and isinstance(last, type(cue)):
            whole[-1] = type(cue)(last.text + cue.text)
        else:
            whole.append(cue)
    return whole


def test_stop_string_in_reasoning_ends_answer() -> None:
    found = cues(b"<think>abcdef</think>g", ("de",))
    assert "".join(cue.text for cue in found if isinstance(cue, ReasoningAdded)) == "abc"
    assert not any(isinstance(cue, TextAdded) for cue in found)
    assert isinstance(found[-1], End)
    assert found[-1].stop == "de"
