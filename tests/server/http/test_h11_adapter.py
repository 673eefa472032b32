"""The adapter of h11: patterns that take linear time, and heads of which h11 checks some fields only."""

import re
from typing import Any

import h11
import h11._abnf
import h11._readers
import h11._version
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.http import h11_adapter

FIELDS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-request-id", b"req_1"), (b"vary", b"Origin")]
LENGTH = (b"content-length", b"5")
CLOSE = (b"connection", b"close")


def verdict(pattern: "re.Pattern[bytes]", data: bytes) -> list[Any] | None:
    match = pattern.fullmatch(data)
    return match and [match.start("field_value"), *match.groups()[:2]]


@settings(max_examples=1000)
@given(st.lists(st.sampled_from([b"a", b" ", b"\t", b":", b"\0", b"\xff", b"\n", b"\r", b"\x01"]), max_size=12))
@pytest.mark.slow
def test_header_pattern_matches_as_h11_does(parts: list[bytes]) -> None:
    h11_adapter.patch()
    data = b"a:" + b"".join(parts)
    theirs = re.compile(h11._abnf.header_field.encode())
    assert verdict(h11._readers.header_field_re, data) == verdict(theirs, data)


@settings(max_examples=1000)
@given(st.lists(st.sampled_from([b"a", b"1", b" ", b"\t", b";", b"=", b"\0", b"\xff", b"\n"]), max_size=12))
@pytest.mark.slow
def test_chunk_pattern_matches_as_h11_does(parts: list[bytes]) -> None:
    h11_adapter.patch()
    data = b"".join(parts) + b"\r\n"
    match = h11._readers.chunk_header_re.fullmatch(data)
    theirs = re.fullmatch(h11._abnf.chunk_header.encode(), data)
    assert (match and match["chunk_size"]) == (theirs and theirs["chunk_size"])


def test_h11_patterns_leave_another_release_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    patched = h11._readers.header_field_re
    monkeypatch.setattr(h11._version, "__version__", "0.17.0")
    h11_adapter.patch.__wrapped__()
    assert h11._readers.header_field_re is patched
    assert caplog.messages == ["h11 0.17.0 is not patched against slow header lines; install h11 0.16.*"]


def server_wire(version: bytes = b"1.1") -> h11.Connection:
    """Return a connection that has received a request."""
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(b"\r\n".join([b"GET / HTTP/" + version, b"host: a", b"", b""]))
    assert isinstance(wire.next_event(), h11.Request)
    assert isinstance(wire.next_event(), h11.EndOfMessage)
    return wire


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("framing", [[], [LENGTH], [CLOSE], [LENGTH, CLOSE]], ids=str)
def test_response_head_has_the_fields_and_the_state_of_h11(version: bytes, framing: list[tuple[bytes, bytes]]) -> None:
    ours, theirs = server_wire(version), server_wire(version)
    found = h11_adapter.response_head(ours, 200, [*FIELDS, *framing])
    (date,) = re.findall(rb"\r\ndate: (\w\w\w, \d\d \w\w\w \d{4} \d\d:\d\d:\d\d GMT)\r\n", found)
    expected = theirs.send(h11.Response(status_code=200, headers=[*FIELDS, *framing, (b"date", date)]))
    assert expected is not None
    assert sorted(found.split(b"\r\n")) == sorted(expected.split(b"\r\n"))
    assert found.endswith(b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 \r\n")
    assert (ours.our_state, ours.their_state) == (theirs.our_state, theirs.their_state)


def test_request_head_is_that_of_h11() -> None:
    fields = [(b"host", b"a:1"), (b"user-agent", b"responsed"), LENGTH]
    expected = h11.Connection(h11.CLIENT).send(
        h11.Request(method="POST", target="/v1/chat/completions?a=b", headers=fields)
    )
    assert h11_adapter.request_head("POST", "/v1/chat/completions?a=b", fields) == expected


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\nhost: b", "/\n", "/a\0"])
def test_request_head_with_a_wrong_target_is_refused(target: str) -> None:
    with pytest.raises(h11.LocalProtocolError):
        h11.Request(method="GET", target=target, headers=[(b"host", b"a")])
    with pytest.raises(h11.LocalProtocolError):
        h11_adapter.request_head("GET", target, [(b"host", b"a")])


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    "old": b"HTTP/1.0 200 OK\r\n\r\nok",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
}


def read_events(wire: h11.Connection, data: bytes) -> list[str]:
    """Return the events of an answer after which the server closes, and the states of `wire`."""
    wire.receive_data(data)
    events: list[Any] = []
    while not events or isinstance(events[-1], h11.Response | h11.InformationalResponse | h11.Data):
        if (event := wire.next_event()) is h11.NEED_DATA:
            wire.receive_data(b"")
        else:
            events.append(event)
    return [*map(repr, events), str(wire.our_state), str(wire.their_state)]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_answer_to_a_request_that_h11_has_not_sent_is_read_as_if_it_had(method: str, answer: str) -> None:
    ours, theirs = h11.Connection(h11.CLIENT), h11.Connection(h11.CLIENT)
    h11_adapter.expect_answer(ours, method)
    theirs.send(h11.Request(method=method, target="/v1", headers=[(b"host", b"a"), (b"content-length", b"4")]))
    theirs.send(h11.Data(b"body"))
    theirs.send(h11.EndOfMessage())
    assert read_events(ours, ANSWERS[answer]) == read_events(theirs, ANSWERS[answer])


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b", b"a\r\n\r\nbody"])
@pytest.mark.parametrize("name", [b"access-control-allow-origin", b"content-length"])
def test_head_with_a_line_break_in_a_field_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(h11.LocalProtocolError):
        h11_adapter.response_head(server_wire(), 200, [(name, value)])
    with pytest.raises(h11.LocalProtocolError):
        h11_adapter.request_head("GET", "/", [(b"host", b"a"), (name, value)])
