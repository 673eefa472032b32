"""`configuration_update`: an item that changes the settings from its place on."""

from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from tests.server.api.tools.test_tools import HERMES
from tests.support.helpers import Answer, post, prompt_text, served, text

SCHEMA = {
    "type": "json_schema",
    "name": "count",
    "schema": {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    },
    "strict": True,
}
THINKS = HERMES + "{# <think></think> #}"
ASK = {"role": "user", "content": "How many?"}


def update(**settings: Any) -> dict[str, Any]:
    return {"type": "configuration_update"} | settings


def schema(**format_: Any) -> dict[str, Any]:
    return update(text={"format": SCHEMA | format_})


PLAIN = update(text={"format": {"type": "text"}})
CASES: list[tuple[list[Any], dict[str, Any], str, str | None]] = [
    ([ASK], {}, "text", None),
    ([schema(), ASK], {}, "json_schema", None),
    ([ASK, schema()], {}, "json_schema", None),
    ([schema(), ASK, PLAIN], {}, "text", None),
    ([schema(), ASK], {"text": {"format": {"type": "json_object"}, "verbosity": "low"}}, "json_schema", None),
    ([PLAIN, ASK], {"text": {"format": SCHEMA}}, "text", None),
    ([update(reasoning={"effort": "low"}), ASK], {}, "text", "low"),
    ([update(reasoning={"effort": "low"}), ASK], {"reasoning": {"effort": "minimal"}}, "text", "low"),
    ([update(reasoning={"effort": "low"}), update(reasoning={"effort": "none"}), ASK], {}, "text", "none"),
    ([update(reasoning={"effort": "low"}), schema(), ASK], {}, "json_schema", "low"),
    ([update(reasoning={"effort": None}), ASK], {"reasoning": {"effort": "low"}}, "text", "low"),
    ([update(reasoning=None, text=None), ASK], {}, "text", None),
]


async def answered(items: list[Any], **fields: Any) -> Answer:
    async with served(ScriptedModel(lambda message: b'{"n": 3} is it.'), template=THINKS) as running:
        return await post(running, input=items, **fields)


@pytest.mark.parametrize(("items", "fields", "format_", "effort"), CASES)
async def test_last_update_of_a_setting_is_in_effect_and_echoed(
    items: list[Any], fields: dict[str, Any], format_: str, effort: str | None
) -> None:
    answer = await answered(items, **fields)
    assert answer.json["text"]["format"]["type"] == format_
    assert answer.json["reasoning"]["effort"] == effort
    assert text(answer.json) == ('{"n": 3}' if format_ == "json_schema" else '{"n": 3} is it.')
    assert answer.json["text"].get("verbosity") == fields.get("text", {}).get("verbosity")
    assert "responsed" not in answer.json


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([ASK, update(reasoning={"effort": "huge"})], "input[1].reasoning.effort"),
        ([update(text={"format": {"type": "x"}}), ASK], "input[0].text.format"),
        ([schema(schema={"type": "object", "$ref": "http://x"}), ASK], "input[0].text.format.schema"),
    ],
)
async def test_wrong_update_is_rejected_with_its_place(items: list[Any], param: str) -> None:
    answer = await answered(items)
    assert (answer.status, answer.json["error"]["param"].removesuffix(".type")) == (400, param)


@pytest.mark.slow
async def test_update_stays_in_effect_for_the_next_turns(tmp_path: Path) -> None:
    model = ScriptedModel(lambda message: b'{"n": 3} is it.', n_ctx=1 << 14)
    async with served(model, template=THINKS, state=tmp_path) as running:
        first = (await post(running, input=[schema(), ASK])).json
        second = (await post(running, input="And now?", previous_response_id=first["id"])).json
        third = (await post(running, input=[ASK, PLAIN], previous_response_id=second["id"])).json
    assert [text(each) for each in (first, second, third)] == ['{"n": 3}', '{"n": 3}', '{"n": 3} is it.']


REASONED: list[Any] = [
    {"role": "user", "content": "One?"},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Early."}]},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Late."}]},
    {"role": "assistant", "content": "2"},
]
SHOWS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.reasoning_content }}{{ m.content }}{% endfor %}<|assistant|>"
    "{# <think></think> #}"
)


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ("current_turn", "One?1Two?Late.2"),
        ("all_turns", "One?Early.1Two?Late.2"),
        ("auto", "One?Early.1Two?Late.2"),
    ],
)
async def test_reasoning_context_selects_turns_whose_reasoning_is_rendered(context: str, shown: str) -> None:
    async with served(ScriptedModel(lambda message: b"So."), template=SHOWS) as running:
        answer = await post(running, input=REASONED, reasoning={"context": context, "mode": "standard"})
        prompt = prompt_text(running.model)
    assert prompt == f"{shown}So."
    assert answer.json["reasoning"] == {"effort": None, "summary": None, "context": context, "mode": "standard"}


async def test_mode_pro_is_named_as_skipped() -> None:
    answer = await answered([ASK], reasoning={"mode": "pro"}, client_metadata={"turn_id": "t"})
    assert answer.json["reasoning"]["mode"] == "standard"
    assert answer.json["responsed"] == {"skipped": ["reasoning.mode"]}
