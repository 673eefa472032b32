"""Compaction over a WebSocket: the turn before is in the connection's memory only."""

import pytest

from engine.backends.scripted import ScriptedModel
from server.stream import decode_summary
from tests.server.api.compaction.test_compaction import TALK, TRIGGER, managed, scribe
from tests.server.session.test_session import connected
from tests.support.helpers import prompt_text, text, types

pytestmark = pytest.mark.slow


async def test_compaction_over_websocket_continues_unstored_turns() -> None:
    async with connected(ScriptedModel(scribe(), n_slots=1)) as (running, client):
        await client.create(input=TALK, store=False)
        first = (await client.stream())[-1]["response"]
        await client.create(input=[TRIGGER], store=False, previous_response_id=first["id"])
        events = await client.stream()
        second = events[-1]["response"]
        await client.create(input="So?", store=False, previous_response_id=second["id"], **managed(1))
        third = (await client.stream())[-1]["response"]
        prompt = prompt_text(running.model)
    assert types(events)[2:5] == [
        "response.output_item.added",
        "response.compaction.compacting",
        "response.output_item.done",
    ]
    assert [decode_summary(item["encrypted_content"]) for item in second["output"]] == ["They greeted."]
    assert text(third) == "Yes."
    assert prompt.endswith("They greeted.So?Yes.")
