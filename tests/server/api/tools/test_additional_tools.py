"""Tools that items of the input offer: rendered, required, called and kept by the next turns."""

from pathlib import Path
from typing import Any

import pytest

from server.config import Config
from tests.server.api.tools.test_tools import AGENTS, HERMES, PARAMETERS, TIME, WEATHER, call, gist, output, writes
from tests.support.helpers import Answer, post, prompt_text, served

HELLO = {"role": "user", "content": "How is it in Rome?"}
SEARCH_OUTPUT = {"type": "tool_search_output", "call_id": "t", "execution": "client", "status": "completed"}


def offer(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "additional_tools", "role": "developer", "tools": list(tools)}


async def answers(text: str, input_: list[Any], **fields: Any) -> tuple[Answer, str]:
    """Return the answer and the prompt."""
    async with served(writes(text), template=HERMES) as running:
        answer = await post(running, input=input_, stream=True, **fields)
        return answer, prompt_text(running.model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "items",
    [
        [offer(WEATHER), HELLO],
        [HELLO, offer(WEATHER)],
        [HELLO, {"type": "tool_search_call", "call_id": "t", "arguments": {}}, SEARCH_OUTPUT | {"tools": [WEATHER]}],
    ],
)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
async def test_tool_of_an_item_is_offered_required_and_called(items: list[Any], choice: Any) -> None:
    answer, prompt = await answers(call("get_weather"), items, tool_choice=choice)
    response = answer.events[-1]["response"]
    assert gist(output(answer)) == [("function_call", "get_weather", '{"city": "Rome \\"é\\""}')]
    assert (response["tools"], response["tool_choice"]) == ([WEATHER | {"strict": True}], choice)
    assert "responsed" not in response
    assert "get_weather: The weather." in prompt


@pytest.mark.slow
async def test_call_of_namespace_in_an_item_has_client_names() -> None:
    answer, _ = await answers(call("agents__close"), [offer(AGENTS), HELLO])
    assert gist(output(answer)) == [("function_call", "agents", "close", '{"city": "Rome \\"é\\""}')]


@pytest.mark.parametrize(
    ("tools", "items", "echo"),
    [
        ([TIME], [offer(WEATHER)], ["get_time", "get_weather"]),
        ([WEATHER, TIME], [offer(WEATHER | {"description": "New."})], ["get_time", "get_weather"]),
        ([], [offer(WEATHER), offer(WEATHER | {"description": "New."}, {"type": "web_search"})], ["get_weather"]),
        ([], [offer(AGENTS), offer(AGENTS)], ["agents"]),
        ([], [{"type": "additional_tools", "role": "developer", "tools": None}, offer(WEATHER)], ["get_weather"]),
    ],
)
async def test_tool_of_a_later_item_replaces_one_of_its_name(
    tools: list[Any], items: list[Any], echo: list[str]
) -> None:
    answer, prompt = await answers("So.", [*items, HELLO], tools=tools)
    assert [tool["name"] for tool in answer.events[-1]["response"]["tools"]] == echo
    assert ("The weather." in prompt) == ("New." not in prompt and "get_weather" in echo)


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([offer({"type": "function"})], "input[0].tools[0]"),
        ([HELLO, offer(AGENTS | {"tools": [{"type": "function", "name": ""}]})], "input[1].tools[0].tools[0].name"),
        ([offer(*[TIME | {"name": f"t{n}"} for n in range(Config().max_tools + 1)])], "tools"),
        ([offer(AGENTS | {"tools": [TIME | {"name": f"t{n}"} for n in range(Config().max_tools + 1)]})], "tools"),
        ([{"type": "additional_tools", "tools": {}}], "input[0].tools"),
    ],
)
async def test_wrong_tool_of_an_item_is_rejected_with_its_place(items: list[Any], param: str) -> None:
    answer, _ = await answers("", [*items, HELLO])
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.slow
async def test_tools_of_items_stay_for_next_turn(tmp_path: Path) -> None:
    async with served(writes(call("get_weather")), template=HERMES, state=tmp_path) as running:
        first = await post(running, input=[offer(WEATHER), HELLO])
        id_ = first.json["id"]
        second = await post(running, input="And now?", previous_response_id=id_, tool_choice="required")
    assert gist(second.json["output"]) == [("function_call", "get_weather", '{"city": "Rome \\"é\\""}')]
    assert second.json["tools"][0]["parameters"] == PARAMETERS


SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": PARAMETERS}
SEARCH_CALL = {"type": "tool_search_call", "call_id": "t", "execution": "client", "arguments": {"city": "Rome"}}


@pytest.mark.slow
async def test_found_tool_is_in_the_output_that_has_found_it() -> None:
    found = SEARCH_OUTPUT | {"tools": [WEATHER, AGENTS]}
    answer, prompt = await answers(call("agents__close"), [HELLO, SEARCH_CALL, found], tools=[SEARCH])
    beginning, _, rest = prompt.partition("How is it in Rome?")
    assert gist(output(answer)) == [("function_call", "agents", "close", '{"city": "Rome \\"é\\""}')]
    assert "get_weather" not in beginning
    assert '{"name":"get_weather","description":"The weather.","parameters":{' in rest
    assert '{"name":"agents__close",' in rest


@pytest.mark.slow
async def test_found_tools_keep_the_cached_prompt(tmp_path: Path) -> None:
    """OpenAI adds them at the end of the context for the same reason."""
    async with served(writes(call("tool_search")), template=HERMES, state=tmp_path) as running:
        first = (await post(running, input=[HELLO], tools=[SEARCH])).json
        searched = first["output"][-1]
        found = SEARCH_OUTPUT | {"call_id": searched["call_id"], "tools": [WEATHER]}
        second = (await post(running, input=[found], tools=[SEARCH], previous_response_id=first["id"])).json
    assert searched["type"] == "tool_search_call"
    assert [tool.get("name", tool["type"]) for tool in second["tools"]] == ["tool_search", "get_weather"]
    assert second["usage"]["input_tokens_details"]["cached_tokens"] >= first["usage"]["input_tokens"]


SHORTENED: dict[str, dict[str, Any]] = {
    "truncation": {"truncation": "auto"},
    "compaction": {"context_management": [{"type": "compaction", "compact_threshold": 100_000}]},
}


@pytest.mark.parametrize("fields", SHORTENED.values(), ids=SHORTENED)
async def test_found_tool_comes_first_where_its_output_may_be_left_out(fields: dict[str, Any]) -> None:
    items = [HELLO, SEARCH_CALL, SEARCH_OUTPUT | {"tools": [WEATHER]}]
    _, prompt = await answers("So.", items, tools=[SEARCH], **fields)
    assert "get_weather: The weather." in prompt.partition("How is it in Rome?")[0]


async def test_tool_that_is_found_again_stays_in_its_place() -> None:
    items = [HELLO, SEARCH_CALL, SEARCH_OUTPUT | {"tools": [WEATHER]}]
    _, prompt = await answers("So.", items, tools=[SEARCH, WEATHER])
    beginning, _, rest = prompt.partition("How is it in Rome?")
    assert "get_weather: The weather." in beginning
    assert "The weather." not in rest
