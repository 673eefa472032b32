"""Parsing of outputs by family, independent of chunks; with the calls of 70 real templates too."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.chat_template.message import Call, Message
from engine.chat_template.template import ChatTemplate
from engine.dialects.dialect import Dialect, ReasoningTags
from engine.dialects.families import DIALECTS, GENERIC, detect_dialect, with_generic
from engine.dialects.json_families import HERMES
from engine.dialects.parser import Parser
from engine.notations.argument_schema import argument_schema
from engine.notations.json_objects import Offered
from engine.notations.parsed import (
    ParsedDelta,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    merged,
)
from engine.notations.scanner import marks
from tests.engine.chat_template.test_template import FILES, FOLDER, NO_FILES, compiled, rendered
from tests.rows import thinned

OFFERED = {
    name: argument_schema({"type": "object", "properties": {key: {"type": "string"}}})
    for name, key in (("civet", "at"), ("dugong", "x"))
}
THINK = ReasoningTags("<think>", "</think>")
ENDED = ToolCallEnd()


def named(name: str) -> Dialect:
    return next(dialect for dialect in DIALECTS if dialect.name == name)


def parse(
    dialect: Dialect,
    pieces: Iterable[str],
    think: ReasoningTags | None = None,
    names: Mapping[str, str] | None = None,
    bare: bool = True,
) -> list[ParsedDelta]:
    parser = Parser(dialect, OFFERED, names, think, bare)
    return merged([*(each for piece in pieces for each in parser.feed(piece)), *parser.finish()])


def cuts(text: str) -> Iterable[list[str]]:
    """Yield the text whole, split in two at every position, and split into characters."""
    yield [text]
    yield from ([text[:at], text[at:]] for at in range(1, len(text)))
    yield list(text)


def call(name: str, arguments: str) -> list[ParsedDelta]:
    return [ToolCallStart(name), ToolCallArguments(arguments), ENDED]


def thinking(name: str) -> Dialect:
    return replace(named(name), reasoning_tags=(THINK,))


HERMES_THINKS = detect_dialect("<tool_call> <think></think>")
GRANITE = detect_dialect(
    "<|tool_call|> Write thoughts between <think></think>, the response between <response></response>."
)
HUNYUAN = detect_dialect(
    "<tool_calls>[ ]</tool_calls> {{ m.content.split('</think>')[-1].split('<answer>')[-1] }}</answer>"
)
HUNYUAN_THINKS = replace(HUNYUAN, reasoning_tags=(THINK,))
LONG = '{"at": "a\\"}{", "n": [1, {"k": null}]}'
CIVET = call("civet", LONG)
JSON = f'{{"name": "civet", "arguments": {LONG}}}'
XML = "<parameter=at>\n1\n</parameter>\n<parameter=n>\n1\n</parameter>\n<parameter=m>\n[a, b]\n</parameter>\n"

MARK = "]<]minimax[>["
SECTION = "<|tool_calls_section_begin|><|tool_call_begin|>"
EOM = "<|eom|><|start|>assistant"
ATEM = """<atem:function_calls>
<atem:invoke name="civet">
<atem:parameter name="at">1</atem:parameter>
</atem:invoke>
</atem:function_calls>"""
ANALYSIS = "<|channel|>analysis<|message|>So.<|end|>"
COMMENTARY = "<|start|>assistant<|channel|>commentary"
TO = " to=functions.civet <|constrain|>json<|message|>{}<|call|>"

CASES: dict[str, tuple[Dialect, str, list[ParsedDelta]]] = {
    "text": (HERMES_THINKS, " It is\n so.\n", [TextDelta(" It is\n so.\n")]),
    "nothing": (HERMES_THINKS, "", []),
    "what only begins like a marker": (HERMES_THINKS, "a <tool_cal <thin", [TextDelta("a <tool_cal <thin")]),
    "reasoning": (HERMES_THINKS, "<think>\nSo.\n\n</think>\n\nIt is.", [ReasoningDelta("So."), TextDelta("It is.")]),
    "no reasoning after all": (HERMES_THINKS, "<think>\n\n</think>\n\nIt is.", [TextDelta("It is.")]),
    "reasoning without end": (HERMES_THINKS, "<think>\nSo", [ReasoningDelta("So")]),
    "a lone end of reasoning behind words": (HERMES_THINKS, "So</think>\nit", [TextDelta("So</think>\nit")]),
    "a lone end of reasoning at the beginning": (HERMES_THINKS, "\n</think>\n\nIt is.", [TextDelta("It is.")]),
    "a lone end of reasoning and nothing else": (HERMES_THINKS, "\n</think>\n", [TextDelta("</think>")]),
    "a lone end of reasoning before a call": (HERMES_THINKS, f"</think><tool_call>{JSON}</tool_call>", CIVET),
    "a lone end of reasoning behind a call": (HERMES_THINKS, f"<tool_call>{JSON}</tool_call></think>", CIVET),
    "a lone end of reasoning behind a bare call": (replace(GENERIC, reasoning_tags=(THINK,)), f"{JSON}</think>", CIVET),
    "two ends of reasoning": (HERMES_THINKS, "<think>\n</think>\n</think>\n", []),
    "a thought quoted in an answer": (
        HERMES_THINKS,
        "Use <think>\nso</think> here. <tool_call>" + JSON + "</tool_call>",
        [TextDelta("Use <think>\nso</think> here."), *CIVET],
    ),
    "a thought behind a thought": (
        HERMES_THINKS, "<think>So.</think>\n<think>Yes.</think>It.", [ReasoningDelta("So.Yes."), TextDelta("It.")],
    ),
    "a thought behind a call": (
        HERMES_THINKS,
        f"<tool_call>{JSON}</tool_call>\n<think>So.</think>It.",
        [*CIVET, ReasoningDelta("So."), TextDelta("It.")],
    ),
    "a call in a thought": (
        HERMES_THINKS, f"<think>\nSo.\n<tool_call>\n{JSON}\n</tool_call>", [ReasoningDelta("So."), *CIVET],
    ),
    "a call in a thought that closes later": (
        HERMES_THINKS,
        f"<think>So.<tool_call>{JSON}</tool_call></think>\n\nIt is.",
        [ReasoningDelta("So."), *CIVET, TextDelta("It is.")],
    ),
    "a call in a thought, between tags": (
        thinking("coder"),
        "<think>So.\n<tool_call>\n<function=civet>\n<parameter=at>\n1\n</parameter>\n</function>\n</tool_call>",
        [ReasoningDelta("So."), *call("civet", '{"at": "1"}')],
    ),
    "a call in a thought, keys and values": (
        thinking("glm"),
        "<think>So.<tool_call>civet\n<arg_key>at</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        [ReasoningDelta("So."), *call("civet", '{"at": "1"}')],
    ),
    "a call in a thought, a section of them": (
        thinking("kimi"),
        f"<think>So.{SECTION}functions.civet:0<|tool_call_argument_begin|>{LONG}<|tool_call_end|>",
        [ReasoningDelta("So."), *CIVET],
    ),
    "a call in a thought, as Python": (
        thinking("lfm"),
        "<think>So.<|tool_call_start|>[civet(at='1')]<|tool_call_end|>",
        [ReasoningDelta("So."), *call("civet", '{"at": "1"}')],
    ),
    "a call in a thought, quoted where the family closes all thoughts (LFM2.5)": (
        thinking("lfm-2.5"),
        "<think>So. <|tool_call_start|>[civet()]<|tool_call_end|></think>It is.",
        [ReasoningDelta("So. <|tool_call_start|>[civet()]<|tool_call_end|>"), TextDelta("It is.")],
    ),
    "a call in a thought, quoted where the family closes all thoughts (Ministral)": (
        replace(named("mistral"), reasoning_tags=(ReasoningTags("[THINK]", "[/THINK]"),)),
        "[THINK]So. [TOOL_CALLS]civet[ARGS]{}[/THINK]It is.",
        [ReasoningDelta("So. [TOOL_CALLS]civet[ARGS]{}"), TextDelta("It is.")],
    ),
    "an answer in a thought": (
        named("kimi-3"),
        "<|open|>think<|sep|>So.<|open|>response<|sep|>It is.<|close|>response<|sep|>",
        [ReasoningDelta("So."), TextDelta("It is.")],
    ),
    "a response in its tags (Granite 3.3)": (
        GRANITE,
        "<think>\nSo.\n</think>\n<response>\n It is.\n\nYes.\n</response>\n",
        [ReasoningDelta("So."), TextDelta("It is.\n\nYes.")],
    ),
    "a response in its tags, quoting tags": (
        GRANITE,
        "<response>Use <response>, <think> and </think>.</response> </response>\n",
        [TextDelta("Use <response>, <think> and </think>. </response>\n")],
    ),
    "a response in its tags, and more": (
        GRANITE,
        "<response>It is.</response>\n\nYes.\n",
        [TextDelta("It is.\n\nYes.\n")],
    ),
    "a response without its end": (
        GRANITE, "<think>So.</think><response>It is.\n", [ReasoningDelta("So."), TextDelta("It is.\n")],
    ),
    "response tags that an answer quotes": (
        GRANITE, "It is <response>this</response>.\n", [TextDelta("It is <response>this</response>.\n")],
    ),
    "response tags of another family": (
        HERMES_THINKS,
        "<response>It.</response>",
        [TextDelta("<response>It.</response>")],
    ),
    "an answer in its tags (Hunyuan)": (
        HUNYUAN_THINKS,
        "<think>\nSo.\n</think>\n<answer>\nIt is.\n</answer>",
        [ReasoningDelta("So."), TextDelta("It is.")],
    ),
    "calls in the tags of an answer (Hunyuan)": (
        HUNYUAN_THINKS,
        f"<think>So.</think>\n<answer>\nNow:\n<tool_calls>[{JSON}]</tool_calls>\n</answer>\n",
        [ReasoningDelta("So."), TextDelta("Now:"), *CIVET],
    ),
    "a call": (HERMES, f"<tool_call>\n{JSON}\n</tool_call>", CIVET),
    "a call behind text": (HERMES, f"Now:\n\n<tool_call>{JSON}</tool_call>\n", [TextDelta("Now:"), *CIVET]),
    "two calls": (HERMES, f"<tool_call>{JSON}</tool_call>\n<tool_call>{JSON}</tool_call>", [*CIVET, *CIVET]),
    "a call, and text": (HERMES, f"<tool_call>{JSON}</tool_call>\nSo.", [*CIVET, TextDelta("So.")]),
    "a call without its end": (HERMES, f"<tool_call>\n{JSON}", CIVET),
    "arguments before the name": (HERMES, f'<tool_call>{{"arguments": {LONG}, "name": "civet"}}', CIVET),
    "arguments as text": (HERMES, f'<tool_call>{{"name": "civet", "arguments": {json.dumps(LONG)}}}', CIVET),
    "no arguments": (HERMES, '<tool_call>{"name": "civet"}', call("civet", "{}")),
    "cut in the arguments": (
        HERMES,
        '<tool_call>{"name": "civet", "arguments": {"at',
        [ToolCallStart("civet"), ToolCallArguments('{"at'), ENDED],
    ),
    "a number that JSON has and machines have not": (
        named("glm"),
        "<tool_call>dugong<arg_key>n</arg_key><arg_value>1" + "0" * 40 + "</arg_value></tool_call>",
        call("dugong", '{"n": 1' + "0" * 40 + "}"),
    ),
    "more levels than anybody means": (
        named("gemma"),
        "<|tool_call>call:dugong{x:" + "[" * 70 + "<tool_call|>",
        call("dugong", '{"x": ' + "[" * 63 + '"[[[[[[[<tool_call|>"' + "]" * 63 + "}"),
    ),
    "no call between the markers": (HERMES, '<tool_call>{"a": 1}</tool_call>', [TextDelta('{"a": 1}')]),
    "prose between the markers": (HERMES, "<tool_call>None.</tool_call>", [TextDelta("None.")]),
    "bare": (GENERIC, f"\n{JSON}", CIVET),
    "bare, several": (GENERIC, f"{JSON}; {JSON}", [*CIVET, *CIVET]),
    "bare, in a list": (GENERIC, f"\n[ {JSON},\n {JSON}]\nSo.", [*CIVET, *CIVET, TextDelta("So.")]),
    "bare, in a list, but no call": (GENERIC, f"[ {{}}, {JSON}]", [TextDelta(f"[ {{}}, {JSON}]")]),
    "a list of something else": (GENERIC, "\n[1] [{}]", [TextDelta("\n[1] [{}]")]),
    "a marker that begins as a list does": (
        with_generic(named("mistral-list")), f"\n[TOOL_CALLS][{JSON}]", CIVET,
    ),
    "bare, behind a thought": (
        replace(GENERIC, reasoning_tags=(THINK,)),
        f"<think>So.</think>\n\n{JSON} Done.",
        [ReasoningDelta("So."), *CIVET, TextDelta("Done.")],
    ),
    "bare, but no call, behind a thought": (
        replace(GENERIC, reasoning_tags=(THINK,)),
        "<think>So.</think>\n{}\n\nIt is.",
        [ReasoningDelta("So."), TextDelta("{}\n\nIt is.")],
    ),
    "bare, but nobody offers that": (GENERIC, '{"name": "Ann", "age": 3}', [TextDelta('{"name": "Ann", "age": 3}')]),
    "bare, but no call": (GENERIC, '{"age": 3} {', [TextDelta('{"age": 3} {')]),
    "JSON behind text is text": (named("llama"), f"See {JSON}", [TextDelta(f"See {JSON}")]),
    "mistral without a separator": (named("mistral"), f"[TOOL_CALLS]civet{LONG}", CIVET),
    "a name alone": (named("kimi"), "<|tool_call_begin|>functions.civet:0<|tool_call_end|>", call("civet", "{}")),
    "declared as a text": (
        named("coder"),
        f"<tool_call>\n<function=civet>\n{XML}</function>\n</tool_call>",
        call("civet", '{"at": "1", "n": 1, "m": "[a, b]"}'),
    ),
    "a value in whose text its end stands": (
        named("coder"),
        '<function=civet>\n<parameter=n>\n{"k": "</parameter>"}\n</parameter>\n</function>',
        call("civet", '{"n": {"k": "</parameter>"}}'),
    ),
    "a value that only begins like JSON": (
        named("coder"),
        '<function=civet>\n<parameter=n>\n"so\n</parameter>\n<parameter=m>\n"a" b\n</parameter>\n</function>',
        call("civet", '{"n": "\\"so", "m": "\\"a\\" b"}'),
    ),
    "a number that is too large for Python": (
        named("lfm"), "<|tool_call_start|>[civet(n=1e999, m={'k': 2})]", call("civet", '{"n": 1e999, "m": {"k":2}}'),
    ),
    "tags of Seed, whose line breaks are the text's": (
        named("seed"),
        "<seed:tool_call>\n<function=civet>\n<parameter=at>\nso\n\n</parameter>\n</function>\n</seed:tool_call>",
        call("civet", '{"at": "\\nso\\n\\n"}'),
    ),
    "an element twice": (
        named("minimax-3"),
        f'{MARK}<invoke name="civet">{MARK}<at>1{MARK}</at>{MARK}<at>2{MARK}</at>{MARK}<n>3{MARK}</n>{MARK}</invoke>',
        call("civet", '{"at": "1", "n": 3}'),
    ),
    "an element twice, in a list": (
        named("minimax-3"),
        f'{MARK}<invoke name="civet">{MARK}<n>{f"{MARK}<item>1{MARK}</item>" * 2}{MARK}</n>{MARK}</invoke>',
        call("civet", '{"n": [1, 1]}'),
    ),
    "tags of which one parameter's end is left out (Qwen3-Coder)": (
        named("coder"),
        "<function=civet>\n<parameter=at>\n1\n<parameter=n>\n2\n<parameter=m>3<parameter=k>\nso\n</function>So.",
        [*call("civet", '{"at": "1", "n": 2, "m": 3, "k": "so"}'), TextDelta("So.")],
    ),
    "tags of Seed without ends": (
        named("seed"),
        "<function=civet>\n<parameter=at>1\n<parameter=n>2</function>",
        call("civet", '{"at": "1\\n", "n": 2}'),
    ),
    "a value in whose text the next key stands": (
        named("coder"),
        '<function=civet>\n<parameter=n>\n{"k": "<parameter=m>"}\n<parameter=m>\n1\n</parameter>\n</function>',
        call("civet", '{"n": {"k": "<parameter=m>"}, "m": 1}'),
    ),
    "keys and values without an end": (
        named("glm"),
        "<tool_call>civet\n<arg_key>at</arg_key><arg_value>1<arg_key>n</arg_key><arg_value>2</tool_call>",
        call("civet", '{"at": "1", "n": 2}'),
    ),
    "tags without arguments": (named("coder"), "<function=civet>\n</function>", call("civet", "{}")),
    "tags cut in a text": (
        named("coder"), '<function=civet>\n<parameter=at>\nso "', call("civet", '{"at": "so \\""}'),
    ),
    "JSON where tags are usual": (
        named("coder"),
        f"<function=civet>\n{LONG}\n</function>So.",
        [*CIVET, TextDelta("So.")],
    ),
    "JSON where keys and values are usual": (named("glm"), f"<tool_call>civet\n{LONG}\n</tool_call>", CIVET),
    "JSON where Python is usual": (named("lfm"), f"<|tool_call_start|>[civet({LONG}), civet({LONG})]", CIVET * 2),
    "JSON where Gemma's own is usual": (named("gemma"), f"<|tool_call>call:civet{LONG}<tool_call|>", CIVET),
    "words for no call": (
        named("granite-20b"), 'So.<function_call> {"name": "no_function", "arguments": {}}', [TextDelta("So.")],
    ),
    "in a fence": (
        named("hunyuan-dense"),
        f"Now.\n<tool_calls>\n<tool_call>civet\n```json\n{LONG}\n```\n</tool_call>\n</tool_calls>",
        [TextDelta("Now."), *CIVET],
    ),
    "an object where a fence is usual": (
        named("hunyuan-dense"), f"<tool_calls><tool_call>\n{JSON}\n</tool_call></tool_calls>", CIVET,
    ),
    "as Python": (
        named("lfm"),
        "<|tool_call_start|>[civet(at='it\\'s', n=[1, (None, True)], m=now), dugong()]<|tool_call_end|>So.",
        [
            *call("civet", '{"at": "it\'s", "n": [1,[null,true]], "m": "now"}'),
            *call("dugong", "{}"),
            TextDelta("So."),
        ],
    ),
    "lines as Python": (
        named("olmo"),
        "Now:\n<function_calls>\ncivet(at='it\\'s')\ndugong(x=true)\n</function_calls>\nSo.",
        [
            *(TextDelta("Now:"), *call("civet", '{"at": "it\'s"}')),
            *(*call("dugong", '{"x": true}'), TextDelta("So.")),
        ],
    ),
    "lines as Python, without their end": (
        named("olmo"), "<function_calls>civet()\ndugong()", [*call("civet", "{}"), *call("dugong", "{}")],
    ),
    "lines of prose where Python is usual": (
        named("olmo"), "<function_calls>None.</function_calls>", [TextDelta("None.")],
    ),
    "a fence of Python": (
        named("minicpm-4"),
        "<|tool_call_start|>\n```python\ncivet(at='1',n=2)\ndugong()\n```\n<|tool_call_end|>\nSo.",
        [*call("civet", '{"at": "1", "n": 2}'), *call("dugong", "{}"), TextDelta("So.")],
    ),
    "Python without its fence": (
        named("minicpm-4"), "<|tool_call_start|>\ncivet()\n<|tool_call_end|>", call("civet", "{}"),
    ),
    "a list as Python, behind text": (
        named("python-list"),
        "See [1], [civets(] and [civet (: [civet(at='a)]', n=[1]),\n dugong()] So.",
        [
            TextDelta("See [1], [civets(] and [civet (:"),
            *call("civet", '{"at": "a)]", "n": [1]}'),
            *call("dugong", "{}"),
            TextDelta("So."),
        ],
    ),
    "a list as Python, between Llama 4's marks": (
        named("python-list"), '<|python_start|>[civet(at="1")]<|python_end|>', call("civet", '{"at": "1"}'),
    ),
    "a list as Python, of a value without quotes": (
        named("python-list"), "[civet(at=New York, n=3)]", call("civet", '{"at": "New York", "n": 3}'),
    ),
    "harmony": (
        named("harmony"),
        f"{ANALYSIS}{COMMENTARY}<|message|>Now.<|end|>{COMMENTARY}{TO}",
        [ReasoningDelta("So."), TextDelta("Now."), *call("civet", "{}")],
    ),
    "muse, generic format": (
        with_generic(named("muse")), f" to=civet<|message|>{ATEM}", call("civet", '{"at": "1"}'),
    ),
    "harmony, the last word": (
        named("harmony"), "<|channel|>final<|message|>It is.", [TextDelta("It is.")],
    ),
    "addressed to all": (
        named("functionary-3.2"),
        "all\nSo:\n\n>>> civet\n>>>civet\n{}",
        [TextDelta("So:\n\n>>> civet"), *call("civet", "{}")],
    ),
    "addressed to two": (named("functionary-3.2"), f"civet\n{LONG}>>>civet\n{LONG}", CIVET * 2),
    "addressed to oneself, to all, to one": (
        named("muse"),
        f" to=self<|message|>So.{EOM} to=user<|message|>It{EOM} to=user<|message|>is.{EOM} to=civet<|message|>{ATEM}",
        [ReasoningDelta("So."), TextDelta("Itis."), *call("civet", '{"at": "1"}')],
    ),
    "addressed to one, and quoted to all": (
        named("muse"),
        f" to=self<|message|>{ATEM}{EOM} to=user<|message|>Write {ATEM}.{EOM} to=civet<|message|>\n{ATEM}{EOM} to=civ",
        [ReasoningDelta(ATEM), TextDelta(f"Write {ATEM}."), *call("civet", '{"at": "1"}'), TextDelta("to=civ")],
    ),
    "addressed to nobody": (named("functionary-3.2"), "civets\n>>>", [TextDelta("civets\n>>>")]),
}  # fmt: skip


@pytest.mark.parametrize(("dialect", "text", "expected"), thinned(CASES))
def test_parser_with_any_chunks_returns_deltas(dialect: Dialect, text: str, expected: list[ParsedDelta]) -> None:
    for pieces in cuts(text):
        assert parse(dialect, pieces) == expected


ANSWERS = {
    "an object that looks like a call": (f" {JSON}", [TextDelta(JSON)]),
    "with a marker in it": ('{"name": "<tool_call> <think>"}', [TextDelta('{"name": "<tool_call> <think>"}')]),
    "after a thought": ('<think>So.</think>\n{"a": "<think>"}', [ReasoningDelta("So."), TextDelta('{"a": "<think>"}')]),
    "or calls": (f"<tool_call>{JSON}</tool_call>\n<tool_call>{JSON}</tool_call>", [*CIVET, *CIVET]),
}


@pytest.mark.parametrize(("text", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_parser_without_bare_calls_returns_text_verbatim(text: str, expected: list[ParsedDelta]) -> None:
    dialect = replace(HERMES_THINKS, allows_bare_json=True)
    for pieces in cuts(text):
        assert parse(dialect, pieces, bare=False) == expected


def test_parser_with_reasoning_opened_by_prompt_returns_reasoning() -> None:
    for pieces in cuts("So.\n</think>\n\nIt is."):
        assert parse(HERMES_THINKS, pieces, THINK) == [ReasoningDelta("So."), TextDelta("It is.")]


def test_parser_with_reasoning_opened_by_prompt_drops_closing_marker() -> None:
    for pieces in cuts("\n</think>\n"):
        assert parse(HERMES_THINKS, pieces, THINK) == []


def test_parser_with_cut_answer_drops_lone_closing_marker() -> None:
    parser = Parser(HERMES_THINKS, OFFERED)
    assert [*parser.feed("</think>"), *parser.finish(cut=True)] == []


def test_parser_with_lone_closing_control_token_drops_it() -> None:
    names = marks(["</think>"])
    assert parse(HERMES_THINKS, [*names.values()], names=names) == []


def test_parser_emits_text_as_soon_as_it_is_certain() -> None:
    parser = Parser(HERMES_THINKS, OFFERED)
    before_call = [
        "<think>",
        "So",
        " it",
        "</think>",
        "Hi",
        " <",
        "b>",
        "<tool_call>",
        '{"name": "civet",',
        ' "arguments": {',
    ]
    found = [*(parser.feed(text) for text in [*before_call, '"a', 't": 1', "}", "}", "</tool_call>"]), parser.finish()]
    assert found == [
        *(
            [],
            [ReasoningDelta("So")],
            [ReasoningDelta(" it")],
            [],
            [TextDelta("Hi")],
            [],
            [TextDelta(" <b>")],
            [],
            [ToolCallStart("civet")],
        ),
        *(
            [ToolCallArguments("{")],
            [ToolCallArguments('"a')],
            [ToolCallArguments('t": 1')],
            [ToolCallArguments("}")],
            [ENDED],
            [],
            [],
        ),
    ]


def test_parser_thinking_is_true_while_reasoning_arrives() -> None:
    parser = Parser(HERMES_THINKS, OFFERED)
    thinking = []
    for text in ("<thi", "nk>", "So", "</think>", "It is."):
        parser.feed(text)
        thinking.append(parser.thinking)
    assert thinking == [False, True, True, False, False]


def test_parser_without_functions_returns_call_as_text() -> None:
    parser = Parser(HERMES)
    assert [*parser.feed(f"<tool_call>{JSON}</tool_call>"), *parser.finish()] == [
        TextDelta(f"<tool_call>{JSON}</tool_call>")
    ]


WORDS = {
    "kimi-3": "<|open|>think<|sep|>So.<|close|>think<|sep|><|open|>response<|sep|>It is.<|close|>response<|sep|>",
    "solar": "<|think|>So.<|end|><|begin|>assistant<|content|>It is.<|end|>",
    "muse": f" to=self<|message|>So.{EOM} to=user<|message|>It is.",
    "harmony": f"{ANALYSIS}<|start|>assistant<|channel|>final<|message|>It is.<|return|>",
}


@pytest.mark.parametrize(("name", "text"), WORDS.items(), ids=WORDS)
@pytest.mark.parametrize("offered", [{}, OFFERED])
def test_parser_drops_markers_around_text(name: str, text: str, offered: Offered) -> None:
    dialect = replace(
        named(name), reasoning_tags=named(name).reasoning_tags or detect_dialect("<|think|> <|end|>").reasoning_tags
    )
    for pieces in cuts(text):
        parser = Parser(dialect, offered)
        found = [*(each for piece in pieces for each in parser.feed(piece)), *parser.finish()]
        assert merged(found) == [ReasoningDelta("So."), TextDelta("It is.")]


def test_parser_with_control_token_marker_ignores_its_spelling() -> None:
    names = marks(["<think>", "<tool_call>", "<|other|>"])
    think, begin, other = names.values()
    text = f"{think}a <think> </think>{other}<tool_call>{begin}{JSON}{other}"
    for pieces in cuts(text):
        assert parse(HERMES_THINKS, pieces, names=names) == [
            ReasoningDelta("a <think>"),
            TextDelta("<tool_call>"),
            *CIVET,
        ]


UNREAD = {
    # This template fails, in jinja2 too, for a parameter without a description, with a list as its type, or that is an
    # object without `additionalProperties`. So a system message lists the tools, and calls have the generic format.
    # The template alone would be half of a protocol anyway: every answer must be a list of actions, a plain answer is
    # a call of `directly-answer`, which is not offered, and another template must then ask again.
    "CohereForAI-c4ai-command-r-plus-tool_use",
}
ANSWER_ENDS = (
    *("<|im_end|>", "<|end|>\n", "<seed:eos>", "<|END_OF_TURN_TOKEN|>", "<|observation|>", "<end_of_sentence>"),
    *(
        "[e~[",
        "<|end|>[",
        "<SPECIAL_12>",
        "\n\n<sep>",
        "<｜end▁of▁sentence｜>",
        "<｜tool▁outputs▁begin｜>",
        "<|eot_id|>",
    ),
    *(
        "<|eot|>",
        "<|eom_id|>",
        "<turn|>",
        "<|tool_response>",
        "<|end_of_text|>",
        "<|role_end|>",
        "<|call|>",
        "</assistant>",
    ),
    *("<｜hy_eos", "<|message_sep|>\n\nfunction result", "<|begin|>tool", "<|open|>message"),
)
ASK, OUT = Message("user", "Okapi"), "Zorilla"
ARGUMENTS = {"at": 'gnu\n<x "1" é', "n": 3, "m": {"k": [True, None, "p"]}}
FIRST, SECOND = Call("call_civet", "civet", json.dumps(ARGUMENTS)), Call("call_dugong", "dugong", '{"x": "dug"}')


def written(template: ChatTemplate, calls: Sequence[Call]) -> tuple[str, str]:
    """Return the text that a template renders for an answer with these calls, and the text before the answer."""
    capabilities = template.capabilities
    content = "TEXT" if capabilities.text_beside_calls else ""
    outputs = [Message("tool", OUT, name=each.name, call_id=each.id) for each in calls]
    text = rendered(template, [ASK, Message("assistant", content, "REASON", tuple(calls)), *outputs])
    others = rendered(template, [ASK])
    before = text[: next(at for at, (one, other) in enumerate(zip(text, f"{others}\0", strict=False)) if one != other)]
    if before.endswith("<"):  # both begin a marker there, but not the same
        before = before[:-1]
    return text[len(before) : text.index(OUT)], before


def opened_by(dialect: Dialect, before: str) -> ReasoningTags | None:
    return next((think for think in dialect.reasoning_tags if before.rstrip().endswith(think.open)), None)


def answer_of(text: str) -> str:
    """Return the text up to the family's end of an answer."""
    last = max(map(text.rfind, ("dug", "gnu", '"p"')))
    ends = [at for end in ANSWER_ENDS if (at := text.find(end, last)) >= 0]
    return text[: min(ends)] if ends else text.removesuffix("[")


