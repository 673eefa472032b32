"""Between the inference thread and the socket nothing waits: counted in turns of the event loop, not in time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from engine.backends import scripted
from engine.backends.scripted import ScriptedModel
from engine.chat_template.template import ChatTemplate
from engine.job import EngineOutput, Token
from engine.runtime.engine import Engine
from engine.scheduler.slots import Key
from server.api.app import App
from server.config.config import Config
from server.served_model.embedded import ModelDetails
from server.store.async_store import AsyncStore
from tests.support.helpers import CREATED, NAME, PATIENCE, encode, open_store


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.now = 0

    def before_io_wait(self, timeout: float) -> None:
        self.now += 1


class Watched(Engine):
    """Notes when tokens leave its thread."""

    def watch(self, turns: Turns) -> None:
        self._turns = turns
        self.left: list[int] = []

    def _deliver(self, pieces: list[tuple[Key, EngineOutput]]) -> None:
        self.left += [self._turns.now for _, piece in pieces if isinstance(piece, Token)]
        super()._deliver(pieces)


async def test_token_is_sent_in_the_turn_after_its_arrival(tmp_path: Path) -> None:
    """The first turn hears of it, the second makes the event, the third sends it; stored or not."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    vocabulary = scripted.vocabulary()
    model = ScriptedModel(seconds_per_token=0.002)
    engine = Watched(model, vocabulary.end_tokens)
    engine.watch(turns)
    store = open_store(tmp_path / "responses.db")
    template = ChatTemplate(scripted.TEMPLATE, vocabulary)
    app = App(
        Config(model=NAME), engine, ModelDetails(NAME, CREATED, model.info, vocabulary, template), AsyncStore(store)
    )
    sent: list[int] = []
    body = [{"type": "http.request", "body": encode(input="Hello", stream=True), "more_body": False}]

    async def receive() -> Mapping[str, Any]:
        if not body:
            await trio.sleep_forever()
        return body.pop()

    async def send(message: Mapping[str, Any]) -> None:
        data = [line for line in message.get("body", b"").split(b"\n") if line.startswith(b"data: {")]
        sent.extend(turns.now for line in data if json.loads(line[6:])["type"] == "response.output_text.delta")

    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "raw_path": b"/v1/responses", "headers": []}
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(app.host)
            await nursery.start(engine.run)
            await app(scope, receive, send)
            nursery.cancel_scope.cancel()
    store.close()
    trio.lowlevel.remove_instrument(turns)
    assert [after - before for before, after in zip(engine.left, sent, strict=True)] == [2] * len("Hello")
