"""Ends of generations: by a time limit, a shutdown, a cancellation between two jobs, and by faults of the server."""

from pathlib import Path

import pytest
import trio

from tests.support.helpers import PATIENCE, PacedModel, post, served


@pytest.mark.slow
@pytest.mark.parametrize("decodes", [0, 3], ids=["prompt", "text"])
async def test_answer_timeout_ends_an_answer_while_nothing_arrives(decodes: int, tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path, answer_timeout_seconds=0.2) as running:
        model.hold()
        model.allow(decodes)
        with trio.fail_after(PATIENCE / 2):
            streamed = await post(running, input="Hello", stream=True)
        model.go()
        again = await post(running, input="Hello")
    response = streamed.events[-1]["response"]
    assert (response["status"], response["error"]["message"]) == (
        "failed", "The answer took longer than 0.2 s (--answer-timeout).",
    )  # fmt: skip
    assert again.json["status"] == "completed"
