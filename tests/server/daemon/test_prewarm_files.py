"""`--prewarm` evaluates prompts before the server is ready; `--volatile` leaves their prefix unchanged."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from engine.backends.scripted import ScriptedModel
from server.config.file import ConfigError
from server.config.prewarm_files import read_prewarm_files
from tests.support.helpers import encode, exchange, post, served

RULES = "Answer briefly. " * 9
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


def cached(response: dict[str, Any]) -> int:
    return int(response["usage"]["input_tokens_details"]["cached_tokens"])


@pytest.mark.slow
async def test_prewarmed_files_are_cached_before_the_first_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "responsed")
    text, body, long, bad = (tmp_path / name for name in ("rules.txt", "agent.json", "long.txt", "bad.json"))
    text.write_text(RULES)
    body.write_text(json.dumps({"instructions": "Add numbers.", "tools": [ADD]}))
    long.write_text("x" * 5000)
    bad.write_text("{")
    async with served(ScriptedModel(batched=True), prewarm=(long, bad, text, body)) as running:
        plain = (await post(running, input="Hello", instructions=RULES)).json
        tools = (await post(running, input="Hello", instructions="Add numbers.", tools=[ADD])).json
    assert cached(plain) == len("S") + len(RULES) + len("U")  # control tokens are one token each
    assert cached(tools) == tools["usage"]["input_tokens"] - len("Hello") - 1
    logged = [record.getMessage() for record in caplog.records if "prewarmed" in record.getMessage()]
    assert [line.rpartition(", ")[0] or line for line in logged[2:]] == [
        f"prewarmed {text}: {cached(plain)} tokens, 0 of them cached",
        f"prewarmed {body}: {cached(tools)} tokens, 0 of them cached",
    ]
    assert logged[0].startswith(f"{long} is not prewarmed: The input has ")
    assert logged[1].startswith(f"{bad} is not prewarmed: The body is not valid JSON")


def test_read_files_of_missing_or_binary_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--prewarm: .*/none cannot be read: No such file or directory$"):
        read_prewarm_files([tmp_path / "none"])
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"^--prewarm: .*/binary is not encoded in UTF-8$"):
        read_prewarm_files([tmp_path / "binary"])


def clock(time: str) -> str:
    return f"You are a voice assistant.\nCurrent time is {time}.\n{RULES}"


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
async def test_volatile_clock_leaves_the_prefix_in_the_cache(chat: bool) -> None:
    """Without the setting, nothing behind the clock is found."""

    async def ask(time: str) -> int:
        if not chat:
            return cached((await post(running, input="Hello", instructions=clock(time))).json)
        messages = [{"role": "system", "content": clock(time)}, {"role": "user", "content": "Hello"}]
        answer = await exchange(running, "POST", "/v1/chat/completions", encode(messages=messages))
        return int(answer.json["usage"]["prompt_tokens_details"]["cached_tokens"])

    found = {}
    for setting in ((), ("clock",)):
        async with served(ScriptedModel(), volatile=setting) as running:
            await ask("12:31")
            found[setting] = await ask("12:32")
    assert found[()] == 1 + len("You are a voice assistant.\nCurrent time is 12:3")
    assert found["clock",] == 1 + len(f"You are a voice assistant.\n{RULES}") + 1 + len("Current time is 12:3")


@pytest.mark.slow
async def test_volatile_line_is_no_difference_of_the_instructions() -> None:
    """The ticking clock itself is in the user's message."""
    async with served(volatile=("clock",)) as running:
        first = (await post(running, input="Hello", instructions=clock("12:31"))).json
        asked = {"prompt_cache_options": {"comparison_response_id": first["id"]}}
        again = (await post(running, input="Hello", instructions=clock("12:32"), **asked)).json
        other = (await post(running, input="Hello", instructions=clock("12:32") + "!", **asked)).json
    assert again["responsed"]["cache"]["difference"]["field"] == "input"
    assert other["responsed"]["cache"]["difference"]["field"] == "instructions"