def with_decoded_arguments(deltas: Sequence[ParsedDelta]) -> list[object]:
    """Return deltas with decoded arguments, since templates may sort them or write other white space."""
    return [json.loads(each.text) if isinstance(each, ToolCallArguments) else each for each in deltas]


WITHOUT_NULL = {"MiniMax-M3"}
"""Templates that render null in a past call as an empty value, or not at all."""

REAL = [file for file in FILES if file.stem not in UNREAD]


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in REAL])
@pytest.mark.slow
def test_parser_reads_calls_that_real_template_renders(file: Path) -> None:
    source = file.read_text()
    template = compiled(source)
    if template.capabilities.call_fields is None:
        pytest.skip("it has no calls")
    dialect = detect_dialect(source)
    calls = [FIRST, SECOND] if template.capabilities.parallel else [FIRST]
    text, before = written(template, calls)
    text = answer_of(text)
    think = opened_by(dialect, before)
    whole = parse(dialect, [text], think)
    null = '""' if file.stem in WITHOUT_NULL else "null"
    expected: list[object] = [
        each
        for call_ in calls
        for each in (ToolCallStart(call_.name), json.loads(call_.arguments.replace("null", null)), ENDED)
    ]
    parsed_calls = [each for each in with_decoded_arguments(whole) if not isinstance(each, ReasoningDelta | TextDelta)]
    assert parsed_calls == expected
    assert [each.text.strip() for each in whole if isinstance(each, TextDelta)] == ["TEXT"] * ("TEXT" in text)
    assert [each.text for each in whole if isinstance(each, ReasoningDelta)] == ["REASON"] * ("REASON" in text)
    for pieces in cuts(text):
        assert parse(dialect, pieces, think) == whole


