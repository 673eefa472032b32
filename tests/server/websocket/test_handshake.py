"""Opening handshakes over real sockets: accepted ones, refused ones, and a thousand mutated ones."""

import base64
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.events import CloseConnection
from wsproto.utilities import generate_accept_token

from tests.support.helpers import PATIENCE, Client, Running, exchange, served
from tests.support.websockets import SocketClient, handshake

KEY = base64.b64encode(bytes(range(16))).decode()
VALID = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def lines(changes: dict[str, str | None], *more: str) -> list[str]:
    """Headers of a valid handshake with changes; None removes one."""
    headers = {name: value for name, value in (VALID | changes).items() if value is not None}
    return [*(f"{name}: {value}" for name, value in headers.items()), *more]


def request(headers: Sequence[str], line: str = "GET /v1/responses HTTP/1.1") -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode()


async def test_handshake_answer_has_the_accept_token_and_no_extension() -> None:
    offers = ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat"]
    async with served() as running, await Client.to(running) as client:
        await client.send(request(lines({}, *offers)))
        head = await client.head()
    assert (head.status, head.headers["sec-websocket-accept"]) == (101, generate_accept_token(KEY.encode()).decode())
    assert (head.headers["upgrade"], head.headers["connection"]) == ("websocket", "Upgrade")
    assert head.headers["x-request-id"].startswith("req_")
    assert head.headers.keys() == {"upgrade", "connection", "sec-websocket-accept", "x-request-id"}


CASES: dict[str, tuple[list[str], str, int]] = {
    "tokens in lists": (lines({"Connection": "keep-alive, upgrade", "Upgrade": "h2c, WebSocket"}), "", 101),
    "a header twice": (lines({"Connection": "keep-alive"}, "Connection: Upgrade"), "", 101),
    "no upgrade": (lines({"Upgrade": None}), "", 426),
    "another upgrade": (lines({"Upgrade": "h2c"}), "", 426),
    "no connection": (lines({"Connection": None}), "", 426),
    "no version": (lines({"Sec-WebSocket-Version": None}), "", 426),
    "version 8": (lines({"Sec-WebSocket-Version": "8"}), "", 426),
    "no key": (lines({"Sec-WebSocket-Key": None}), "", 400),
    "key of 15 bytes": (lines({"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()}), "", 400),
    "key that is no base64": (lines({"Sec-WebSocket-Key": "*" * 24}), "", 400),
    "two keys": (lines({}, f"Sec-WebSocket-Key: {KEY}"), "", 400),
    "a body": (lines({"Content-Length": "2"}), "", 400),
    "a chunked body": (lines({"Transfer-Encoding": "chunked"}), "", 400),
    "POST": (lines({"Content-Length": "2", "Content-Type": "application/json"}), "POST /v1/responses HTTP/1.1", 400),
    "HEAD": (lines({}), "HEAD /v1/responses HTTP/1.1", 405),
    "another path": (lines({}), "GET /v1/models HTTP/1.1", 200),
    "a stored response": (lines({}), "GET /v1/responses/resp_x HTTP/1.1", 404),
    "a foreign origin": (lines({"Origin": "https://evil.example"}), "", 403),
    "our own origin": (lines({"Origin": "http://localhost"}), "", 101),
    "a foreign host": (lines({"Host": "evil.example"}), "", 421),
}


@pytest.mark.parametrize("case", CASES)
async def test_handshake_gets_its_status(case: str) -> None:
    headers, line, status = CASES[case]
    async with served() as running:
        async with await Client.to(running) as client:
            await client.send(
                request(headers, line or "GET /v1/responses HTTP/1.1") + b"{}" * (case in ("a body", "POST"))
            )
            assert (await client.head()).status == status
        assert (await exchange(running, "GET", "/health")).status == 200


@pytest.mark.parametrize(("keys", "status"), [([], 401), (["no"], 401), (["secret"], 101)])
async def test_handshake_needs_the_key(keys: list[str], status: int) -> None:
    async with served(keys={"ann": "secret"}) as running, await Client.to(running) as client:
        await client.send(request(lines({}, *(f"Authorization: Bearer {key}" for key in keys))))
        assert (await client.head()).status == status


async def test_handshake_over_http_1_0_is_refused() -> None:
    async with served() as running, await Client.to(running) as client:
        await client.send(request(lines({}), "GET /v1/responses HTTP/1.0"))
        assert (await client.rest()).startswith(b"HTTP/1.1 426 ")


async def test_refused_handshake_leaves_the_connection_open() -> None:
    async with served() as running, await Client.to(running) as client:
        await client.send(request(lines({"Sec-WebSocket-Version": "7"})))
        answer = await client.answer()
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
        assert (answer.headers["upgrade"], answer.json["error"]["code"]) == ("websocket", "upgrade_required")
        await client.send(handshake())
        assert (await client.head()).status == 101


async def test_frames_that_come_with_the_handshake_are_read() -> None:
    async with served() as running, await Client.to(running) as http:
        client = SocketClient(http)
        await http.send(handshake() + b"\x89\x82\0\0\0\0hi")
        assert (await http.head()).status == 101
        await client.send(CloseConnection(1000))
        await client.closed()
        assert client.pongs == [b"hi"]


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(["set", "delete", "insert", "repeat"]), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)
N_MUTATED = 1000


def mutated(data: bytes, mutations: list[tuple[int, str, int]]) -> bytes:
    changed = bytearray(data)
    for place, kind, value in mutations:
        place %= len(changed) or 1
        match kind:
            case "set":
                changed[place : place + 1] = bytes([value])
            case "delete":
                del changed[place : place + 1 + value % 16]
            case "insert":
                changed[place:place] = bytes([value]) * (1 + value % 9)
            case "repeat":
                changed[place:place] = changed[place : place + value]
    return bytes(changed)


@pytest.mark.slow
async def test_mutated_handshakes_end_nothing() -> None:
    """Each gets a well-formed answer, or none because it is incomplete; the server goes on and keeps no connection."""
    drawn: list[bytes] = []

    @settings(max_examples=N_MUTATED, database=None, deadline=None)
    @given(MUTATIONS)
    def draw(mutations: list[tuple[int, str, int]]) -> None:
        drawn.append(mutated(request(lines({})), mutations))

    draw()
    assert len(drawn) >= N_MUTATED
    statuses: dict[int, int] = {}
    async with served() as running:
        for data in drawn:
            status = await _status(running, data)
            statuses[status] = statuses.get(status, 0) + 1
        with trio.fail_after(PATIENCE):
            await running.app.wait_idle()
        assert (await exchange(running, "GET", "/health")).status == 200
    assert statuses.keys() <= {0, 101, 200, 400, 403, 404, 405, 408, 413, 415, 417, 421, 426, 431, 501, 505}
    assert min(statuses.get(101, 0), statuses.get(400, 0), statuses.get(426, 0)) > 10


async def _status(running: Running, data: bytes) -> int:
    """The status of the answer; 0 if the server waits for more, or closes."""
    async with await Client.to(running) as client:
        try:
            await client.send(data)
            await client.half_close()
            return (await client.head()).status
        except (AssertionError, trio.BrokenResourceError):
            return 0
