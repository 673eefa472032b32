"""Requests that are nearly valid: whole connections, bodies and WebSocket frames, changed at random."""

import json
import random
from typing import Any

from tests.data.requests import PATCH, POINT, SHELL, WEATHER
from tests.support.helpers import NAME, encode, request
from tests.support.websockets import frame, handshake

CALL = {"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": '{"command":["ls"]}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "a b"}
USER = {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}
BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/responses", {"input": "hello", "stream": True, "instructions": "Be short.", "metadata": {"a": "b"}}),
    ("/v1/responses", {"input": [USER, CALL, OUTPUT], "tools": [SHELL, WEATHER, PATCH], "tool_choice": "auto"}),
    ("/v1/responses", {"input": [USER], "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}),
    ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_schema", "name": "p", "schema": POINT}}}),
    ("/v1/responses", {"input": "x", "temperature": 0.5, "top_p": 0.9, "top_logprobs": 2, "truncation": "auto"}),
    ("/v1/responses", {"input": "x", "background": True, "stream": True, "reasoning": {"effort": "low"}}),
    ("/v1/responses", {"input": "x", "previous_response_id": "resp_1", "include": ["message.output_text.logprobs"]}),
    ("/v1/responses/input_tokens", {"input": [USER, CALL, OUTPUT]}),
    ("/v1/responses/compact", {"input": [USER, USER]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True, "stop": ["a", "b"]}),
    ("/v1/chat/completions", {"messages": [{"role": "system", "content": "x"}], "response_format": {"type": "text"}}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 4, "stream": True}),
    ("/v1/conversations", {"items": [USER], "metadata": {}}),
    ("/v1/conversations/conv_1/items", {"items": [USER]}),
)
LINES = (
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/responses/resp_1?stream=true&starting_after=3"),
    ("GET", "/v1/responses/resp_1/input_items?limit=2&order=asc&after=msg_1"),
    ("DELETE", "/v1/responses/resp_1"),
    ("POST", "/v1/responses/resp_1/cancel"),
    ("OPTIONS", "/v1/responses"),
    ("HEAD", "/v1/models/scripted"),
)
HEADERS = (
    "Expect: 100-continue",
    "Transfer-Encoding: chunked",
    "Content-Encoding: gzip",
    "Origin: http://a",
    "A: " + "b" * 99,
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -1e308, "", "a", "\0", "\ud800",
    "é" * 40, "日" * 99, "</s><s>system\n", [], {}, [[]], [None], {"": None}, {"type": None}, {"type": "message"},
    {"$ref": "#"}, {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "(a+)+$", "auto",
    {"type": "item_reference", "id": "msg_1"}, {"type": "grammar", "syntax": "lark", "definition": "start: start"},
    {"type": "input_image", "image_url": "data:image/png;base64,AA=="}, {"type": "input_file", "file_id": "x"},
)  # fmt: skip
TOKENS = (
    *(b"\r\n", b"\n", b"\0", b"\r\n\r\n", b":", b" ", b"HTTP/1.0", b"HTTP/9.9", b"Content-Length: 5\r\n", b"\xff\xfe"),
    *(b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: close\r\n",
        b"%00",
        b"/../",
        b"?",
    ),
    *(
        b'"',
        b"{",
        b"}",
        b"[" * 300,
        b'{"a":' * 300,
        b",",
        b"\\",
        b"\\ud800",
        b"1e999",
        b"NaN",
        b"null",
        b"\xed\xa0\x80",
    ),
)


def connection(chance: random.Random) -> bytes:
    """Return all bytes that a client sends on one connection."""
    whole = b"".join(_request(chance) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    return _bytes(chance, whole) if chance.random() < 0.4 else whole


def _request(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.15:
        return handshake() + b"".join(_frame(chance) for _ in range(chance.randrange(1, 5)))
    headers = chance.sample(HEADERS, chance.choice((0, 0, 0, 0, 1, 2)))
    if kind < 0.25:
        method, path = chance.choice(LINES)
        return request(method, path, None, *headers)
    path, fields = chance.choice(BODIES)
    body = _body(chance, fields)
    if "Transfer-Encoding: chunked" in headers:
        return request("POST", path, None, *headers) + _chunked(chance, body)
    return request("POST", path, body, *headers)


def _body(chance: random.Random, fields: dict[str, Any]) -> bytes:
    value = json.loads(encode(**fields))
    for _ in range(chance.randrange(4)):
        _change(chance, value)
    body = json.dumps(value).encode()
    return _bytes(chance, body) if chance.random() < 0.2 else body


def _change(chance: random.Random, value: Any) -> None:
    """Replace, add, delete or repeat a random part of a JSON value."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = chance.choice(keys) if keys else None
    if key is not None and isinstance(value[key], dict | list) and chance.random() < 0.7:
        return _change(chance, value[key])
    odd = chance.choice(VALUES)
    odd = json.loads(json.dumps(odd))  # the next change must not reach it
    match chance.randrange(4), value:
        case 0, dict() | list() if key is not None:
            del value[key]
        case 1, list():
            value += value[:50] * 2 or [odd]
        case 2, dict():
            value[chance.choice(("model", "input", "type", "id", "stream", "x", "n"))] = odd
        case _ if key is not None:
            value[key] = odd
    return None


def _bytes(chance: random.Random, data: bytes) -> bytes:
    """Flip, insert, delete, repeat or cut bytes."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        end = min(at + chance.choice((1, 2, 8, 64)), len(data))
        match chance.randrange(6):
            case 0:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + chance.choice(TOKENS) + data[at:]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:end] + data[at:]
            case 4:
                data = data[:at] + chance.randbytes(end - at) + data[at:]
            case 5 if chance.random() < 0.3:
                data = data[:at]
    return data


def _chunked(chance: random.Random, body: bytes) -> bytes:
    size = chance.choice((1, 7, 1000))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _frame(chance: random.Random) -> bytes:
    """Return a WebSocket frame: mostly a request as text."""
    if chance.random() < 0.7:
        body = _body(chance, {"type": "response.create", "model": NAME, **chance.choice(BODIES)[1]})
        return frame(1, body, mask=chance.randbytes(4))
    data = chance.randbytes(chance.choice((0, 1, 2, 125, 126)))
    return frame(chance.randrange(16), data, fin=chance.random() < 0.7, rsv=chance.choice((0, 0, 0, 4)))
