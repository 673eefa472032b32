"""Identifiers of the caller: `traceparent` and `X-Client-Request-Id`."""

import logging

import pytest

from server.access.tracing import MAX_FRONTS, client_request_id, fronts, trace_id
from server.protocol.errors import InvalidRequest
from tests.support.helpers import encode, exchange, served

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENTS = [
    (f"00-{TRACE}-{PARENT}-01", TRACE),
    (f" 00-{TRACE}-{PARENT}-00\t", TRACE),
    (f"cc-{TRACE}-{PARENT}-01", TRACE),
    (f"cc-{TRACE}-{PARENT}-01-what-the-future-adds", TRACE),
    (f"cc-{TRACE}-{PARENT}-01.what", ""),
    (f"00-{TRACE}-{PARENT}-01-what", ""),
    (f"00-{TRACE}-{PARENT}-01-", ""),
    (f"ff-{TRACE}-{PARENT}-01", ""),
    (f"00-{TRACE.upper()}-{PARENT}-01", ""),
    (f"00-{'0' * 32}-{PARENT}-01", ""),
    (f"00-{TRACE}-{'0' * 16}-01", ""),
    (f"00-{TRACE}-{PARENT}", ""),
    (f"00-{TRACE[1:]}-{PARENT}-01", ""),
    (f"00-{TRACE}-{PARENT}-0", ""),
    (f"0-{TRACE}-{PARENT}-01", ""),
    (f"00-{TRACE}-{PARENT}-01\n", TRACE),
    ("", ""),
    (None, ""),
]


@pytest.mark.parametrize(("header", "expected"), TRACEPARENTS)
def test_trace_id_is_read_from_valid_headers_only(header: str | None, expected: str) -> None:
    assert trace_id(header) == expected


@pytest.mark.parametrize("value", ["", "a", "123e4567-e89b-12d3-a456-426614174000", "x" * 512, "~ !", None])
def test_client_request_id_of_512_ascii_characters_is_accepted(value: str | None) -> None:
    assert client_request_id(value) == (value or "")


@pytest.mark.parametrize("value", ["x" * 513, "\xe9", "a\tb", "a\nb", "\x7f"])
def test_client_request_id_of_another_form_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^`X-Client-Request-Id` must be ASCII text of 512 characters at most.$"):
        client_request_id(value)


async def test_identifiers_stand_in_the_lines_of_answers_and_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "responsed.http")
    headers = (f"traceparent: 00-{TRACE}-{PARENT}-01", "X-Client-Request-Id: my 'id'")
    async with served() as running:
        answer = await exchange(running, "POST", "/v1/responses", encode(input="Hi"), *headers)
        await exchange(running, "GET", "/v1/nothing", None, *headers)
        refused = await exchange(running, "GET", "/v1/models", None, f"X-Client-Request-Id: {'x' * 513}")
        healthy = await exchange(running, "GET", "/health", None, f"X-Client-Request-Id: {'x' * 513}")
    notes = f"; trace {TRACE}; client request \"my 'id'\""
    lines = [record.getMessage() for record in caplog.records if record.name == "responsed.http"]
    assert [line.endswith(notes) for line in lines] == [True, True, False]
    summary = next(record.summary for record in caplog.records if hasattr(record, "summary"))
    assert (summary.origin.trace_id, summary.origin.client_request_id) == (TRACE, "my 'id'")
    assert (answer.status, refused.status, healthy.status) == (200, 400, 200)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        (f"{'a' * 16}, {'1' * 16}", ("a" * 16, "1" * 16)),
        ("", ()),
        (f"nonsense,{'b' * 16}", ("b" * 16,)),
        (", ".join(["c" * 16] * 99), ("c" * 16,) * MAX_FRONTS),
    ],
)
def test_fronts_are_the_names_in_their_header(value: str | None, names: tuple[str, ...]) -> None:
    assert fronts(value) == names
