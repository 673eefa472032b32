"""Summaries of reasoning, and sealed reasoning that clients send back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from openai.types.responses import ResponseReasoningItem

from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.api.tools.test_tools import evaluated
from tests.support import wire
from tests.support.helpers import NAME, Running, get, official_client, post, served

ANSWER = b"<think>\nThey ask for two. Fine.\n\nI say two.\n</think>\n\nTwo."
PARTS = ["They ask for two.", "I say two."]
SEALED = ["reasoning.encrypted_content"]


@pytest.mark.slow
async def test_summary_streams_behind_the_text(tmp_path: Path) -> None:
    asked = {"input": "Which?", "reasoning": {"summary": "auto"}}
    async with served(thinker(ANSWER), template=THINKS, state=tmp_path) as running:
        streamed = await post(running, **asked, stream=True)
        whole = await post(running, **asked)
        again = await get(running, f"/v1/responses/{streamed.events[0]['response']['id']}?stream=true")
    wire.check_response(whole.json)
    reasoning = streamed.events[-1]["response"]["output"][0]
    assert reasoning["summary"] == [{"type": "summary_text", "text": text} for text in PARTS]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "They ask for two. Fine.\n\nI say two."}]
    assert whole.json["output"][0]["summary"] == reasoning["summary"]
    assert again.body == streamed.body
    assert [
        {key: event[key] for key in ("type", "summary_index", "part", "delta", "text") if key in event}
        for event in streamed.events
        if "summary" in event["type"]
    ] == [
        each
        for index, text in enumerate(PARTS)
        for each in (
            {"type": "response.reasoning_summary_part.added", "summary_index": index, "part": summary("")},
            {"type": "response.reasoning_summary_text.delta", "summary_index": index, "delta": text},
            {"type": "response.reasoning_summary_text.done", "summary_index": index, "text": text},
            {"type": "response.reasoning_summary_part.done", "summary_index": index, "part": summary(text)},
        )
    ]


def summary(text: str) -> dict[str, str]:
    return {"type": "summary_text", "text": text}


@pytest.mark.parametrize(
    ("reasoning", "skipped"), [({"summary": "none"}, []), ({"summary": "short"}, ["reasoning.summary"]), (None, [])]
)
async def test_without_a_known_kind_there_is_no_summary(reasoning: object, skipped: list[str]) -> None:
    async with served(thinker(ANSWER), template=THINKS) as running:
        answer = await post(running, input="Which?", reasoning=reasoning)
    assert answer.json["output"][0]["summary"] == []
    assert answer.json.get("responsed", {}).get("skipped", []) == skipped


async def ask_again(running: Running, output: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Send the output back as clients without stored responses do: of reasoning the sealed text only."""
    stripped = [{key: value for key, value in item.items() if key != "content" or item["type"] != "reasoning"}
                for item in output]  # fmt: skip
    again = [
        {"role": "user", "content": "A prompt that is not cached."},
        *stripped,
        {"role": "user", "content": "Sure?"},
    ]
    running.model.decoded.clear()
    answer = await post(running, input=again, store=False, include=SEALED)
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.slow
async def test_sealed_reasoning_reaches_the_model_again(tmp_path: Path) -> None:
    async with served(thinker(ANSWER), template=THINKS, state=tmp_path, cache_bytes=0) as running:
        first = (await post(running, input="Which?", store=False, include=SEALED, stream=True)).events[-1]["response"]
        sealed = first["output"][0]["encrypted_content"]
        assert "two" not in sealed
    async with served(thinker(ANSWER), template=THINKS, state=tmp_path, cache_bytes=0) as running:  # after a restart
        again = await ask_again(running, first["output"])
        assert b"They ask for two. Fine." in evaluated(running)
        assert "skipped" not in again.get("responsed", {})
        assert (tmp_path / "reasoning.key").stat().st_mode & 0o777 == 0o600
        assert again["output"][0]["encrypted_content"] != sealed, "each sealed text has a nonce of its own"


@pytest.mark.slow
@pytest.mark.parametrize("change", ["cut", "flipped", "foreign", "null", "number"])
async def test_reasoning_that_this_server_did_not_seal_is_named(change: str, tmp_path: Path) -> None:
    async with served(thinker(ANSWER), template=THINKS, state=tmp_path, cache_bytes=0) as running:
        first = (await post(running, input="Which?", include=SEALED)).json
        sealed = first["output"][0]["encrypted_content"]
        changed = {
            "cut": sealed[:-4],
            "flipped": sealed[:40] + chr(ord(sealed[40]) ^ 1) + sealed[41:],
            "foreign": "gAAAA\ud83d",
            "null": None,
            "number": 7,
        }[change]
        again = await ask_again(running, [first["output"][0] | {"encrypted_content": changed}, first["output"][1]])
    named = [] if change == "null" else ["item reasoning, encrypted by another server"]
    assert (again["status"], again.get("responsed", {}).get("skipped", [])) == ("completed", named)
    assert b"two. Fine" not in evaluated(running)


@pytest.mark.slow
async def test_key_that_is_unusable_is_replaced_for_this_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "reasoning.key").write_bytes(b"no key")
    async with served(thinker(ANSWER), template=THINKS, state=tmp_path, cache_bytes=0) as running:
        first = (await post(running, input="Which?", store=False, include=SEALED)).json
        await ask_again(running, first["output"])
        assert b"They ask for two." in evaluated(running)
    assert (tmp_path / "reasoning.key").read_bytes() == b"no key"
    assert "the key of sealed reasoning" in caplog.text


async def test_cut_reasoning_is_not_sealed_and_not_asked_for_is_neither() -> None:
    async with served(thinker(ANSWER), template=THINKS) as running:
        cut = (await post(running, input="Which?", include=SEALED, max_output_tokens=16)).json
        plain = (await post(running, input="Which?")).json
    assert cut["output"][0]["status"] == "incomplete"
    assert "encrypted_content" in cut["output"][0], "a limit ends an item as any end does"
    assert "encrypted_content" not in plain["output"][0]


def by_the_official_client(url: str) -> str:
    """Return the items of the second request, after a first one in the way of stateless agents."""
    with official_client(url) as client:
        with client.responses.stream(
            model=NAME,
            input="Which?",
            store=False,
            include=["reasoning.encrypted_content"],
            reasoning={"summary": "auto"},
        ) as stream:
            first = stream.get_final_response()
        assert isinstance(first.output[0], ResponseReasoningItem)
        assert [part.text for part in first.output[0].summary] == PARTS
        history: list[Any] = [
            {"role": "user", "content": "Which?"},
            *first.output,
            {"role": "user", "content": "Sure?"},
        ]
        second = client.responses.create(model=NAME, input=history, store=False)
    return json.dumps(second.to_dict())


@pytest.mark.slow
async def test_official_client_reads_summaries_and_sends_items_back() -> None:
    async with served(thinker(ANSWER), template=THINKS) as running:
        second = await trio.to_thread.run_sync(by_the_official_client, running.url)
    assert "skipped" not in second
