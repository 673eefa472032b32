"""Clients get slots in turn, and requests of an affinity group return to their slot."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from server.http.exchange import Exchange
from tests.support.helpers import Client, PacedModel, Running, encode, exchange, post, served


def letters(model: ScriptedModel) -> bytes:
    """Return the letters of the answers, in the order of generation."""
    last = (bytes(token for token in chunk.tokens if token < 256)[-1:] for chunk in model.decoded)
    return b"".join(letter for letter, _ in itertools.groupby(last))


async def ask(running: Running, path: str, body: dict[str, Any], key: str | None) -> Client:
    """Send a request that waits for its slot; return its client."""
    app, client = running.app, await Client.to(running)
    known = app.running + app.waiting
    await client.request("POST", path, encode(**body), *([f"Authorization: Bearer {key}"] if key else []))
    while app.running + app.waiting == known:  # noqa: ASYNC110  # the counts have no event
        await trio.sleep(0.001)
    return client


def chat_body(letter: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": letter}]}


TURNS = [
    # Key and letter of each request in order of arrival, and the letters in order of the answers.
    ([("ada", "a"), ("ada", "b"), ("ada", "c"), ("ada", "d"), ("bob", "x")], b"abxcd"),
    ([("ada", "a"), ("ada", "b"), ("ada", "c"), ("bob", "x"), ("bob", "y"), (None, "n")], b"abxncy"),
    ([(None, "a"), (None, "b"), (None, "c"), ("bob", "x")], b"abxc"),
]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(("requests", "order"), TURNS)
async def test_busy_client_does_not_delay_others(
    requests: list[tuple[str | None, str]], order: bytes, chat: bool
) -> None:
    model = PacedModel(n_slots=1)
    path = "/v1/chat/completions" if chat else "/v1/responses"
    async with served(model) as running:
        model.hold()
        clients = []
        for key, letter in requests:
            clients.append(await ask(running, path, chat_body(letter) if chat else {"input": letter}, key))
            await model.wait_begun(1)  # only the first request has a slot
        model.go()
        for client in clients:
            async with client:
                assert (await client.answer()).status == 200
    assert letters(model) == order


CLIENTS = [
    (("10.0.0.1", 1), None, "10.0.0.1"),
    (("10.0.0.1", 2), b"Bearer a", "10.0.0.1 122c4e371d393490"),
    (("10.0.0.1", 1), b"Bearer b", "10.0.0.1 929ce5eeb27132f6"),
    (None, None, ""),
]


@pytest.mark.parametrize(("address", "authorization", "name"), CLIENTS)
def test_client_name_has_address_and_key_hash(
    address: tuple[str, int] | None, authorization: bytes | None, name: str
) -> None:
    headers = [] if authorization is None else [(b"authorization", authorization)]
    scope = {"method": "GET", "path": "/", "raw_path": b"/", "headers": headers, "client": address}

    async def nothing(*message: Any) -> Any:
        return None

    assert Exchange(scope, nothing, nothing, "req_1").client == name


OTHERS = "b" * 40
"""First conversation, of another client: its slot is the least recently used."""

KIN: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    # First turn, second turn (with another prefix), and True if they are of one affinity group.
    "a chain": ({}, {"previous_response_id": "first"}, True),
    "a chain, with the key that others have too": (
        {}, {"previous_response_id": "first", "prompt_cache_key": "k"}, True,
    ),
    "a key": ({"prompt_cache_key": "k", "store": False}, {"prompt_cache_key": "k", "store": False}, True),
    "two keys": ({"prompt_cache_key": "k"}, {"prompt_cache_key": "l"}, False),
    "nothing": ({}, {}, False),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "same_group"), KIN.values(), ids=KIN)
async def test_affinity_group_reuses_its_own_slot(
    first: dict[str, Any], second: dict[str, Any], same_group: bool, tmp_path: Path
) -> None:
    async with served(ScriptedModel(n_slots=2, batched=True), state=tmp_path, cache_bytes=0) as running:
        other = (await post(running, input=OTHERS)).json
        mine = (await post(running, input="a" * 40, **first)).json
        second = {name: mine["id"] if value == "first" else value for name, value in second.items()}
        again = await post(running, input="aha", instructions="Now " * 10, **second)
        assert again.status == 200
        turn = (await post(running, input="And?", previous_response_id=other["id"])).json
    reused = turn["usage"]["input_tokens_details"]["cached_tokens"] >= other["usage"]["input_tokens"]
    assert reused is same_group


@pytest.mark.slow
async def test_chain_of_responses_is_one_affinity_group(tmp_path: Path) -> None:
    """Turns and branches of a chain share a group, also after a restart."""
    ids: list[str] = []
    for _ in range(2):
        async with served(ScriptedModel(n_slots=2, batched=True), state=tmp_path, cache_bytes=0) as running:
            other = (await post(running, input=OTHERS)).json
            if not ids:
                ids.append((await post(running, input="a" * 40)).json["id"])
            for previous in [ids[0], *ids]:
                # Each prompt has another prefix, so that no slot has any of it cached.
                settings = {"previous_response_id": previous, "instructions": f"{len(ids)}" * 40}
                ids.append((await post(running, input="aha", **settings)).json["id"])
            turn = (await post(running, input="And?", previous_response_id=other["id"])).json
            cached = turn["usage"]["input_tokens_details"]["cached_tokens"]
            assert cached >= other["usage"]["input_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(("key", "reused"), [("bob", True), ("ada", False)])
async def test_prompt_cache_key_is_scoped_to_client(key: str, reused: bool) -> None:
    """Otherwise a client could take the slot of another by naming its key."""

    async def ask(client: str, **body: Any) -> dict[str, Any]:
        whole = encode(prompt_cache_key="main", **body)
        answer = await exchange(running, "POST", "/v1/responses", whole, f"Authorization: {client}")
        usage: dict[str, Any] = answer.json["usage"]
        return usage

    async with served(ScriptedModel(n_slots=2, batched=True), cache_bytes=0) as running:
        await post(running, input=OTHERS)
        await ask("ada", input="a" * 40)
        await ask(key, input="d" * 40, instructions="No. " * 9)
        again = await ask("ada", input="a" * 40)
    assert (again["input_tokens_details"]["cached_tokens"] == again["input_tokens"] - 1) is reused
