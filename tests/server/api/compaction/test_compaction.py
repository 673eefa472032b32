"""Compaction within `POST /v1/responses`: `compaction_trigger`, `context_management`, and the items sent back."""

import re
from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import Reply, ScriptedModel
from server.prompt import compaction
from server.prompt.items import summary
from server.stream.compaction_item import DELTAS_PER_EVENT, decode_summary, encode_summary
from tests.server.api.tools.test_tools import HERMES, WEATHER
from tests.support.helpers import Answer, get, post, prompt_text, served, text, types

TRIGGER = {"type": "compaction_trigger"}
TALK: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "A greeting."}]},
    {"role": "assistant", "content": "Hi."},
    {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "a", "output": "21 C"},
    {"role": "user", "content": "Go on"},
]
SUMMARY = summary.HEADING + "They greeted."


def scribe(words: str = "They greeted.", answer: str = "Yes.") -> Reply:
    """Return the replies of a model that summarizes if it is asked to."""

    def reply(message: bytes) -> bytes:
        asked = message.endswith(compaction.SUMMARY_PROMPT.encode())
        return (words if asked else answer).encode()

    return reply


def summaries(answer: Answer) -> list[str | None]:
    output = answer.events[-1]["response"]["output"]
    return [decode_summary(item["encrypted_content"]) for item in output if item["type"] == "compaction"]


async def test_compaction_trigger_gives_one_compaction_item() -> None:
    async with served(ScriptedModel(scribe())) as running:
        streamed = await post(running, input=[*TALK, TRIGGER], stream=True)
        whole = await post(running, input=[*TALK, TRIGGER])
    assert types(streamed.events) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.compaction.compacting",
        "response.output_item.done",
        "response.completed",
    ]
    (item,) = whole.json["output"]
    assert item == {"type": "compaction", "id": item["id"], "encrypted_content": encode_summary("They greeted.")}
    assert streamed.events[2]["item"]["encrypted_content"] == ""
    assert (whole.json["status"], whole.json["temperature"]) == ("completed", 0)
    assert "responsed" not in whole.json


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("<think>Well.</think>They greeted.", "They greeted."),
        ("  They greeted.\n", "They greeted."),
        ('<tool_call>{"name": "get_weather", "arguments": {"city": "x"}}</tool_call>Greeted.', "Greeted."),
        ("x" * 5000, "x" * compaction.MAX_SUMMARY_TOKENS),
    ],
)
async def test_summary_is_the_text_without_reasoning_and_calls(words: str, found: str) -> None:
    template = HERMES + "{# <think></think> #}"
    async with served(ScriptedModel(scribe(words), n_ctx=1 << 14), template=template) as running:
        answer = await post(running, input=[*TALK, TRIGGER], tools=[WEATHER], tool_choice="required", stream=True)
    assert summaries(answer) == [found]
    assert types(answer.events).count("response.compaction.compacting") == 1 + len(found) // DELTAS_PER_EVENT
    assert [item["type"] for item in answer.events[-1]["response"]["output"]] == ["compaction"]


async def test_compaction_without_summary_fails() -> None:
    async with served(ScriptedModel(scribe(" "))) as running:
        streamed = await post(running, input=[*TALK, TRIGGER], stream=True)
        whole = await post(running, input=[*TALK, TRIGGER])
    assert types(streamed.events)[-2:] == ["error", "response.failed"]
    assert (whole.status, whole.json["error"]["message"]) == (
        500,
        "The model wrote no summary; the conversation was not compacted.",
    )


async def test_compaction_prompt_continues_the_turn_before() -> None:
    """So the KV cache has all of it, tools included."""
    async with served(ScriptedModel(scribe(), n_ctx=1 << 14, n_slots=1), template=HERMES) as running:
        first = (await post(running, input=TALK, tools=[WEATHER])).json
        compacted = (await post(running, input=[*TALK, *first["output"], TRIGGER], tools=[WEATHER])).json
    cached = compacted["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["input_tokens"]


async def test_clock_in_instructions_leaves_the_compaction_prompt_in_the_cache() -> None:
    """The line with the clock moves behind the stable part, as in other prompts."""
    stable = "Be kind. " * 20
    async with served(ScriptedModel(scribe(), n_slots=1), volatile=("clock",)) as running:
        await post(running, input=TALK[1:], instructions=f"Current time: 12:30.\n{stable}")
        later = f"Current time: 12:31.\n{stable}"
        compacted = (await post(running, input=[*TALK[1:], TRIGGER], instructions=later)).json
    assert compacted["usage"]["input_tokens_details"]["cached_tokens"] > len(stable)


BEFORE = ["Be kind.", "Hello", "Go on", SUMMARY]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([*TALK], [*BEFORE, "So?"]),
        ([*TALK, TRIGGER], [*BEFORE, "So?"]),
        ([TALK[0], TALK[1], TALK[6]], [*BEFORE, "So?"]),
        ([], [SUMMARY, "So?"]),
    ],
)
async def test_compaction_item_stands_for_everything_but_messages_of_user_and_system(
    items: list[dict[str, Any]], expected: list[str]
) -> None:
    item = {"type": "compaction", "encrypted_content": encode_summary("They greeted.")}
    async with served(ScriptedModel(scribe())) as running:
        answer = await post(running, input=[*items, item, {"role": "user", "content": "So?"}])
        prompt = prompt_text(running.model)
    assert text(answer.json) == "Yes."
    assert prompt == "".join([*expected, "Yes."])


