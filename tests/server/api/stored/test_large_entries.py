"""Large responses and conversations are read beside the event loop."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from server.api import conversations
from server.mcp import McpSessions
from server.preprocessing import references, request_reader
from server.prompt.items import stored_items
from server.protocol import decoding
from server.work_thread import work_thread
from tests.support.helpers import Running, delete, encode, exchange, get, post, served

Act: TypeAlias = Callable[[Running], Awaitable[Any]]
"""Function that sends requests, the last of which is watched, and returns its answer."""


async def made(running: Running, **fields: Any) -> str:
    """Make a response and return its path."""
    response = (await post(running, input="Hello, how are you?", **fields)).json
    return f"/v1/responses/{response['id']}"


async def conversation(running: Running) -> str:
    return str((await exchange(running, "POST", "/v1/conversations", b"{}")).json["id"])


async def update(running: Running) -> Any:
    body = encode(metadata={"note": "x"})
    return await exchange(running, "POST", f"/v1/conversations/{await conversation(running)}", body)


async def list_chain(running: Running) -> Any:
    first = await made(running)
    second = await made(running, previous_response_id=first.rpartition("/")[2])
    return await get(running, f"{second}/input_items")


async def list_conversation(running: Running) -> Any:
    return await get(running, f"{await made(running, conversation=await conversation(running))}/input_items")


async def refer(running: Running) -> Any:
    first = (await get(running, f"{await made(running)}/input_items")).json["data"][0]["id"]
    return await post(running, input=[{"type": "item_reference", "id": first}])


async def remove(running: Running) -> Any:
    return await delete(running, await made(running))


async def cancel(running: Running) -> Any:
    path = await made(running, background=True)
    await get(running, f"{path}?stream=true")
    return await exchange(running, "POST", f"{path}/cancel")


ACTS: dict[str, tuple[Act, Any, str, str]] = {
    # Requests, and the function that reads the large part; for a decoder, the type that it returns.
    "new metadata": (update, decoding, "read", ""),
    "items of a chain": (list_chain, stored_items, "conversation_items", ""),
    "page of a chain": (list_chain, stored_items, "page", ""),
    "items of a conversation": (list_conversation, stored_items, "items_before", ""),
    "page of a conversation": (list_conversation, stored_items, "page", ""),
    "reference": (refer, stored_items, "items_by_id", ""),
    "deletion": (remove, msgspec.json, "decode", "_Origin"),
    "cancellation": (cancel, msgspec.json, "decode", "_Background"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("act", "module", "name", "type_name"), ACTS.values(), ids=ACTS)
async def test_large_entry_is_read_beside_the_event_loop(
    act: Act, module: Any, name: str, type_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    read = getattr(module, name)

    def recorded(*arguments: Any, **options: Any) -> Any:
        if type_name in ("", getattr(options.get("type"), "__name__", None)):
            threads.append(threading.current_thread())
        return read(*arguments, **options)

    monkeypatch.setattr(work_thread, "LARGE", -1)  # large entries would need a model with a large context
    monkeypatch.setattr(module, name, recorded)
    async with served(state=tmp_path) as running:
        assert (await act(running)).status == 200
    assert threads
    assert threading.current_thread() not in threads


async def converse(running: Running, text: str) -> None:
    """Make a conversation of one item, list it, and answer in it; the item may be too long for that."""
    made = await exchange(running, "POST", "/v1/conversations", encode(items=[{"role": "user", "content": text}]))
    await post(running, input="Go", conversation=made.json["id"])
    assert (await get(running, f"/v1/conversations/{made.json['id']}/items")).status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (conversations, "_stored_items"),
        (conversations, "_encode_items"),
        (references, "references"),
        (McpSessions, "open"),
        (request_reader, "_prepare"),
    ],
)
async def test_one_large_item_is_read_beside_the_event_loop(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, list[threading.Thread]] = {"x": [], "x" * work_thread.LARGE: []}
    read = getattr(module, name)
    async with served(state=tmp_path) as running:
        for text, found in threads.items():

            def recorded(*arguments: Any, found: list[threading.Thread] = found) -> Any:
                found.append(threading.current_thread())
                return read(*arguments)

            monkeypatch.setattr(module, name, recorded)
            await converse(running, text)
    small, large = threads.values()
    assert set(small) == {threading.current_thread()}, "a thread costs more than a small item"
    assert large
    assert threading.current_thread() not in large