FAMILIES = {
    "Qwen-Qwen3-0.6B": "hermes",
    "meta-llama-Llama-3.2-3B-Instruct": "llama",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral-list",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral-ids",
    "ibm-granite-granite-3.3-2B-Instruct": "granite",
    "ibm-granite-granite-4.0": "hermes",
    "google-gemma-4-31B-it": "gemma",
    "LFM2-8B-A1B": "lfm",
    "openai-gpt-oss-120b": "harmony",
    "deepseek-ai-DeepSeek-V3.1": "deepseek",
    "GLM-4.6": "glm",
    "Kimi-K2-Instruct": "kimi",
    "muse-glimmer": "muse",
    "meetkai-functionary-medium-v3.1": "functionary",
    "meetkai-functionary-medium-v3.2": "functionary-3.2",
    "HuggingFaceTB-SmolLM3-3B": "generic",
    "google-gemma-2-2b-it": "generic",
}


@NO_FILES
@pytest.mark.parametrize(("name", "family"), FAMILIES.items(), ids=FAMILIES)
def test_detect_dialect_of_real_template_finds_family(name: str, family: str) -> None:
    assert detect_dialect((FOLDER / f"{name}.jinja").read_text()).name == family


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in FILES])
def test_detect_dialect_of_real_template_finds_at_most_one_think(file: Path) -> None:
    """`StructuralTag` supports one pair of reasoning markers."""
    assert len(detect_dialect(file.read_text()).reasoning_tags) <= 1


