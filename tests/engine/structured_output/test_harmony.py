"""Constraints on Harmony's channels: the end of the reasoning, and the recipients of calls."""

import numpy as np
import pytest

from engine.chat_template.message import Message
from engine.chat_template.template import ChatTemplate
from engine.dialects.call_grammar import after_reasoning_grammar, answer_grammar, triggers
from engine.dialects.dialect import Dialect
from engine.dialects.families import DIALECTS
from engine.dialects.parser import Parser
from engine.json_schema import JSON
from engine.notations.argument_schema import ArgumentSchema
from engine.notations.call_format import Function
from engine.structured_output.specs import ReasoningSpec, Trigger
from engine.structured_output.structural_tag import StructuralTag
from server.postprocessing.tool_call_mapper import ToolCallMapper
from server.served_model.constraint_builder import ConstraintBuilder
from server.served_model.output_constraints import UNCONSTRAINED
from server.stream.inputs import TextAdded, ToolCallStarted
from tests.engine.dialects.test_call_grammar import calls, family_vocabulary, read
from tests.engine.structured_output.test_compiler import accepts

HARMONY = next(dialect for dialect in DIALECTS if dialect.channels)
VOCABULARY, GRAMMARS = family_vocabulary(HARMONY, control=True)
(THINK,) = HARMONY.reasoning_tags
CITY: JSON = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]}
FUNCTIONS = [Function("weather", CITY)]
ALL = "anything"


def tag(functions: list[Function], demanded: bool = False, budget: int | None = 3) -> StructuralTag:
    after = after_reasoning_grammar(HARMONY, functions, GRAMMARS)
    assert after is not None
    thought = ReasoningSpec(THINK.close, THINK.open, budget=budget, after=GRAMMARS.lark(after))
    if demanded:
        return StructuralTag(
            VOCABULARY,
            GRAMMARS.lark(answer_grammar(HARMONY, functions, GRAMMARS)),
            (),
            thought,
            prefix=HARMONY.generation_prefix,
        )
    marked = [Trigger(marker, GRAMMARS.lark(rest)) for marker, rest in triggers(HARMONY, functions, GRAMMARS)]
    return StructuralTag(VOCABULARY, None, marked, thought, prefix=HARMONY.generation_prefix)


def token_text(token: int) -> str:
    return VOCABULARY.bytes_of(token).decode(errors="replace") or VOCABULARY.name_of(token)


def forced_and_next(tag: StructuralTag, text: str) -> tuple[str, str]:
    """Return the only possible continuation, and the tokens that may follow it."""
    state, written = tag.start(), VOCABULARY.encode_prompt(text)
    for token in written:
        state.accept(token)
    forced = ""
    while True:
        logits = np.zeros(len(VOCABULARY), np.float32)
        state.apply_mask(logits)
        may = np.flatnonzero(logits == 0).tolist()
        names = sorted(map(token_text, may))
        if len(may) > 1 or may[0] in VOCABULARY.end_tokens - {VOCABULARY.control_id("<|call|>")}:
            return forced, ALL if len(may) > 255 else "".join(names)
        forced += names[0]
        if may[0] in VOCABULARY.end_tokens:
            return forced, ""
        state.accept(may[0])


THOUGHT = "<|channel|>analysis<|message|>"
ENDED = "<|end|><|start|>assistant"
COMMENTARY = "<|channel|>commentary"
CALLED = " <|constrain|>json<|message|>{"
NAMED = ("eather", " <|channel|><|message|>")
"""Continuations of a name: the content type is optional, and the channel may follow."""