@pytest.mark.slow
async def test_chain_goes_on_from_its_compaction(tmp_path: Path) -> None:
    async with served(ScriptedModel(scribe(), n_slots=1), state=tmp_path) as running:
        first = (await post(running, input=TALK)).json
        streamed = await post(running, input=[TRIGGER], previous_response_id=first["id"], stream=True)
        second = streamed.events[-1]["response"]
        resumed = await get(running, f"/v1/responses/{second['id']}?stream=true")
        await post(running, input="So?", previous_response_id=second["id"])
        prompt = prompt_text(running.model)
    assert [item["type"] for item in second["output"]] == ["compaction"]
    assert resumed.events == streamed.events
    assert prompt == "".join([*BEFORE, "So?", "Yes."])


@pytest.mark.slow
async def test_compaction_of_long_conversation_goes_part_by_part() -> None:
    turns = [{"role": role, "content": f"{n:02}{role}" * 12} for n in range(16) for role in ("user", "assistant")]
    async with served(ScriptedModel(scribe("Summary."), n_ctx=2048, n_slots=1)) as running:
        answer = await post(running, input=[*turns, TRIGGER], stream=True)
        prompt = prompt_text(running.model)
    assert prompt.startswith(summary.HEADING + "Summary.")
    assert prompt.endswith(compaction.SUMMARY_PROMPT + "Summary.")
    assert summaries(answer) == ["Summary."]
    assert types(answer.events).count("response.compaction.compacting") == 1


def managed(threshold: int | None) -> dict[str, Any]:
    return {"context_management": [{"type": "compaction", "compact_threshold": threshold}]}


@pytest.mark.parametrize(("threshold", "compacted"), [(1, True), (1000, False), (None, False)])
async def test_conversation_beyond_threshold_is_compacted_before_the_answer(
    threshold: int | None, compacted: bool
) -> None:
    async with served(ScriptedModel(scribe(), n_slots=1)) as running:
        answer = await post(running, input=TALK, stream=True, **managed(threshold))
        prompt = prompt_text(running.model)
    response = answer.events[-1]["response"]
    assert text(response) == "Yes."
    assert summaries(answer) == ["They greeted."] * compacted
    assert "responsed" not in response
    if compacted:
        assert prompt == "".join(["Be kind.", "Hello", SUMMARY, "Go on", "Yes."])
        assert types(answer.events)[:6] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.compaction.compacting",
            "response.output_item.done",
            "response.output_item.added",
        ]


@pytest.mark.slow
async def test_conversation_beyond_the_context_is_compacted(tmp_path: Path) -> None:
    """Each turn is short, and their chain is longer than the context."""
    kinds: list[list[str]] = []
    previous = None
    async with served(ScriptedModel(scribe(answer="Yes. " * 25), n_ctx=1024, n_slots=1), state=tmp_path) as running:
        for turn in range(12):
            answer = await post(running, input=f"{turn % 10}" * 45, previous_response_id=previous, **managed(None))
            assert answer.status == 200, answer.json
            previous = answer.json["id"]
            kinds.append([item["type"] for item in answer.json["output"]])
    assert all(each[-1] == "message" for each in kinds)
    assert 2 <= kinds.count(["compaction", "message"]) <= 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"context_management": [{"type": "compaction", "compact_threshold": 0}]},
            "context_management[0].compact_threshold",
        ),
        ({"context_management": [{}]}, "context_management[0]"),
        ({"input": [TRIGGER]}, "input"),
    ],
)
async def test_wrong_compaction_is_rejected(fields: dict[str, Any], param: str) -> None:
    async with served() as running:
        answer = await post(running, **({"input": "Hi"} | fields))
    assert (answer.status, re.sub(r"\[\.\.\.\]", "[0]", answer.json["error"]["param"])) == (400, param)
