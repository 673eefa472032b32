"""Compilation of constraints: once for equal tools, within limits of size."""

import pytest
from msgspec import Raw

from engine.backends import scripted
from engine.chat_template.template import ChatTemplate
from server.config import Config
from server.protocol.errors import InvalidRequest
from server.protocol.formats import PLAIN, SchemaFormat
from server.served_model import constraint_builder, output_constraints
from server.served_model.constraint_builder import ConstraintBuilder
from server.tools import toolbox
from tests.server.api.test_reasoning import THINKS
from tests.server.api.tools.test_tools import HERMES, raws
from tests.server.served_model.test_enforced_answers import BAD, TIME, WEATHER
from tests.support.helpers import encode


def test_equal_tools_are_compiled_once() -> None:
    builder = ConstraintBuilder(vocabulary := scripted.vocabulary(), ChatTemplate(HERMES, vocabulary))
    first, second = (
        builder.build(output_constraints.constraint_spec(PLAIN, "", toolbox.toolbox(raws(WEATHER, TIME))))
        for _ in range(2)
    )
    assert first is second

    refusals = []
    for build in (builder.build, builder.build.get):
        with pytest.raises(InvalidRequest) as refused:
            build(output_constraints.constraint_spec(PLAIN, "", toolbox.toolbox(raws({**WEATHER, "parameters": BAD}))))
        refusals.append((refused.value.param, str(refused.value)))
    assert refusals[0] == refusals[1]


def test_refusal_of_tool_names_its_place_after_it_has_moved() -> None:
    builder = ConstraintBuilder(vocabulary := scripted.vocabulary(), ChatTemplate(HERMES, vocabulary))
    bad = {**WEATHER, "parameters": BAD}
    params = []
    for tools in ([bad], [TIME, {**bad, "description": "Another."}]):
        with pytest.raises(InvalidRequest) as refused:
            builder.build(output_constraints.constraint_spec(PLAIN, "", toolbox.toolbox(raws(*tools))))
        params.append(refused.value.param)
    assert params == ["tools[0].parameters", "tools[1].parameters"]


def test_tags_of_several_budgets_are_built_once() -> None:
    builder = ConstraintBuilder(vocabulary := scripted.vocabulary(), ChatTemplate(THINKS, vocabulary))
    built = builder.build(output_constraints.constraint_spec(PLAIN, "", toolbox.toolbox(raws(WEATHER))))
    keys = [key for limit in (100, 50) if (key := builder.key(built, [], "low", limit)) is not None]
    assert [key.budget for key in keys] == [50, 25]
    assert builder.tags(keys[0].without_budget) is builder.tags(keys[1].without_budget)


@pytest.mark.slow
def test_as_many_tools_as_allowed_can_be_compiled() -> None:
    """All tools together exceed the limit of a grammar: tools that are not strict are enforced less."""
    n_tools = Config().max_tools
    tools = [
        {**TIME, "name": f"f{n}", "parameters": {"properties": {f"a_number_{n}_{m}": {} for m in range(20)}}}
        for n in range(n_tools)
    ]
    builder = ConstraintBuilder(vocabulary := scripted.vocabulary(), ChatTemplate(HERMES, vocabulary))
    built = builder.build(output_constraints.constraint_spec(PLAIN, "", toolbox.toolbox(raws(*tools))))
    assert (len(built.loose), len(built.grammars.triggers)) == (n_tools, 1)
    with pytest.raises(InvalidRequest, match="The tools in `tools` cannot be enforced") as refused:
        builder.build(
            output_constraints.constraint_spec(
                PLAIN, "", toolbox.toolbox(raws(*({**tool, "strict": True} for tool in tools)))
            )
        )
    assert refused.value.param == "tools"


@pytest.mark.slow
def test_compiled_grammars_over_the_memory_limit_are_evicted() -> None:
    builder = ConstraintBuilder(vocabulary := scripted.vocabulary(), ChatTemplate(HERMES, vocabulary))
    schemas = [encode(enum=[f"{n}{'x' * 40_000}"]) for n in range(20)]
    asked = [
        output_constraints.constraint_spec(SchemaFormat("long", Raw(schema)), "", toolbox.toolbox([]))
        for schema in schemas
    ]
    sizes = [builder.build(each).grammars.size for each in asked]
    left = [size for each, size in zip(asked, sizes, strict=True) if builder.build.get(each) is not None]
    assert left == sizes[-len(left) :]
    assert 0.8 * constraint_builder.MAX_COMPILED_BYTES < sum(left) < constraint_builder.MAX_COMPILED_BYTES


@pytest.mark.slow
def test_tools_too_large_together_get_short_escapes_before_they_lose_keywords() -> None:
    tools = [
        {**TIME, "name": f"f{n}", "strict": True, "parameters": {"properties": {f"a{n}": {"type": "string"}}}}
        for n in range(100)
    ]
    builder = ConstraintBuilder(vocabulary := scripted.vocabulary(), ChatTemplate(HERMES, vocabulary))
    built = builder.build(output_constraints.constraint_spec(PLAIN, "", toolbox.toolbox(raws(*tools))))
    assert (built.loose, len(built.grammars.triggers)) == (frozenset(), 1)