@pytest.mark.parametrize(
    ("template", "opens"),
    [
        ("thoughts between <think></think>, the response between <response></response>", ["<response>"]),
        ("{{ m.content.split('<answer>')[-1].split('</answer>')[0] }}", ["<answer>"]),
        ("<think></think><response>{{ output }}</response>", []),
        ("give the <answer>", []),
    ],
)
def test_detect_dialect_finds_wraps_of_template(template: str, opens: list[str]) -> None:
    """MiniMax's templates enclose outputs of functions in `<response>`."""
    assert [wrap.open for wrap in detect_dialect(template).wraps] == opens


def test_detect_dialect_without_template_is_generic() -> None:
    assert detect_dialect(None) == GENERIC


EVERY = [*DIALECTS, GENERIC, HERMES_THINKS, GRANITE, HUNYUAN_THINKS]


def fragments(dialect: Dialect) -> list[str]:
    """Return parts of answers: whole and cut markers, JSON, text."""
    opens = [block.open for block in dialect.blocks] + [
        mark for think in dialect.reasoning_tags for mark in (think.open, think.close)
    ]
    opens += [mark for wrap in dialect.wraps for mark in (wrap.open, wrap.close)]
    more = [
        "civet",
        "dugong",
        LONG,
        JSON,
        '{"',
        '"}',
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "=",
        "'",
        '"',
        ":",
        ",",
        "\n",
        " ",
        "é",
        ">",
    ]
    return [
        *opens,
        *dialect.ignored_markers,
        *(mark[: len(mark) // 2] for mark in opens),
        *more,
        "<|message|>",
        "<|end|>",
        XML,
    ]


def arguments(found: Sequence[ParsedDelta]) -> list[tuple[str, str]]:
    """Return each call's name with all of its arguments."""
    calls: list[tuple[str, str]] = []
    for each in found:
        if isinstance(each, ToolCallStart):
            calls.append((each.name, ""))
        elif isinstance(each, ToolCallArguments):
            name, before = calls.pop()
            calls.append((name, before + each.text))
    return calls


@pytest.mark.parametrize(("dialect", "text", "expected"), thinned(CASES))
def test_parser_with_cut_call_returns_prefix_of_arguments(
    dialect: Dialect, text: str, expected: list[ParsedDelta]
) -> None:
    """The parser completes nothing, wherever `max_output_tokens` cuts."""
    whole = arguments(expected)
    for at in range(len(text)):
        parser = Parser(dialect, OFFERED)
        found = arguments([*parser.feed(text[:at]), *parser.finish(cut=True)])
        for index, (name, written) in enumerate(found):
            if index < len(whole) and name == whole[index][0]:
                assert whole[index][1].startswith(written), text[:at]


CUT: dict[str, tuple[str, str, str]] = {
    "Python, before a value": ("lfm", "<|tool_call_start|>[civet(at=", '{"at": '),
    "Python, in a text": ("lfm", "<|tool_call_start|>[civet(at='so it", '{"at": "so it'),
    "Python, in an escape": ("lfm", "<|tool_call_start|>[civet(at='so\\", '{"at": "so'),
    "Python, in a key": ("lfm", "<|tool_call_start|>[civet(at='1', o", '{"at": "1"'),
    "Python, in a number": ("lfm", "<|tool_call_start|>[civet(n=12", '{"n": '),
    "Python, in a list": ("lfm", "<|tool_call_start|>[civet(n=[1, 2", '{"n": '),
    "Python, before arguments": ("lfm", "<|tool_call_start|>[civet(", ""),
    "tags, in a text": ("coder", "<function=civet>\n<parameter=at>\nso", '{"at": "so'),
    "tags, behind a text": ("coder", "<function=civet>\n<parameter=at>\nso\n</parameter>\n", '{"at": "so"'),
    "tags, in a key": ("coder", "<function=civet>\n<parameter=a", ""),
    "tags, in a value": ("coder", "<function=civet>\n<parameter=n>\n12", '{"n": '),
    "tags, before arguments": ("coder", "<function=civet>\n", ""),
    "GLM, in a key": ("glm", "<tool_call>civet\n<arg_key>a", ""),
    "GLM, between key and value": ("glm", "<tool_call>civet\n<arg_key>at</arg_key>\n", '{"at": '),
    "GLM, in a text": ("glm", "<tool_call>civet\n<arg_key>at</arg_key>\n<arg_value>so", '{"at": "so'),
    "Gemma, in a text": ("gemma", '<|tool_call>call:civet{at:<|"|>so', '{"at": "so'),
    "Gemma, behind a text": ("gemma", '<|tool_call>call:civet{at:<|"|>so<|"|>', '{"at": "so"'),
    "Gemma, in a number": ("gemma", "<|tool_call>call:civet{n:12", '{"n": '),
    "Gemma, in a key": ("gemma", "<|tool_call>call:civet{n:12,k", '{"n": 12'),
    "Gemma, in a list": ("gemma", "<|tool_call>call:civet{n:[1,2", '{"n": [1, '),
    "elements, in a text": ("minimax-3", f'{MARK}<invoke name="civet">{MARK}<at>so', '{"at": "so'),
    "elements, in a list": (
        "minimax-3",
        f'{MARK}<invoke name="civet">{MARK}<n>{MARK}<item>1{MARK}</item>',
        '{"n": [1',
    ),
    "JSON, before its arguments": ("hermes", '<tool_call>{"name": "civet"', ""),
    "JSON, in a text": ("hermes", '<tool_call>{"name": "civet", "arguments": {"at": "so', '{"at": "so'),
    "JSON in a text": ("hermes", '<tool_call>{"name": "civet", "arguments": "{\\"at\\": \\"s', '{"at": "s'),
    "JSON in a text, in an escape": ("hermes", '<tool_call>{"name": "civet", "arguments": "{\\"at\\": \\', '{"at": '),
}


@pytest.mark.parametrize(("family", "text", "written"), CUT.values(), ids=CUT)
def test_parser_with_cut_call_returns_written_arguments_only(family: str, text: str, written: str) -> None:
    parser = Parser(HERMES if family == "hermes" else named(family), OFFERED)
    assert arguments([*parser.feed(text), *parser.finish(cut=True)]) == [("civet", written)]


CUT_NAMES = {
    "lfm": "<|tool_call_start|>[cive",
    "coder": "<function=cive",
    "glm": "<tool_call>cive",
    "gemma": "<|tool_call>call:cive",
    "hermes": '<tool_call>{"name": "cive',
    "minimax-3": f'{MARK}<invoke name="cive',
    "kimi": "<|tool_call_begin|>functions.cive",
    "mistral": "[TOOL_CALLS]cive",
}


@pytest.mark.parametrize(("family", "text"), CUT_NAMES.items())
def test_parser_with_call_cut_in_name_returns_no_call(family: str, text: str) -> None:
    parser = Parser(HERMES if family == "hermes" else named(family), OFFERED)
    found = [*parser.feed(text), *parser.finish(cut=True)]
    assert [each for each in found if isinstance(each, ToolCallStart)] == []


@pytest.mark.slow
@given(
    st.sampled_from(EVERY),
    st.lists(st.integers(0, 10**6), max_size=12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_parser_with_random_chunks_returns_same_deltas(
    dialect: Dialect, picks: list[int], bare: bool, chance: random.Random
) -> None:
    parts = fragments(dialect)
    text = "".join(parts[pick % len(parts)] for pick in picks)
    places = sorted(chance.sample(range(len(text) + 1), min(len(text), 9)))
    pieces = [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]
    whole = parse(dialect, [text], bare=bare)
    assert parse(dialect, pieces, bare=bare) == parse(dialect, list(text), bare=bare) == whole
    # Each call has a start, arguments and an end, and calls do not nest.
    shape = "".join(
        {ToolCallStart: "b", ToolCallArguments: "a", ToolCallEnd: "e"}.get(type(each), "t") for each in whole
    )
    assert shape.replace("bae", "").replace("be", "").strip("t") == ""


def test_interruptions_of_minimax_3_are_its_own_markers_alone() -> None:
    """A mask of `<tool_call>`, which an answer's grammar lacks, would mask the end of its own marker too."""
    own = (']<]minimax[>[<invoke name="', "]<]minimax[>[<tool_call>")
    assert sorted(named("minimax-3").interruptions(["f"])) == sorted(own)
    assert "<tool_call>" in with_generic(named("minimax-3")).interruptions(["f"])
    assert named("hermes").interruptions(["f"]) == ("<tool_call>",)


@pytest.mark.parametrize("cut", ["<", "<![CD", "<![CDATA["])
def test_parser_with_text_cut_in_opening_of_cdata_returns_no_text(cut: str) -> None:
    parser = Parser(named("minicpm"), {"f": argument_schema({"properties": {"x": {"type": "string"}}})})
    found = merged([*parser.feed(f'<function name="f"><param name="x">{cut}'), *parser.finish(cut=True)])
    arguments = "".join(each.text for each in found if isinstance(each, ToolCallArguments))
    assert arguments in ('{"x": ', '{"x": "')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a\nb', \n\"it's\r\"]", ["a\nb", "it's\r"]),
        ("{'n': 123456789012345678901234567890}", {"n": 123456789012345678901234567890}),
        ("{'a': '\\ud800'}", "{'a': '\\ud800'}"),  # half of a pair is no text in JSON
        ("True, False", "True, False"),
    ],
)
def test_parser_of_python_values_returns_json(text: str, value: object) -> None:
    call = f"<seed:tool_call><function=f><parameter=x>{text}</parameter></function></seed:tool_call>"
    parser = Parser(named("seed"), {"f": argument_schema({})})
    _, arguments, _ = merged([*parser.feed(call), *parser.finish()])
    assert isinstance(arguments, ToolCallArguments)
    assert json.loads(arguments.text) == {"x": value}
