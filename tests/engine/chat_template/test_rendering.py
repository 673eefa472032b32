"""Conversations adapted to a template's capabilities, and the detection of these, with 70 real templates too."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.chat_template import ChatTemplate, TemplateError
from engine.chat_template.capabilities import CallFields, TemplateCapabilities
from engine.chat_template.message import Call, Message
from engine.chat_template.rendering import adapt_messages
from engine.chat_template.values import Turn
from tests.engine.chat_template.test_template import FILES, FOLDER, NO_FILES, compiled, parts, rendered, vocabulary_with

COMPLETE = TemplateCapabilities(True, True, True, CallFields(True, ""), True, True, "reasoning_content")
"""Capabilities of a template that supports everything."""
ASK, ANSWER, MORE = Message("user", "Q"), Message("assistant", "A"), Message("user", "M")
SYSTEM, LATER = Message("system", "S"), Message("system", "L")
ONE, TWO = Call("call_1", "f", '{"x": 1}'), Call("call_2", "g", "not JSON")
OUT, OUT_2 = Message("tool", "1", name="f", call_id="call_1"), Message("tool", "2", name="g", call_id="call_2")
BOTH = Message("assistant", "A", "R", (ONE, TWO))


def with_(**changes: object) -> TemplateCapabilities:
    return replace(COMPLETE, **changes)


def user(content: str) -> Turn:
    return {"role": "user", "content": content}


def assistant(content: str | None, **more: object) -> Turn:
    return {"role": "assistant", "content": content} | more


def called(id_: str, name: str, arguments: object) -> Turn:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def output(content: str, name: str, id_: str) -> Turn:
    return {"role": "tool", "content": content, "name": name, "tool_call_id": id_}


F, G = called("call_1", "f", {"x": 1}), called("call_2", "g", {"input": "not JSON"})
GAVE_1, GAVE_2 = output("1", "f", "call_1"), output("2", "g", "call_2")
F_TEXT = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
G_TEXT = '<tool_call>\n{"name": "g", "arguments": {"input":"not JSON"}}\n</tool_call>'
S: Turn = {"role": "system", "content": "S"}
L: Turn = {"role": "system", "content": "L"}

ADAPTED: dict[str, tuple[TemplateCapabilities, Sequence[Message], list[Turn]]] = {
    "plain": (COMPLETE, [SYSTEM, ASK, ANSWER, MORE], [S, user("Q"), assistant("A"), user("M")]),
    "plain, to the hardest": (
        TemplateCapabilities(system=True), [SYSTEM, ASK, ANSWER, MORE], [S, user("Q"), assistant("A"), user("M")],
    ),
    "calls": (
        COMPLETE,
        [ASK, BOTH, OUT, OUT_2],
        [user("Q"), assistant("A", reasoning_content="R", tool_calls=[F, G]), GAVE_1, GAVE_2],
    ),
    "calls of JSON as text": (
        with_(call_fields=CallFields(False, "")),
        [ASK, BOTH, OUT, OUT_2],
        [
            user("Q"),
            assistant(
                "A",
                reasoning_content="R",
                tool_calls=[called("call_1", "f", '{"x": 1}'), called("call_2", "g", "not JSON")],
            ),
            *(GAVE_1, GAVE_2),
        ],
    ),
    "calls without text": (
        with_(call_fields=CallFields(True, None)),
        [ASK, Message("assistant", "", calls=(ONE,)), OUT],
        [user("Q"), assistant(None, tool_calls=[F]), GAVE_1],
    ),
    "a call without arguments": (
        COMPLETE,
        [ASK, Message("assistant", "", calls=(Call("c", "f", ""),)), Message("tool", "", name="f", call_id="c")],
        [user("Q"), assistant("", tool_calls=[called("c", "f", {})]), output("", "f", "c")],
    ),
    "short ids": (
        with_(call_fields=CallFields(True, "", "digits")),
        [ASK, BOTH, OUT, OUT_2],
        [
            user("Q"),
            assistant(
                "A",
                reasoning_content="R",
                tool_calls=[called("000000002", "f", {"x": 1}), called("000000003", "g", {"input": "not JSON"})],
            ),
            *(output("1", "f", "000000002"), output("2", "g", "000000003")),
        ],
    ),
    "ids of Kimi, counted in the conversation": (
        with_(call_fields=CallFields(True, "", "conversation")),
        [ASK, Message("assistant", "", calls=(ONE,)), OUT, BOTH, OUT_2],
        [
            user("Q"),
            assistant("", tool_calls=[called("functions.f:1", "f", {"x": 1})]),
            output("1", "f", "functions.f:1"),
            assistant(
                "A",
                reasoning_content="R",
                tool_calls=[
                    called("functions.f:1", "f", {"x": 1}),
                    called("functions.g:2", "g", {"input": "not JSON"}),
                ],
            ),
            output("2", "g", "functions.g:2"),
        ],
    ),
    "ids of Kimi, counted in each message": (
        with_(call_fields=CallFields(True, "", "message")),
        [ASK, BOTH, OUT, OUT_2, Message("tool", "3", name="h", call_id="unknown")],
        [
            user("Q"),
            assistant(
                "A",
                reasoning_content="R",
                tool_calls=[
                    called("functions.f:0", "f", {"x": 1}),
                    called("functions.g:1", "g", {"input": "not JSON"}),
                ],
            ),
            *(output("1", "f", "functions.f:0"), output("2", "g", "functions.g:1"), output("3", "h", "unknown")),
        ],
    ),
    "calls as metadata": (
        with_(call_fields=CallFields(False, "", metadata=True), parallel=False, text_beside_calls=False),
        [ASK, BOTH, OUT, OUT_2],
        [
            *(user("Q"), assistant("A")),
            assistant('{"x": 1}', reasoning_content="R", metadata="f"),
            {"role": "observation", "content": "1"},
            assistant("not JSON", metadata="g"),
            {"role": "observation", "content": "2"},
        ],
    ),
    "one call at a time": (
        with_(parallel=False),
        [ASK, BOTH, OUT, OUT_2, ANSWER],
        [
            user("Q"),
            *(assistant("A", reasoning_content="R", tool_calls=[F]), GAVE_1, assistant("", tool_calls=[G]), GAVE_2),
            assistant("A"),
        ],
    ),
    "text and calls apart": (
        with_(text_beside_calls=False),
        [ASK, BOTH, OUT, OUT_2],
        [user("Q"), assistant("A"), assistant("", reasoning_content="R", tool_calls=[F, G]), GAVE_1, GAVE_2],
    ),
    "text and calls can't be apart": (
        with_(text_beside_calls=False, consecutive_roles=False),
        [ASK, BOTH, OUT, OUT_2],
        [user("Q"), assistant("A", reasoning_content="R", tool_calls=[F, G]), GAVE_1, GAVE_2],
    ),
    "no calls": (
        with_(call_fields=None),
        [ASK, BOTH, OUT, OUT_2],
        [user("Q"), assistant(f"A\n{F_TEXT}\n{G_TEXT}", reasoning_content="R"), user("1"), user("2")],
    ),
    "reasoning by another name": (
        with_(reasoning="thinking"), [ASK, Message("assistant", "A", "R")], [user("Q"), assistant("A", thinking="R")],
    ),
    "no reasoning": (with_(reasoning=""), [ASK, Message("assistant", "A", "R")], [user("Q"), assistant("A")]),
    "system anywhere": (COMPLETE, [SYSTEM, ASK, LATER, MORE], [S, user("Q"), L, user("M")]),
    "system at the beginning": (
        with_(later_system=False),
        [SYSTEM, ASK, ANSWER, LATER, LATER, MORE],
        [S, user("Q"), assistant("A"), user("L\n\nL\n\nM")],
    ),
    "system nowhere": (
        with_(system=False, later_system=False),
        [SYSTEM, ASK, ANSWER, LATER],
        [user("S\n\nQ"), assistant("A"), user("L")],
    ),
    "system before the assistant": (
        with_(later_system=False), [ASK, LATER, ANSWER], [user("Q"), user("L"), assistant("A")],
    ),
    "turns": (
        with_(consecutive_roles=False),
        [ASK, MORE, ANSWER, Message("assistant", "B", "R", (ONE,)), OUT, MORE],
        [
            user("Q\n\nM"),
            assistant("A\n\nB", reasoning_content="R", tool_calls=[F]),
            *(GAVE_1, assistant(" "), user("M")),
        ],
    ),
    "turns from the beginning": (
        with_(consecutive_roles=False),
        [SYSTEM, ANSWER, Message("user", "")],
        [S, user(" "), assistant("A"), user(" ")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("capabilities", "messages", "expected"), ADAPTED.values(), ids=ADAPTED)
def test_adapt_messages_with_capabilities_returns_turns(
    capabilities: TemplateCapabilities, messages: Sequence[Message], expected: list[Turn]
) -> None:
    assert adapt_messages(messages, capabilities) == expected


DEEP = '{"a": ' * 40 + "1" + "}" * 40
ARGUMENTS: list[tuple[str, object]] = [
    ("{}", {}),
    ('{"a": [1, {"b": null}], "c": 1.5, "d": true}', {"a": [1, {"b": None}], "c": 1.5, "d": True}),
    ("[1]", {"input": "[1]"}),
    ('"text"', {"input": '"text"'}),
    ('{"a": 1e400}', {"input": '{"a": 1e400}'}),
    ('{"cut": ', {"input": '{"cut": '}),
    (DEEP, {"input": DEEP}),
    ("[" * 100_000, {"input": "[" * 100_000}),
]


@pytest.mark.parametrize(("arguments", "mapping"), ARGUMENTS)
def test_adapt_messages_with_arguments_that_are_no_object_passes_input_text(arguments: str, mapping: object) -> None:
    call = Message("assistant", "", calls=(Call("c", "f", arguments),))
    assert adapt_messages([call], COMPLETE)[0]["tool_calls"] == [called("c", "f", mapping)]


@pytest.mark.slow
def test_prompt_with_extreme_arguments_renders() -> None:
    template = compiled("{% for m in messages %}{{ m.content }}{{ (m.tool_calls or [])|tojson }}{% endfor %}")
    for arguments in ['{"a": 1' + "0" * 400 + "}", '{"a": -1e300}', *(text for text, _ in ARGUMENTS)]:
        messages = [ASK, Message("assistant", "", calls=(Call("c", "f", arguments),)), OUT]
        assert '"name": "f"' in rendered(template, messages)


def test_prompt_with_control_names_in_calls_has_them_as_text() -> None:
    vocabulary = vocabulary_with("<|end|>", "<|call|>")
    source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<|call|><tool_call>"
    source += "{{ c.function|tojson }}{{ m.reasoning }}{% endfor %}{{ m.name }}<|end|>{% endfor %}"
    template = ChatTemplate(source, vocabulary)
    call = Call("<|end|>", "<|call|>", '{"\\u003c|end|>": ["<|end|>"], "x": {"<|call|>": "\\u003c|call|>"}}')
    messages = [Message("assistant", "", "<|end|>", (call,)), Message("tool", "<|end|>", name="<|call|>")]
    assert parts(vocabulary, template.prompt(messages)) == [
        257,
        '<tool_call>{"name": "<|call|>", "arguments": {"<|end|>": ["<|end|>"], "x": {"<|call|>": "<|call|>"}}}<|end|>',
        *(256, "<|end|><|call|>", 256),
    ]


DETECTED = {
    "Qwen-Qwen3-0.6B": replace(COMPLETE, effort=True, tools=True),
    "openai-gpt-oss-120b": TemplateCapabilities(
        True, False, True, CallFields(True, ""), False, False, "thinking", True, True
    ),
    "mistralai-Mistral-Nemo-Instruct-2407": TemplateCapabilities(
        True,
        False,
        False,
        CallFields(True, "", "digits"),
        True,
        False,
        tools=True,
        text_before_calls=True,
        drops_system=True,
    ),
    "meta-llama-Llama-3.2-3B-Instruct": TemplateCapabilities(
        True, True, True, CallFields(True, ""), False, False, tools=True
    ),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": TemplateCapabilities(
        True, False, True, CallFields(False, None), True, False
    ),
    "google-gemma-2-2b-it": TemplateCapabilities(),
    "LFM2-8B-A1B": TemplateCapabilities(True, True, True, tools=True, outputs=True),
    "HuggingFaceTB-SmolLM3-3B": TemplateCapabilities(True, False, True, effort=True),
}


@NO_FILES
@pytest.mark.parametrize(("name", "capabilities"), DETECTED.items(), ids=DETECTED)
def test_capabilities_of_real_template_are_detected(name: str, capabilities: TemplateCapabilities) -> None:
    assert compiled((FOLDER / f"{name}.jinja").read_text()).capabilities == capabilities


def test_capabilities_of_template_that_refuses_everything_are_minimal() -> None:
    assert compiled("{{ raise_exception('No.') }}").capabilities == TemplateCapabilities()


def test_capabilities_of_endless_template_raise_template_error() -> None:
    endless = compiled("{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}")
    with pytest.raises(TemplateError, match="needs too much time or memory"):
        _ = endless.capabilities


words = st.integers(0, 999).map(lambda n: f"w{n:03}")
arguments = st.sampled_from(['{"at": "sky"}', "", "nonsense", "[1]", '{"a": {"b": [1, null, 2.5, true]}}'])
spoken = st.tuples(st.sampled_from(["user", "assistant", "system"]), words, words).map(
    lambda spoken: [Message(spoken[0], spoken[1], spoken[2] if spoken[0] == "assistant" else "")]
)


@st.composite
def calls(draw: st.DrawFn) -> list[Message]:
    made = [Call(draw(words), draw(words), draw(arguments)) for _ in range(draw(st.integers(1, 3)))]
    text, reasoning = draw(st.just("") | words), draw(st.just("") | words)
    outputs = [Message("tool", draw(words), name=call.name, call_id=call.id) for call in made]
    return [Message("assistant", text, reasoning, tuple(made)), *outputs]


histories = st.tuples(
    st.lists(spoken | calls(), max_size=6), st.just([ASK]) | calls().map(lambda made: [ASK, *made])
).map(lambda drawn: [turn for group in (*drawn[0], drawn[1]) for turn in group])


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in FILES])
@pytest.mark.slow
def test_prompt_of_real_template_contains_every_message(file: Path) -> None:
    template = compiled(file.read_text())

    @settings(max_examples=10)  # of 70 templates
    @given(histories)
    def check(history: list[Message]) -> None:
        text = rendered(template, history)
        lost = {message.content for message in history if message.content not in text}
        assert not lost

    check()


ALTERNATING = (
    "{% set ns = namespace(turn='user', system='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% if not loop.first %}{{ raise_exception('late') }}{% endif %}"
    "{% set ns.system = m.content %}"
    "{% elif m.role == 'tool' %}[OUT]{{ m.content }}"
    "{% elif m.tool_calls %}[TOOL_CALLS]{% for c in m.tool_calls %}{{ c.function|tojson }}{% endfor %}"
    "{% elif m.role != ns.turn %}{{ raise_exception('turns') }}"
    "{% else %}{% set ns.turn = 'assistant' if m.role == 'user' else 'user' %}"
    "{% if m.role == 'user' and loop.last %}{{ ns.system }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
)
"""Template like Mistral-Nemo's: roles alternate except for calls and outputs, text beside calls is dropped, and the
system message is rendered only with a last message of the user."""
SYS, QUERY, REPLY, AGAIN = (
    Message(role, text)
    for role, text in zip(("system", "user", "assistant", "user"), ("sys", "qu", "re", "ag"), strict=True)
)
CALLS, SPOKEN = Message("assistant", "", calls=(ONE,)), Message("assistant", "spoken", calls=(ONE,))
PAIR, SPOKEN_PAIR = Message("assistant", "", calls=(ONE, TWO)), Message("assistant", "spoken", calls=(ONE, TWO))
SHAPES: dict[str, Sequence[Message]] = {
    "system, call, output": (SYS, QUERY, CALLS, OUT),
    "system, text and call, output": (SYS, QUERY, SPOKEN, OUT),
    "text and call, output": (QUERY, SPOKEN, OUT),
    "system, two calls": (SYS, QUERY, PAIR, OUT, OUT_2),
    "system, text and two calls": (SYS, QUERY, SPOKEN_PAIR, OUT, OUT_2),
    "system, a whole round": (SYS, QUERY, CALLS, OUT, REPLY, AGAIN),
    "system, a whole round with text": (SYS, QUERY, SPOKEN, OUT, REPLY, AGAIN),
    "system, no calls": (SYS, QUERY, REPLY, AGAIN),
    "two systems": (SYS, QUERY, REPLY, LATER, AGAIN),
    "a system behind an output": (SYS, QUERY, CALLS, OUT, LATER, AGAIN),
    "a system at the end": (SYS, QUERY, CALLS, OUT, LATER),
    "two rounds": (SYS, QUERY, CALLS, OUT, Message("assistant", "", calls=(TWO,)), OUT_2),
    "two rounds with text": (SYS, QUERY, SPOKEN, OUT, Message("assistant", "more", calls=(TWO,)), OUT_2),
    "a user behind an output": (QUERY, CALLS, OUT, AGAIN),
}


@pytest.mark.parametrize("messages", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "source", [ALTERNATING, *(pytest.param(file.read_text(), id=file.stem) for file in FILES if "istral" in file.stem)]
)
def test_prompt_of_template_that_drops_messages_contains_every_word(source: str, messages: Sequence[Message]) -> None:
    text = rendered(compiled(source), messages)
    words = [word for message in messages for word in (message.content, *(call.name for call in message.calls))]
    assert [word for word in words if word not in text] == []


COUNTING = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ check(c.id) }}[{{ c.id }}]<tool_call>"
    "{{ c.function|tojson }}{% endfor %}{% if m.role == 'tool' %}{{ check(m.tool_call_id) }}[{{ m.tool_call_id }}]"
    "{% endif %}{{ m.content }}{% endfor %}"
)
CHECK = "{%% macro check(id) %%}{%% if id|length %s 9 %%}{{ raise_exception('id') }}{%% endif %%}{%% endmacro %%}"


@pytest.mark.parametrize(
    ("refused", "written"), [("!=", "000000002"), ("<", "000000002"), (">", "000000002"), ("==", "c")]
)
def test_prompt_of_template_with_id_length_has_ids_of_that_length(refused: str, written: str) -> None:
    """Mistral's templates require nine characters, or at least nine; clients choose any length."""
    template = compiled(CHECK % refused + COUNTING)
    messages = [ASK, Message("assistant", "", calls=(Call("c", "f", "{}"),)), Message("tool", "1", call_id="c")]
    assert rendered(template, messages) == f'Q[{written}]<tool_call>{{"name": "f", "arguments": {{}}}}[{written}]1'


PARTICULAR = (
    "{% if reasoning_effort not in ['high', 'low'] %}{{ raise_exception('no') }}{% endif %}{{ reasoning_effort }}"
)


@pytest.mark.parametrize(
    ("effort", "word"),
    [("minimal", "low"), ("low", "low"), ("medium", "low"), ("high", "high"), ("xhigh", "high"), ("none", "low")],
)
def test_prompt_with_rejected_effort_has_nearest_word(effort: str, word: str) -> None:
    template = compiled("{{ messages[0].content }}{% if reasoning_effort is defined %}" + PARTICULAR + "{% endif %}")
    assert template.capabilities.efforts == ("low", "high")
    ids = template.prompt([ASK], effort=effort)
    assert bytes(ids).decode() == f"Q{word}"


@pytest.mark.slow
@NO_FILES
@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh"])
def test_prompt_of_real_template_accepts_every_effort(effort: str) -> None:
    for file in FILES:
        assert compiled(file.read_text()).prompt([ASK], effort=effort), file.stem
