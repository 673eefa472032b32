"""API keys: the file, the header, and requests with and without a key."""

import os
from pathlib import Path

import openai
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from server.access.api_keys import ANYBODY, ApiKey, ApiKeys, Caller
from server.config.api_keys import credential, read_api_keys
from server.config.file import ConfigError
from server.protocol.errors import Unauthorized
from tests.support.helpers import NAME, Client, api_keys, encode, exchange, official_client, served

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
KEYS = {"ann": ANN, "bob": BOB}

HEADERS = [
    (f"Bearer {ANN}", "ann"),
    (f"bearer {BOB}", "bob"),
    (f"BEARER   {ANN} ", "ann"),
    (None, None),
    ("", None),
    ("Bearer", None),
    ("Bearer ", None),
    (ANN, None),
    (f"Basic {ANN}", None),
    (f"Bearer {ANN[:-1]}", None),
    (f"Bearer {ANN}x", None),
    (f"Bearer {ANN} {BOB}", None),
    (f"Bearer ann:{ANN}", None),
    ("Bearer \xe9", None),
]


def owner(header: str | None) -> str | None:
    try:
        return api_keys(KEYS).caller(header).name
    except Unauthorized:
        return None


@pytest.mark.parametrize(("header", "expected"), HEADERS)
def test_owner_is_found_for_a_bearer_key_only(header: str | None, expected: str | None) -> None:
    assert owner(header) == expected


@given(st.text())
def test_owner_of_any_other_text_is_refused(key: str) -> None:
    assert owner(f"Bearer {key}") == {ANN: "ann", BOB: "bob"}.get(key.strip())


FILES = [
    (f"ann:{ANN}\nbob:{BOB}\n", KEYS),
    (f"# keys\n\n  ann:{ANN}  \r\n", {"ann": ANN}),
    ("a:b:c:d:0123456789abcdef", {"a": "b:c:d:0123456789abcdef"}),
    ("", "contains no key: add a line `name:key`"),
    ("# none\n", "contains no key: add a line `name:key`"),
    (ANN, "line 1: it is not `name:key`"),
    (f"ann:{ANN}\n:{BOB}", "line 2: it is not `name:key`"),
    (f"ann: {ANN}", "line 1: it is not `name:key`"),
    (f"a b:{ANN}", "line 1: it is not `name:key`"),
    ("ann:short", "line 1: the key has fewer than 16 characters"),
    (f"ann:{ANN}\nann:{BOB}", "line 2: there are two keys of the name ann"),
    (f"ann:{ANN} lane=slow", "line 1: write options as `lane=batch` (or `interactive`) and `queue=4`"),
    (f"ann:{ANN} queue=-1", "line 1: write options as `lane=batch` (or `interactive`) and `queue=4`"),
    (f"ann:{ANN} {BOB}", "line 1: write options as `lane=batch` (or `interactive`) and `queue=4`"),
    (f"ann:{ANN}\xe9", "is not a file of keys: it contains characters other than ASCII"),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_file_of_keys_is_read_or_refused_by_its_line(text: str, expected: dict[str, str] | str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(0o600)
    if isinstance(expected, dict):
        assert read_api_keys(path) == {name: ApiKey(key) for name, key in expected.items()}
    else:
        with pytest.raises(ConfigError) as error:
            read_api_keys(path)
        assert str(error.value).endswith(expected)
        assert ANN not in str(error.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ApiKey(ANN)),
        (" lane=interactive", ApiKey(ANN)),
        (" lane=batch", ApiKey(ANN, is_batch=True)),
        ("  queue=0 ", ApiKey(ANN, queue=0)),
        ("\tqueue=12 lane=batch", ApiKey(ANN, is_batch=True, queue=12)),
    ],
)
def test_options_of_a_key_follow_it(options: str, expected: ApiKey, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"ann:{ANN}{options}\n")
    path.chmod(0o600)
    assert read_api_keys(path) == {"ann": expected}


@pytest.mark.parametrize(
    ("keys", "queue", "places"),
    [
        ({"ann": ApiKey(ANN)}, 16, 16),
        ({"ann": ApiKey(ANN), "bob": ApiKey(BOB)}, 16, 8),
        ({"ann": ApiKey(ANN), "bob": ApiKey(BOB)}, 1, 1),
        ({"ann": ApiKey(ANN), "bob": ApiKey(BOB)}, 0, 0),
        ({"ann": ApiKey(ANN, queue=3), "bob": ApiKey(BOB)}, 16, 3),
        ({"ann": ApiKey(ANN, queue=0)}, 16, 0),
        ({"ann": ApiKey(ANN, queue=12), "bob": ApiKey(BOB)}, 4, 4),
    ],
)
def test_key_has_a_share_of_the_queue(keys: dict[str, ApiKey], queue: int, places: int) -> None:
    assert ApiKeys(keys).caller(f"Bearer {ANN}").places(queue) == places
    assert ANYBODY.places(queue) == queue == Caller().places(queue)


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_file_of_keys_that_others_can_read_is_refused(mode: int, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"ann:{ANN}")
    path.chmod(mode)
    if refused:
        with pytest.raises(ConfigError, match=rf"can be read by other users: run `chmod 600 {path}`"):
            read_api_keys(path)
    assert read_api_keys(path, shared=True) == {"ann": ApiKey(ANN)}


