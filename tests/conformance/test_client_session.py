"""One session over every method of openai-python that this server supports, with strict validation of each answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import trio

from tests.conformance.test_compatibility import table
from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.upstream.fronts import Served
from tests.support.helpers import NAME, official_client

pytestmark = pytest.mark.slow

called: set[str] = set()


@contextmanager
def method(name: str) -> Iterator[None]:
    """Note a method of the table."""
    yield
    called.add(name)


class Verdict(pydantic.BaseModel):
    yes: bool


def session(url: str, completes: bool) -> None:
    """Call every method. The client raises APIResponseValidationError for an answer that its types do not allow.

    `completes`: False if the server continues no plain text, as before upstreams.
    """
    with official_client(url, _strict_response_validation=True) as client:
        first = answers(client)
        stored(client, first)
        conversations(client)
        plain(client)
        if completes:
            completions(client)


def answers(client: openai.OpenAI) -> str:
    responses = client.responses
    with method("responses.create"):
        first = responses.create(model=NAME, input="Is it?")
        assert (first.status, first.output_text) == ("completed", "Yes.")
        events = list(responses.create(model=NAME, input="Is it?", stream=True))
        assert events[-1].type == "response.completed"
    with method("responses.stream"), responses.stream(model=NAME, input="Is it?") as stream:
        assert [event.type for event in stream][-1] == "response.completed"
        assert stream.get_final_response().output_text == "Yes."
    with method("responses.parse"):
        parsed = responses.parse(model=NAME, input="Is it?", text_format=Verdict)
        assert isinstance(parsed.output_parsed, Verdict)
    with method("responses.connect"), responses.connect() as connection:
        connection.response.create(model=NAME, input="Is it?")
        for event in connection:
            if event.type == "response.completed":
                break
    return first.id


def stored(client: openai.OpenAI, first: str) -> None:
    responses = client.responses
    with method("responses.retrieve"):
        assert responses.retrieve(first).id == first
        assert list(responses.retrieve(first, stream=True))[-1].type == "response.completed"
    with method("responses.input_items.list"):
        assert [item.type for item in responses.input_items.list(first)] == ["message"]
    with method("responses.input_tokens.count"):
        assert responses.input_tokens.count(model=NAME, input="Is it?").input_tokens > 0
    with method("responses.compact"):
        # The reference says "all user messages, followed by a compaction item"; the type knows no messages of users.
        with official_client(str(client.base_url)) as lenient:
            kinds = [item.type for item in lenient.responses.compact(model=NAME, input="Is it?").output]
        assert kinds == ["message", "compaction"]
    with method("responses.cancel"):
        background = responses.create(model=NAME, input="Is it?", background=True)
        assert responses.cancel(background.id).id == background.id
    with method("responses.delete"):
        responses.delete(first)
        with_missing(lambda: responses.retrieve(first))


def conversations(client: openai.OpenAI) -> None:
    with method("conversations.create"):
        conversation = client.conversations.create(metadata={"a": "b"})
    with method("conversations.update"):
        assert client.conversations.update(conversation.id, metadata={"c": "d"}).metadata == {"c": "d"}
    with method("conversations.retrieve"):
        assert client.conversations.retrieve(conversation.id).metadata == {"c": "d"}
    with method("conversations.items.create"):
        message: Any = {"type": "message", "role": "user", "content": "Is it?"}
        added = client.conversations.items.create(conversation.id, items=[message])
    item = str(added.data[0].id)
    client.responses.create(model=NAME, input="And?", conversation=conversation.id)
    with method("conversations.items.list"):
        kinds = [each.type for each in client.conversations.items.list(conversation.id, order="asc")]
        assert kinds == ["message", "message", "reasoning", "message"]
    with method("conversations.items.retrieve"):
        assert client.conversations.items.retrieve(item, conversation_id=conversation.id).id == item
    with method("conversations.items.delete"):
        client.conversations.items.delete(item, conversation_id=conversation.id)
    with method("conversations.delete"):
        assert client.conversations.delete(conversation.id).deleted
        with_missing(lambda: client.conversations.retrieve(conversation.id))


def plain(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Is it?"}]
    with method("models.list"):
        assert [model.id for model in client.models.list()] == [NAME]
    with method("models.retrieve"):
        assert client.models.retrieve(NAME).id == NAME
    with method("chat.completions.create"):
        assert client.chat.completions.create(model=NAME, messages=messages).choices[0].message.content == "Yes."
        assert list(client.chat.completions.create(model=NAME, messages=messages, stream=True))
    with method("chat.completions.stream"), client.chat.completions.stream(model=NAME, messages=messages) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Yes."
    with method("chat.completions.parse"):
        parsed = client.chat.completions.parse(model=NAME, messages=messages, response_format=Verdict)
        assert isinstance(parsed.choices[0].message.parsed, Verdict)


def completions(client: openai.OpenAI) -> None:
    with method("completions.create"):
        assert client.completions.create(model=NAME, prompt="Is it?").choices[0].text


def with_missing(call: Any) -> None:
    try:
        call()
    except openai.NotFoundError:
        return
    raise AssertionError("the deleted object is still there")


async def test_every_supported_method_returns_what_its_types_allow(served: Served, tmp_path: Path) -> None:
    called.clear()
    supported = {name for name, status in table("Methods of the client").items() if status == "supported"}
    async with served(thinker(), template=THINKS, state=tmp_path) as running:
        completes = not running.sends_chat
        await trio.to_thread.run_sync(session, running.url, completes)
    assert called == supported - (set() if completes else {"completions.create"})
