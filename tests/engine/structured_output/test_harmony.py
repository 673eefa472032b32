"""Harmony's channels, held: where a thought ends, and calls to whom they are addressed."""

import numpy as np
import pytest

from engine.chat_template.message import Message
from engine.chat_template.template import ChatTemplate
from engine.dialects.call_grammar import after_reasoning_grammar, answer_grammar, triggers
from engine.dialects.dialect import Dialect, Parser
from engine.dialects.families import DIALECTS
from engine.json_schema.check import JSON
from engine.notations.argument_schema import ArgumentSchema
from engine.notations.call_format import Function
from engine.structured_output.specs import ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from server.served_model.constraint_builder import ConstraintBuilder
from server.served_model.output_constraints import UNCONSTRAINED
from server.stream.inputs import TextAdded, ToolCallStarted
from server.stream.tool_call_mapper import ToolCallMapper
from tests.engine.dialects.test_call_grammar import calls, read, room_of
from tests.engine.structured_output.test_compiler import takes

HARMONY = next(dialect for dialect in DIALECTS if dialect.channels)
VOCABULARY, GRAMMARS = room_of(HARMONY, control=True)
(THINK,) = HARMONY.thinks
CITY: JSON = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
FUNCTIONS = [Function("weather", CITY)]
ALL = "anything"


def phases(functions: list[Function], demanded: bool = False, budget: int | None = 3) -> StructuralTag:
    after = after_reasoning_grammar(HARMONY, functions, GRAMMARS)
    assert after is not None
    thought = ReasoningSpec(THINK.close, THINK.open, budget=budget, after=GRAMMARS.lark(after))
    if demanded:
        return StructuralTag(
            VOCABULARY,
            GRAMMARS.lark(answer_grammar(HARMONY, functions, GRAMMARS)),
            (),
            thought,
            begun=HARMONY.generation_prefix,
        )
    marked = [Trigger(marker, GRAMMARS.lark(rest)) for marker, rest in triggers(HARMONY, functions, GRAMMARS)]
    return StructuralTag(VOCABULARY, None, marked, thought, begun=HARMONY.generation_prefix)


def spelled(token: int) -> str:
    return VOCABULARY.bytes_of(token).decode(errors="replace") or VOCABULARY.name_of(token)


def goes_on(phases: StructuralTag, text: str) -> tuple[str, str]:
    """What has to follow, and what may follow that."""
    course, written = phases.start(), VOCABULARY.encode_prompt(text)
    for token in written:
        course.accept(token)
    forced = ""
    while True:
        logits = np.zeros(len(VOCABULARY), np.float32)
        course.apply_mask(logits)
        may = np.flatnonzero(logits == 0).tolist()
        names = sorted(map(spelled, may))
        if len(may) > 1 or may[0] in VOCABULARY.end_tokens - {VOCABULARY.control_id("<|call|>")}:
            return forced, ALL if len(may) > 255 else "".join(names)
        forced += names[0]
        if may[0] in VOCABULARY.end_tokens:
            return forced, ""
        course.accept(may[0])


THOUGHT = "<|channel|>analysis<|message|>"
ENDED = "<|end|><|start|>assistant"
COMMENTARY = "<|channel|>commentary"
CALLED = " <|constrain|>json<|message|>{"
NAMED = ("eather", " <|channel|><|message|>")
"""Behind a name, the kind of content may be left out, or the channel follow."""