def test_credential_of_systemd_is_found_if_it_exists(tmp_path: Path) -> None:
    assert credential({}) is None
    assert credential({"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None
    (tmp_path / "api-key").touch()
    assert credential({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == tmp_path / "api-key"
    assert credential({"CREDENTIALS_DIRECTORY": os.devnull}) is None


AUTHORIZED = f"Authorization: Bearer {ANN}"
REQUESTS = [
    ("GET", "/health", [], 200),
    ("HEAD", "/health", [], 200),
    ("GET", "/ready", [], 200),
    ("GET", "/version", [], 401),
    ("GET", "/metrics", [], 401),
    ("GET", "/v1/models", [], 401),
    ("GET", "/v1/models", [AUTHORIZED], 200),
    ("GET", "/v1/nothing", [], 401),
    ("GET", "/health/", [], 401),
    ("GET", "/", [], 200),
    ("HEAD", "/", [], 200),
    ("GET", "//", [], 401),
    ("GET", "/?a=b", [], 200),
    ("GET", "/status", [], 401),
    ("POST", "/v1/responses", [], 401),
    ("POST", "/v1/responses", ["Authorization: Bearer no-such-key-0123456"], 401),
    ("POST", "/v1/responses", [AUTHORIZED], 400),
    ("POST", "/v1/chat/completions", [], 401),
    ("POST", "/v1/completions", [], 401),
    ("POST", "/v1/conversations", [], 401),
    ("DELETE", "/v1/responses/resp_1", [], 401),
    ("OPTIONS", "/v1/responses", [], 204),
    ("OPTIONS", "/v1/responses", ["Origin: https://evil.example"], 403),
    ("GET", "/v1/models", [AUTHORIZED, "Origin: https://evil.example"], 403),
]


@pytest.mark.slow
async def test_request_without_a_key_is_refused_on_every_path_with_data() -> None:
    async with served(keys=KEYS) as running:
        found = [
            (method, path, headers, (await exchange(running, method, path, None, *headers)).status)
            for method, path, headers, _ in REQUESTS
        ]
        assert found == REQUESTS


async def test_refusal_names_the_scheme_and_has_the_headers_of_its_origin() -> None:
    async with served(keys=KEYS, allow_origins=("https://app.example",)) as running:
        answer = await exchange(running, "GET", "/v1/models", None, "Origin: https://app.example")
        preflight = await exchange(
            running, "OPTIONS", "/v1/models", None, "Origin: https://app.example",
            "Access-Control-Request-Headers: authorization",
        )  # fmt: skip
    names = ("www-authenticate", "access-control-allow-origin", "access-control-expose-headers")
    assert [answer.headers[name] for name in names] == [
        'Bearer realm="responsed"',
        "https://app.example",
        "retry-after, x-request-id",
    ]
    assert answer.json["error"] == {
        "message": "This server needs an API key: send it as `Authorization: Bearer KEY`.",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert preflight.headers["access-control-allow-headers"] == "authorization"


async def test_refusal_comes_before_the_body() -> None:
    async with served(keys=KEYS) as running, await Client.to(running) as client:
        await client.send(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 30000000\r\n\r\n"
        )
        assert (await client.head()).status == 401


@pytest.mark.slow
async def test_official_client_raises_authentication_error_without_the_key() -> None:
    async with served(keys=KEYS) as running:

        def call(key: str) -> str:
            with official_client(f"http://127.0.0.1:{running.port}/v1", api_key=key) as client:
                return client.responses.create(model=NAME, input="Hi").status or ""

        assert await trio.to_thread.run_sync(call, BOB) == "completed"
        with pytest.raises(openai.AuthenticationError):
            await trio.to_thread.run_sync(call, "none")


async def test_replaced_keys_hold_from_the_next_request_on() -> None:
    async with served(keys={"ann": ANN}) as running:
        running.app.keys = api_keys({"bob": BOB})
        headers = [f"Authorization: Bearer {key}" for key in (ANN, BOB)]
        answers = [await exchange(running, "POST", "/v1/responses", encode(input="Hi"), header) for header in headers]
    assert [answer.status for answer in answers] == [401, 200]