@pytest.mark.parametrize(
    ("tag_under_test", "text", "then"),
    [
        (tag([]), f"{THOUGHT}So", ("", ALL)),
        (tag([]), f"{THOUGHT}So.", (f"{ENDED}<|channel|>final<|message|>", ALL)),
        (tag([], budget=0), THOUGHT, (f"{ENDED}<|channel|>final<|message|>", ALL)),
        (tag([], budget=20), f"{THOUGHT}S{ENDED}", ("", ALL)),
        (tag([], budget=20), f"{THOUGHT}S{ENDED}{THOUGHT}So, so...", (f"{ENDED}<|channel|>final<|message|>", ALL)),
        (tag([], budget=None), f"{THOUGHT}So, so, so", ("", ALL)),
        # A marker that ends the reasoning for the parser ends it here too.
        (tag([], budget=20), f"{THOUGHT}So.<|end|>", ("<|start|>assistant", ALL)),
        (tag(FUNCTIONS, budget=20), f"{THOUGHT}So.<|end|><|start|>as", ("sistant", ALL)),
        # With functions, a call may follow.
        (tag(FUNCTIONS), f"{THOUGHT}So.", (ENDED, " <|channel|>")),
        (tag(FUNCTIONS), f"{THOUGHT}So.{ENDED}<|channel|>", ("", "cf")),
        (tag(FUNCTIONS), f"{THOUGHT}So.{ENDED}<|channel|>c", ("ommentary to=", "fw")),
        (tag(FUNCTIONS), f"{THOUGHT}So.{ENDED}<|channel|>f", ("inal<|message|>", ALL)),
        (tag(FUNCTIONS, budget=20), f"{THOUGHT}S{ENDED} to=w", NAMED),
        # With a demanded call, a call must follow.
        (tag(FUNCTIONS, demanded=True), "<|channel|>", ("", "ac")),
        (tag(FUNCTIONS, demanded=True), f"{THOUGHT}So.", (f"{ENDED}", "\n <|channel|>")),
        (tag(FUNCTIONS, demanded=True), f"{THOUGHT}S{ENDED}<|channel|>", ("commentary to=", "fw")),
        (tag(FUNCTIONS, demanded=True, budget=0), "<|channel|>", ("commentary to=", "fw")),
        # The recipient may have a namespace and precede or follow the channel.
        (tag(FUNCTIONS), f"{COMMENTARY} to=functions.w", NAMED),
        (tag(FUNCTIONS), f"{COMMENTARY} to=w", NAMED),
        (tag(FUNCTIONS), "<|channel|>analysis to=w", NAMED),
        (tag(FUNCTIONS), " to=w", NAMED),
        (tag(FUNCTIONS), f"{COMMENTARY} to=weather ", ("", "<|constrain|>j")),
        (tag(FUNCTIONS), f"{COMMENTARY} to=weather <|constrain|>", ('json<|message|>{"city": "Oslo"', ",}")),
        (tag(FUNCTIONS), f"{COMMENTARY} to=weather<|message|>", ('{"city": "Oslo"', ",}")),
        (tag(FUNCTIONS), f" to=weather{COMMENTARY}", ("", " <|message|>")),
        (tag(FUNCTIONS), f"{COMMENTARY}<|message|>Now.<|end|><|start|>assistant to=", ("", "fw")),
        (tag(FUNCTIONS), "<|channel|>final<|message|>say(x, to=", ("", ALL)),
    ],
)  # fmt: skip
def test_structural_tag_of_harmony_forces_and_allows_tokens(
    tag_under_test: StructuralTag, text: str, then: tuple[str, str]
) -> None:
    assert forced_and_next(tag_under_test, text) == then


@pytest.mark.parametrize(
    "to",
    [f"{COMMENTARY} to=weather", f"{COMMENTARY} to=functions.weather", " to=weather", f" to=weather{COMMENTARY}"],
)
def test_structural_tag_of_harmony_constrains_each_call_that_parser_reads(to: str) -> None:
    text = f'{to}{CALLED}"city": "Oslo"}}'
    assert forced_and_next(tag(FUNCTIONS), text)[0] == "<|call|>"
    assert calls(read(HARMONY, VOCABULARY, VOCABULARY.encode_prompt(f"{text}<|call|>"))) == [
        ("weather", {"city": "Oslo"})
    ]


AFTER = {"harmony": "<|channel|>final<|message|>", "muse": " to=user<|message|>", "kimi-3": "<|open|>response<|sep|>"}


@pytest.mark.parametrize("dialect", [each for each in DIALECTS if each.reasoning_tags], ids=lambda each: each.name)
def test_after_reasoning_grammar_excludes_further_reasoning(dialect: Dialect) -> None:
    """Only families whose answers begin with a marker, as their reasoning does, have such a grammar."""
    vocabulary, grammars = family_vocabulary(dialect, control=True)
    after = after_reasoning_grammar(dialect, [], grammars)
    assert (after is None) == (dialect.name not in AFTER)
    if after is not None:
        assert accepts(grammars.lark(after), vocabulary, AFTER[dialect.name])
        assert not accepts(grammars.lark(after), vocabulary, dialect.reasoning_tags[0].open)


def test_reasoning_budget_of_effort_none_closes_reasoning_channel() -> None:
    template = ChatTemplate("{# <|channel|> <|message|> <|call|> #}<|start|>assistant", VOCABULARY)
    builder = ConstraintBuilder(VOCABULARY, template)
    key = builder.key(UNCONSTRAINED, template.prompt([Message("user", "Is it?")]), "none", max_tokens=100)
    assert key is not None
    assert forced_and_next(builder.tags(key.without_budget).with_budget(key.budget), THOUGHT) == (
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
def test_answer_with_call_of_unoffered_function_is_read_as_text(text: str, offered: dict[str, ToolCallStarted]) -> None:
    functions = {name: ArgumentSchema({}, {}) for name in offered}
    interpreter = ToolCallMapper(Parser(HARMONY, functions), {}, offered)
    cues = [*interpreter.feed(text), *interpreter.finish(cut=False)]
    assert [cue for cue in cues if isinstance(cue, ToolCallStarted)] == []
    assert "".join(cue.text for cue in cues if isinstance(cue, TextAdded)) == '{"city":"Oslo"}'
