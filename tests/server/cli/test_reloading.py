"""SIGHUP: which settings reload, and what a reload changes for the next request."""

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from engine.backends.scripted import ScriptedModel
from server.cli.reloading import Reloading
from server.config import settings
from server.config.config import Config
from server.config.groups import SETTINGS
from server.config.live import NEEDS_RESTART
from server.listening.options import HTTPLimits, http_options
from tests.rows import thinned
from tests.support import wire
from tests.support.certificates import certificate
from tests.support.helpers import Client, PacedModel, Running, encode, exchange, get, post, served, text

RELOADED: dict[str, Any] = {
    "alias": ["gpt"],
    "allow_host": ["box.lan"],
    "allow_origin": ["https://app.example"],
    "allow_mcp": ["https://tools.example/mcp"],
    "mcp_timeout": 5.0,
    "mcp_connector": ["mail=https://mail.example/mcp"],
    "trust_proxy": ["10.0.0.0/8"],
    "api_key_file": "other-keys",
    "upstream_key_file": "other-key",
    "ssl_certfile": "other.crt",
    "ssl_keyfile": "other.key",
    "queue": 3,
    "max_step_ms": 40,
    "websocket_ping": 5.0,
    "websocket_idle_timeout": 5.0,
    "max_prompt_tokens": 100,
    "max_output_tokens": 5,
    "max_items": 2,
    "max_tools": 1,
    "max_schema_kilobytes": 1,
    "answer_timeout": 7.0,
    "max_connections": 100,
    "max_connections_per_address": 5,
    "keep_alive_timeout": 9.0,
    "write_timeout": 8.0,
    "body_timeout": 6.0,
    "max_header_kilobytes": 16,
    "max_body_megabytes": 1,
    "max_json_depth": 16,
    "store_responses": 5,
    "store_megabytes": 1,
    "store_days": 2,
    "snapshot_unstored": True,
    "strict_fields": True,
    "token_times": True,
    "resume_window": 4.0,
    "heartbeat": 3.0,
    "shutdown_timeout": 2.0,
    "log_level": "warning",
    "log_content": True,
}
"""Key of each setting that reloads -> another value."""
UNCHANGED: dict[str, Any] = {
    "model": "other.gguf",
    "context": 1024,
    "engine": "ctransformers",
    "libllama": "libllama.so",
    "chat_template": "chatml",
    "threads": 3,
    "threads_batch": 3,
    "flash_attention": "off",
    "kv_type": "q8_0",
    "host": ["127.0.0.2"],
    "port": 9999,
    "insecure": True,
    "slots": 7,
    "cache_megabytes": 100,
    "state_dir": "state",
    "store": "other.db",
    "advertise": "http://127.0.0.1:9",
    "kv_snapshot_megabytes": 1,
    "prewarm": ["prompt.txt"],
    "volatile": ["^Room:"],
    "reasoning_events": "open-responses",
    "upstream": ["http://127.0.0.1:9"],
    "upstream_api": "completions",
    "tokenizer": "tokenizer.json",
    "upstream_model": "other",
    "upstream_slots": 7,
    "upstream_connect_timeout": 7,
    "upstream_first_byte_timeout": 7,
    "upstream_idle_timeout": 7,
    "metrics": True,
    "log_format": "json",
}
"""Key of each setting that needs a restart -> another value."""


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Restore the level of the log, which a reload sets."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


OTHER_FILES = {"api_key_file", "ssl_certfile", "ssl_keyfile", "upstream_key_file"}
"""Settings that `tests/system/test_start.py` and `test_upstream_key.py` reload, with their files."""
UPSTREAM = {key for key in UNCHANGED if key.startswith("upstream_")} | {"tokenizer"}
"""Settings that have a meaning with `upstream` only, which is refused otherwise."""


def test_every_setting_reloads_or_has_a_reason_for_a_restart() -> None:
    assert {*RELOADED, *UNCHANGED} == {setting.key for setting in SETTINGS}
    assert UNCHANGED.keys() == NEEDS_RESTART.keys()


