"""Ends of generations: by a time limit, a shutdown, a cancellation between two jobs, and by faults of the server."""

import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from server.generation.generation import Generation
from server.generation.recorder import Recorder
from server.store.responses import Store
from tests.support.helpers import PATIENCE, PacedModel, get, post, served


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


async def test_shutdown_while_a_complete_response_is_stored_leaves_it_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, release, finish = threading.Event(), threading.Event(), Store.finish

    def slowly(*arguments: Any) -> None:
        storing.set()
        assert release.wait(PATIENCE)
        finish(*arguments)

    monkeypatch.setattr(Store, "finish", slowly)
    answers = []
    async with served(PacedModel(), state=tmp_path) as running, trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await post(running, input="Hello"))

        nursery.start_soon(ask)
        assert await trio.to_thread.run_sync(storing.wait, PATIENCE)
        running.app.stop()
        release.set()
    (answer,) = answers
    assert (answer.status, answer.json["status"]) == (200, "completed")


@pytest.mark.parametrize("broken", [(Recorder, "finish"), (Generation, "summary"), (Generation, "content")], ids=str)
async def test_fault_at_the_end_of_a_generation_ends_no_other(
    broken: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError

    async with served(PacedModel(), state=tmp_path) as running:
        with monkeypatch.context() as patched:
            patched.setattr(*broken, fail)
            answer = await post(running, input="Hello", stream=True)
        after = await post(running, input="Hello")
        ready = await get(running, "/ready")
    status = "failed" if broken[1] == "finish" else "completed"
    assert answer.events[-1]["type"] == f"response.{status}"
    assert [each["sequence_number"] for each in answer.events] == list(range(len(answer.events)))
    assert (after.json["status"], ready.status) == ("completed", 200)
    assert sum(record.exc_info is not None for record in caplog.records) == 1
