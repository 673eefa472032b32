"""Whatever clients do to stored responses and conversations, in whatever order, restarts among it: each is as a simple
model says."""

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct

from tests.support import wire
from tests.support.helpers import Answer, PacedModel, Running, behind, delete, encode, exchange, get, post, served, text

pytestmark = pytest.mark.slow


class DaemonThread:
    """One beside the machine: that runs in a thread, the daemon where signals can be heard."""

    def __init__(self, nursery: trio.Nursery, state: Path) -> None:
        self.model = PacedModel(n_slots=1)
        self._state = state
        self._stopping, self._stopped = trio.Event(), trio.Event()
        self.running: Running = trio.from_thread.run(nursery.start, self._serve)

    def stop(self) -> None:
        trio.from_thread.run_sync(self._stopping.set)
        trio.from_thread.run(self._stopped.wait)

    async def _serve(self, task_status: trio.TaskStatus[Running]) -> None:
        async with served(self.model, state=self._state) as running:
            task_status.started(running)
            await self._stopping.wait()
        self._stopped.set()


class Known(Struct):
    """Expected content of a response."""

    input: str
    previous: str | None
    background: bool
    conversation: str | None = None
    status: str = "making"
    body: Any = None
    stream: bytes = b""


class Clients(RuleBasedStateMachine):
    ids = Bundle("ids")
    conversations = Bundle("conversations")

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery
        self._folder = tempfile.TemporaryDirectory()
        self._daemon = DaemonThread(nursery, Path(self._folder.name))
        self._held = False
        self._known: dict[str, Known] = {}
        """Stored responses by id."""
        self._texts: dict[str, list[str]] = {}
        """Contents of each conversation: role and text of each item."""

    def teardown(self) -> None:
        self._daemon.stop()
        self._folder.cleanup()

    def _call(self, call: Callable[..., Awaitable[Answer]], *values: Any, **more: Any) -> Answer:
        return trio.from_thread.run(partial(call, self._daemon.running, *values, **more))

    def _prompt(self, response_id: str | None) -> int | None:
        """Tokens of the whole conversation up to that response; None where a link is missing."""
        if response_id is None:
            return 0
        if (known := self._known.get(response_id)) is None or (before := self._prompt(known.previous)) is None:
            return None
        answer = "a" + text(known.body) if known.body["output"] else ""
        return before + len("u" + known.input + answer)

    def _grow(self, conversation: str | None, *texts: str) -> None:
        if conversation in self._texts:
            self._texts[conversation] += texts

    def _settle(self, response_id: str) -> None:
        """It has ended: from now on nothing about it changes."""
        known = self._known[response_id]
        found = self._call(get, f"/v1/responses/{response_id}")
        wire.check_response(found.json)
        known.status, known.body = found.json["status"], found.json
        again = self._call(get, f"/v1/responses/{response_id}?stream=true")
        assert again.events[-1]["response"] == known.body
        known.stream = again.body

    @precondition(lambda self: not self._held)
    @rule(
        target=ids,
        input_=st.text("ab", min_size=1, max_size=4),
        previous=st.one_of(st.none(), ids),
        stream=st.booleans(),
        store=st.booleans(),
    )
    def create(self, input_: str, previous: str | None, stream: bool, store: bool) -> str:
        answer = self._call(post, input=input_, stream=stream, store=store, previous_response_id=previous)
        before = self._prompt(previous)
        if before is None:
            assert (answer.status, answer.json["error"]["code"]) == (400, "previous_response_not_found")
            return "resp_none"
        response = answer.events[-1]["response"] if stream else answer.json
        assert (text(response), response["store"], response["status"]) == (input_, store, "completed")
        assert response["usage"]["input_tokens"] == before + len("u" + input_ + "a")
        response_id: str = response["id"]
        if store:
            self._known[response_id] = Known(input_, previous, background=False)
            self._settle(response_id)
            assert self._known[response_id].body == response
            assert not stream or self._known[response_id].stream == answer.body
        return response_id

    @rule(
        target=ids,
        input_=st.text("ab", min_size=1, max_size=4),
        conversation=st.one_of(st.none(), conversations),
    )
    def create_in_the_background(self, input_: str, conversation: str | None) -> str:
        answer = self._call(post, input=input_, background=True, conversation=conversation)
        if conversation is not None and conversation not in self._texts:
            assert answer.status == 404
            return "resp_none"
        response = answer.json
        assert response["status"] == "queued"
        self._known[response["id"]] = Known(input_, None, background=True, conversation=conversation)
        if not self._held:
            self._finish()
        return str(response["id"])

    @rule(target=conversations, texts=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
    def converse(self, texts: list[str]) -> str:
        items = [{"role": "user", "content": content} for content in texts]
        conversation_id: str = self._call(exchange, "POST", "/v1/conversations", encode(items=items)).json["id"]
        self._texts[conversation_id] = [f"u{content}" for content in texts]
        return conversation_id

    @precondition(lambda self: not self._held)
    @rule(
        conversation=conversations,
        input_=st.text("ab", min_size=1, max_size=4),
        stream=st.booleans(),
        store=st.booleans(),
    )
    def create_in_a_conversation(self, conversation: str, input_: str, stream: bool, store: bool) -> None:
        answer = self._call(post, input=input_, stream=stream, store=store, conversation=conversation)
        if conversation not in self._texts:
            assert answer.status == 404
            return
        response = answer.events[-1]["response"] if stream else answer.json
        assert (text(response), response["conversation"]) == (input_, {"id": conversation})
        before = "".join(self._texts[conversation])
        assert response["usage"]["input_tokens"] == len(before + "u" + input_ + "a")
        self._grow(conversation, f"u{input_}", f"a{input_}")

    @rule(conversation=conversations)
    def read_conversation(self, conversation: str) -> None:
        found = self._call(get, f"/v1/conversations/{conversation}/items?order=asc&limit=100")
        if conversation not in self._texts:
            assert found.status == 404
            return
        wire.check_conversation_items(found.json)
        texts = [item["role"][0] + item["content"][0]["text"] for item in found.json["data"]]
        assert texts == self._texts[conversation][:100]

    @rule(conversation=conversations)
    def delete_conversation(self, conversation: str) -> None:
        answer = self._call(delete, f"/v1/conversations/{conversation}")
        assert answer.status == (404 if self._texts.pop(conversation, None) is None else 200)

    @precondition(lambda self: not self._held)
    @rule()
    def hold(self) -> None:
        self._daemon.model.hold()
        self._held = True

    @precondition(lambda self: self._held)
    @rule()
    def go(self) -> None:
        self._daemon.model.go()
        self._held = False
        self._finish()

    def _finish(self) -> None:
        trio.from_thread.run(self._daemon.running.app.wait_idle)
        for response_id, known in self._known.items():
            if known.status == "making":
                self._settle(response_id)
                assert (known.status, text(known.body)) == ("completed", known.input)
                self._grow(known.conversation, f"u{known.input}", f"a{known.input}")  # one slot: in their order

    @rule(response_id=ids)
    def retrieve(self, response_id: str) -> None:
        found = self._call(get, f"/v1/responses/{response_id}")
        known = self._known.get(response_id)
        if known is None:
            assert found.status == 404
        elif known.status == "making":
            assert found.json["status"] in ("queued", "in_progress")
        else:
            assert found.json == known.body

    @rule(response_id=ids, number=st.integers(-1, 20))
    def resume(self, response_id: str, number: int) -> None:
        known = self._known.get(response_id)
        if known is not None and known.status == "making":
            return
        found = self._call(get, f"/v1/responses/{response_id}?stream=true&starting_after={number}")
        if known is None:
            assert found.status == 404
        else:
            assert found.body == behind(known.stream, number)

    @rule(response_id=ids)
    def cancel(self, response_id: str) -> None:
        answer = self._call(exchange, "POST", f"/v1/responses/{response_id}/cancel")
        known = self._known.get(response_id)
        if known is None or not known.background:
            assert answer.status == (404 if known is None else 400)
        elif known.status == "making":
            self._settle(response_id)
            assert (known.status, answer.json) == ("cancelled", known.body)
            self._grow(known.conversation, f"u{known.input}")  # the scripted model waited and wrote nothing
        else:
            assert answer.json == known.body

    @rule(response_id=ids)
    def delete(self, response_id: str) -> None:
        answer = self._call(delete, f"/v1/responses/{response_id}")
        known = self._known.pop(response_id, None)
        assert answer.status == (200 if known else 404)
        if known is not None and known.status == "making":
            self._grow(known.conversation, f"u{known.input}")

    @rule()
    def restart(self) -> None:
        """At once: what is being made has no time to end."""
        self._daemon.stop()
        self._daemon = DaemonThread(self._nursery, Path(self._folder.name))
        self._held = False
        for response_id, known in self._known.items():
            if known.status == "making":
                self._settle(response_id)
                assert known.status == "failed"

    @invariant()
    def there_is_an_answer(self) -> None:
        assert self._call(get, "/health").status == 200


# Hypothesis does not shrink failures: each attempt costs as much as an example.
BOUNDED = settings(max_examples=20, stateful_step_count=20, phases=[Phase.generate])


async def test_stored_responses_are_as_the_model_says() -> None:
    async with trio.open_nursery() as nursery:

        class Here(Clients):
            def __init__(self) -> None:
                super().__init__(nursery)

        await trio.to_thread.run_sync(partial(run_state_machine_as_test, Here, settings=BOUNDED))