class Reloadable:
    """Config file of a running daemon."""

    def __init__(self, running: Running, folder: Path) -> None:
        self._running = running
        self._file = folder / "config.toml"
        self._write({})
        self._reloading = Reloading(self._flags, self._resolve(), http_options(Config()))

    @property
    def _flags(self) -> argparse.Namespace:
        return argparse.Namespace(config=str(self._file))

    def _resolve(self) -> Sequence[settings.EffectiveValue]:
        return settings.resolve(self._flags, {})

    def _write(self, values: dict[str, Any]) -> None:
        self._file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))

    def reload(self, **values: Any) -> Config:
        """Reload these values, and return what the file says."""
        self._write(values)
        self._reloading.reload(self._running.app)
        return settings.config(self._resolve())


@pytest.mark.parametrize(
    "key", thinned({key: key for key in sorted({*RELOADED, *UNCHANGED} - {*OTHER_FILES, *UPSTREAM})})
)
async def test_reload_changes_the_setting_or_names_it_in_the_log(
    key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(state=tmp_path) as running:
        found = Reloadable(running, tmp_path)
        before = found.reload()
        caplog.clear()
        with caplog.at_level("INFO", "responsed"):
            written = found.reload(**{key: (RELOADED | UNCHANGED)[key]})
        now = running.app.config
    (field,) = [setting.field for setting in SETTINGS if setting.key == key]
    lines = [record.getMessage() for record in caplog.records if record.name == "responsed"]
    assert getattr(written, field) != getattr(before, field)
    reloads = key in RELOADED
    asked = {name: value for name, value in asdict(now).items() if value != asdict(running.config)[name]}
    assert {name: asked[name] for name in asked if name not in ("state_dir", "model")} == (
        {field: getattr(written, field)} if reloads else {}
    )
    expected = [f"reloaded the settings and API keys; changed: {key}"]
    assert lines == expected + [f"these settings need a restart: {key}"] * (not reloads)


@pytest.mark.slow
async def test_reload_reaches_the_listener_and_the_stored_responses(tmp_path: Path) -> None:
    async with served(state=tmp_path) as running:
        found = Reloadable(running, tmp_path)
        options = found._reloading._options
        names = ("max_connections", "max_connections_per_address", "keep_alive_timeout", "write_timeout")
        found.reload(**{name: RELOADED[name] for name in (*names, "max_header_kilobytes", "store_responses")})
        assert options.limits == HTTPLimits(100, 5, 9.0, 16_000, 8.0)
        for _ in range(7):
            assert (await post(running, input="Hi")).status == 200
        await running.app.wait_idle()
        store = running.app._services.store
        assert store is not None
        assert (await store.run(store.responses.usage)).entries == 5


ITEM = {"role": "user", "content": "x"}
TOOLS: list[Any] = [{"type": "function", "name": name, "parameters": {}} for name in ("f", "g")]
FORMAT = {"type": "json_schema", "name": "n", "schema": {"type": "object", "description": "x" * 1000}}
NESTED: Any = []
for _ in range(20):
    NESTED = [NESTED]

EFFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "max_prompt_tokens": ({"input": "x" * 200}, "context_length_exceeded"),
    "max_items": ({"input": [ITEM] * 3}, "invalid_request_error"),
    "max_tools": ({"input": "x", "tools": TOOLS}, "invalid_request_error"),
    "max_schema_kilobytes": (
        {"input": "x", "text": {"format": FORMAT}, "max_output_tokens": 1},
        "invalid_request_error",
    ),
    "max_body_megabytes": ({"input": "x", "unknown": "y" * 1_100_000}, "request_too_large"),
    "max_json_depth": ({"input": "x", "unknown": NESTED}, "json_too_deep"),
    "strict_fields": ({"input": "x", "unknown": 1}, "invalid_request_error"),
}
"""Setting -> body that its other value refuses, and the reason of the refusal."""


