"""Clients behind proxies: X-Forwarded-For and X-Forwarded-Proto count from trusted peers only."""

import logging
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from server.access.proxies import ForwardedClient, TrustedProxies
from tests.support.helpers import Client, encode, exchange, served

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")
CLIENTS: list[tuple[str, list[bytes], str, str]] = [
    ("127.0.0.1", [], "127.0.0.1", ""),
    ("127.0.0.1", [b"192.0.2.1"], "192.0.2.1", ""),
    ("127.0.0.1", [b"203.0.113.9, 192.0.2.1"], "192.0.2.1", ""),
    ("127.0.0.1", [b"203.0.113.9, 192.0.2.1, 10.1.2.3"], "192.0.2.1", ""),
    ("127.0.0.1", [b"203.0.113.9", b"192.0.2.1 ,10.1.2.3"], "192.0.2.1", ""),
    ("127.0.0.1", [b"10.9.9.9, 10.1.2.3"], "10.9.9.9", ""),
    ("127.0.0.1", [b"192.0.2.1:4711"], "192.0.2.1", ""),
    ("127.0.0.1", [b"[2001:db9::1]:4711, [2001:db8::7]"], "2001:db9::1", ""),
    ("::ffff:10.1.2.3", [b"::ffff:192.0.2.1"], "192.0.2.1", ""),
    ("127.0.0.1", [b"192.0.2.1,,"], "192.0.2.1", ""),
    ("127.0.0.1", [b""], "127.0.0.1", ""),
    ("127.0.0.1", [b"192.0.2.1, unknown"], "127.0.0.1", "unknown"),
    ("127.0.0.1", [b"192.0.2.1, \xff, 10.1.2.3"], "10.1.2.3", "\xff"),
    ("127.0.0.1", [b"unix"], "127.0.0.1", "unix"),
    ("127.0.0.1", [b"10.0.0.1," * 10_000], "10.0.0.1", ""),
    ("127.0.0.1", [b"nonsense, 192.0.2.1"], "192.0.2.1", ""),
    ("192.0.2.7", [b"203.0.113.9"], "192.0.2.7", ""),
    ("127.0.0.2", [b"203.0.113.9"], "127.0.0.2", ""),
    ("unix", [b"203.0.113.9"], "unix", ""),
]


@pytest.mark.parametrize(("peer", "values", "client", "garbage"), CLIENTS)
def test_client_is_the_right_most_hop_that_is_not_trusted(
    peer: str, values: list[bytes], client: str, garbage: str
) -> None:
    assert TrustedProxies(TRUSTED).client(peer, values) == ForwardedClient(client, garbage)


@given(st.binary())
def test_client_cannot_be_changed_by_what_the_client_sends(sent: bytes) -> None:
    values = [sent, b"192.0.2.1, 10.1.2.3"]
    assert TrustedProxies(TRUSTED).client("127.0.0.1", values) == ForwardedClient("192.0.2.1")


SCHEMES = [
    ("127.0.0.1", [b"https"], "https"),
    ("127.0.0.1", [b"http, HTTPS"], "https"),
    ("127.0.0.1", [b"https, http"], "http"),
    ("127.0.0.1", [b"gopher"], "http"),
    ("127.0.0.1", [], "http"),
    ("192.0.2.7", [b"https"], "http"),
]


@pytest.mark.parametrize(("peer", "values", "scheme"), SCHEMES)
def test_scheme_is_the_one_that_a_trusted_peer_names(peer: str, values: list[bytes], scheme: str) -> None:
    assert TrustedProxies(TRUSTED).scheme(peer, values, "http") == scheme


@pytest.mark.parametrize("name", ["10.0.0.1/8", "::1", "unix", "UNIX", " 10.0.0.1"])
def test_name_of_a_proxy_is_an_address_a_network_or_unix(name: str) -> None:
    assert TrustedProxies([name])


@pytest.mark.parametrize(
    ("trusted", "peer", "client"),
    [
        ((), "tcp", "127.0.0.1"),
        (("127.0.0.1",), "tcp", "192.0.2.1"),
        ((), "unix", "unix"),
        (("unix",), "unix", "192.0.2.1"),
    ],
)
async def test_log_names_the_client_that_a_trusted_proxy_names(
    trusted: tuple[str, ...], peer: str, client: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    host = f"unix:{tmp_path}/socket" if peer == "unix" else "127.0.0.1"
    async with served(hosts=(host,), trust_proxies=trusted) as running:
        stream = (
            await trio.open_unix_socket(tmp_path / "socket")
            if peer == "unix"
            else await trio.open_tcp_stream("127.0.0.1", running.port)
        )
        async with Client(stream) as proxy:
            await proxy.request("POST", "/v1/responses", encode(input="Hi"), "X-Forwarded-For: 192.0.2.1")
            await proxy.answer()
    (summary,) = [record.summary for record in caplog.records if hasattr(record, "summary")]
    assert summary.origin.client == client


async def test_garbage_of_a_trusted_proxy_is_ignored_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async with served(trust_proxies=("127.0.0.1",)) as running:
        answer = await exchange(running, "GET", "/v1/models", None, "X-Forwarded-For: 192.0.2.1, x\ty")
    assert answer.status == 200
    lines = [record.getMessage() for record in caplog.records if record.name == "responsed.http.proxies"]
    assert lines == ["X-Forwarded-For from 127.0.0.1 is ignored at 'x\\ty': this is not an address"]


async def test_ipv4_client_of_an_ipv6_address_has_its_own_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    async with served(hosts=("::ffff:127.0.0.1",)) as running:
        await exchange(running, "POST", "/v1/responses", encode(input="Hi"))
    (summary,) = [record.summary for record in caplog.records if hasattr(record, "summary")]
    assert summary.origin.client == "127.0.0.1"