@pytest.mark.parametrize(
    ("held", "text", "then"),
    [
        (phases([]), f"{THOUGHT}So", ("", ALL)),
        (phases([]), f"{THOUGHT}So.", (f"{ENDED}<|channel|>final<|message|>", ALL)),
        (phases([], budget=0), THOUGHT, (f"{ENDED}<|channel|>final<|message|>", ALL)),
        (phases([], budget=20), f"{THOUGHT}S{ENDED}", ("", ALL)),
        (phases([], budget=20), f"{THOUGHT}S{ENDED}{THOUGHT}So, so...", (f"{ENDED}<|channel|>final<|message|>", ALL)),
        (phases([], budget=None), f"{THOUGHT}So, so, so", ("", ALL)),
        # What ends it for its reader ends it here.
        (phases([], budget=20), f"{THOUGHT}So.<|end|>", ("<|start|>assistant", ALL)),
        (phases(FUNCTIONS, budget=20), f"{THOUGHT}So.<|end|><|start|>as", ("sistant", ALL)),
        # With functions, it may be a call too.
        (phases(FUNCTIONS), f"{THOUGHT}So.", (ENDED, " <|channel|>")),
        (phases(FUNCTIONS), f"{THOUGHT}So.{ENDED}<|channel|>", ("", "cf")),
        (phases(FUNCTIONS), f"{THOUGHT}So.{ENDED}<|channel|>c", ("ommentary to=", "fw")),
        (phases(FUNCTIONS), f"{THOUGHT}So.{ENDED}<|channel|>f", ("inal<|message|>", ALL)),
        (phases(FUNCTIONS, budget=20), f"{THOUGHT}S{ENDED} to=w", NAMED),
        # Or has to be one.
        (phases(FUNCTIONS, demanded=True), "<|channel|>", ("", "ac")),
        (phases(FUNCTIONS, demanded=True), f"{THOUGHT}So.", (f"{ENDED}", "\n <|channel|>")),
        (phases(FUNCTIONS, demanded=True), f"{THOUGHT}S{ENDED}<|channel|>", ("commentary to=", "fw")),
        (phases(FUNCTIONS, demanded=True, budget=0), "<|channel|>", ("commentary to=", "fw")),
        # With the namespace and without, in whichever order, and nowhere else
        (phases(FUNCTIONS), f"{COMMENTARY} to=functions.w", NAMED),
        (phases(FUNCTIONS), f"{COMMENTARY} to=w", NAMED),
        (phases(FUNCTIONS), "<|channel|>analysis to=w", NAMED),
        (phases(FUNCTIONS), " to=w", NAMED),
        (phases(FUNCTIONS), f"{COMMENTARY} to=weather ", ("", "<|constrain|>j")),
        (phases(FUNCTIONS), f"{COMMENTARY} to=weather <|constrain|>", ("json<|message|>{", '\n "')),
        (phases(FUNCTIONS), f"{COMMENTARY} to=weather<|message|>", ("{", '\n "')),
        (phases(FUNCTIONS), f" to=weather{COMMENTARY}", ("", " <|message|>")),
        (phases(FUNCTIONS), f"{COMMENTARY}<|message|>Now.<|end|><|start|>assistant to=", ("", "fw")),
        (phases(FUNCTIONS), "<|channel|>final<|message|>say(x, to=", ("", ALL)),
    ],
)  # fmt: skip
def test_what_follows(held: StructuralTag, text: str, then: tuple[str, str]) -> None:
    assert goes_on(held, text) == then


@pytest.mark.parametrize(
    "to",
    [f"{COMMENTARY} to=weather", f"{COMMENTARY} to=functions.weather", " to=weather", f" to=weather{COMMENTARY}"],
)
def test_what_is_held_is_what_is_read(to: str) -> None:
    text = f'{to}{CALLED}"city":"Oslo"}}'
    assert goes_on(phases(FUNCTIONS), text)[0] == "<|call|>"
    assert calls(read(HARMONY, VOCABULARY, VOCABULARY.encode_prompt(f"{text}<|call|>"))) == [
        ("weather", {"city": "Oslo"})
    ]


AFTER = {"harmony": "<|channel|>final<|message|>", "muse": " to=user<|message|>", "kimi-3": "<|open|>response<|sep|>"}


@pytest.mark.parametrize("dialect", [each for each in DIALECTS if each.thinks], ids=lambda each: each.name)
def test_behind_a_thought_that_had_to_end_nobody_thinks_on(dialect: Dialect) -> None:
    """Where a family's words begin with a marker, as its thoughts do."""
    vocabulary, grammars = room_of(dialect, control=True)
    after = after_reasoning_grammar(dialect, [], grammars)
    assert (after is None) == (dialect.name not in AFTER)
    if after is not None:
        assert takes(grammars.lark(after), vocabulary, AFTER[dialect.name])
        assert not takes(grammars.lark(after), vocabulary, dialect.thinks[0].open)


def test_an_effort_ends_a_thought_in_its_channel() -> None:
    template = ChatTemplate("{# <|channel|> <|message|> <|call|> #}<|start|>assistant", VOCABULARY)
    holding = ConstraintBuilder(VOCABULARY, template)
    course = holding.key(UNCONSTRAINED, template.prompt([Message("user", "Is it?")]), "none", room=100)
    assert course is not None
    assert goes_on(holding.tags(course.without_budget).within(course.budget), THOUGHT) == (
        f"{ENDED}<|channel|>final<|message|>",
        ALL,
    )


UNOFFERED = [
    '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city":"Oslo"}<|call|>',
    ' to=functions.weather<|channel|>commentary <|constrain|>json<|message|>{"city":"Oslo"}<|call|>',
    '<|channel|>commentary to=weather<|message|>{"city":"Oslo"}<|call|>',
    '<|channel|>commentary to=user<|message|>{"city":"Oslo"}<|end|>',
]


@pytest.mark.parametrize("text", UNOFFERED)
@pytest.mark.parametrize("offered", [{}, {"other": ToolCallStarted("other")}])
def test_answer_that_calls_a_function_nobody_offered_makes_no_call(
    text: str, offered: dict[str, ToolCallStarted]
) -> None:
    functions = {name: ArgumentSchema({}, {}) for name in offered}
    interpreter = ToolCallMapper(Parser(HARMONY, functions), {}, offered)
    cues = [*interpreter.feed(text), *interpreter.finish(cut=False)]
    assert [cue for cue in cues if isinstance(cue, ToolCallStarted)] == []
    assert "".join(cue.text for cue in cues if isinstance(cue, TextAdded)) == '{"city":"Oslo"}'