@pytest.mark.slow
@pytest.mark.parametrize("key", EFFECTS)
async def test_limit_that_is_reloaded_refuses_the_next_request(key: str, tmp_path: Path) -> None:
    body, reason = EFFECTS[key]
    async with served(metrics=True) as running:
        found = Reloadable(running, tmp_path)
        before = await post(running, **body)
        found.reload(**{key: RELOADED[key]})
        after = await post(running, **body)
        page = (await get(running, "/metrics")).body.decode()
    assert (before.status, after.status // 100) == (200, 4), after.body
    assert f'responsed_requests_refused_total{{reason="{reason}"}} 1.0' in page


@pytest.mark.slow
async def test_limits_of_an_answer_that_are_reloaded_bound_the_next_one(tmp_path: Path) -> None:
    model = ScriptedModel(lambda prompt: b"x" * 300)
    async with served(model) as running:
        found = Reloadable(running, tmp_path)
        answers = [(await post(running, input="Hi")).json]
        for values in ({"max_output_tokens": 5}, {"answer_timeout": 0.0}, {}):
            found.reload(**values)
            answers.append((await post(running, input="Hi")).json)
    reasons = [answer.get("error") or answer.get("incomplete_details") for answer in answers]
    late = "The answer took longer than 0 s (--answer-timeout)."
    assert [reason and (reason.get("reason") or reason["message"]) for reason in reasons] == [
        None,
        "max_output_tokens",
        late,
        None,
    ]


async def test_alias_and_allowed_mcp_server_that_are_reloaded_are_accepted(tmp_path: Path) -> None:
    mcp = {"type": "mcp", "server_label": "a", "server_url": "https://tools.example/other"}
    async with served() as running:
        found = Reloadable(running, tmp_path)
        refused = await exchange(running, "POST", "/v1/responses", encode(input="Hi", tools=[mcp]))
        statuses = [(await post(running, input="Hi", model="gpt")).status]
        found.reload(alias=["gpt"], allow_mcp=["https://tools.example/other"])
        statuses.append((await post(running, input="Hi", model="gpt")).status)
        access = running.app._services.mcp_access
        assert access._allows("https://tools.example/other")
    assert (refused.status, statuses) == (400, [404, 200])


async def test_wrong_file_leaves_every_setting_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as running:
        found = Reloadable(running, tmp_path)
        found.reload(max_items=2, log_level="info")
        before = running.app.config
        for values in ({"max_items": 0}, {"max_itmes": 3}, {"api_key_file": "/nowhere"}, {"upstream_slots": 3}):
            caplog.clear()
            found._write(values)
            found._reloading.reload(running.app)
            (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
            assert line.getMessage().startswith("the settings stay as they are: ")
            assert running.app.config == before


async def test_tls_is_not_turned_on_by_a_reload(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = certificate(tmp_path)
    async with served() as running:
        found = Reloadable(running, tmp_path)
        found.reload(ssl_certfile=str(tls.certfile), ssl_keyfile=str(tls.keyfile), max_items=2)
        assert running.app.config.max_items == Config().max_items
    assert "restart the server to turn TLS on or off" in caplog.text


async def test_stream_in_progress_goes_on_through_a_reload_of_tighter_limits(tmp_path: Path) -> None:
    model = PacedModel(lambda prompt: b"a long answer", n_slots=1)
    async with served(model, state=tmp_path) as running, await Client.to(running) as client:
        found = Reloadable(running, tmp_path)
        model.hold()
        await client.create(input="Hi", stream=True)
        _, begun = await client.created()
        found.reload(max_output_tokens=1, max_prompt_tokens=1, answer_timeout=0.0, store_responses=1, queue=0)
        model.go()
        events = wire.events(begun + await client.rest_of_stream())
    assert (events[-1]["type"], text(events[-1]["response"])) == ("response.completed", "a long answer")
