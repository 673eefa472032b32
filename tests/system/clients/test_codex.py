"""Codex itself, the command: a turn with a call, and a second one that sends again all that was before it.

It asks nobody but this server: that was seen with its log at `debug`.
"""

import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio

from engine.backends.scripted import Reply, ScriptedModel
from server.api.codex_catalog import INSTRUCTIONS
from server.prompt.compaction import SUMMARY_PROMPT
from tests.server.api.tools.test_tools import call
from tests.server.upstream.fronts import Served
from tests.support.helpers import NAME, PATIENCE, Running, get, prompt_text, statuses

pytestmark = pytest.mark.slow

VERSION = "0.171.0"
INSTALL = [
    "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
    "--fetch-retries=2", "--fetch-retry-mintimeout=1000", f"@openai/codex@{VERSION}",
]  # fmt: skip
INSTALL_SECONDS = 300.0
"""160 MB come, 400 MB they are: 5 seconds where the network is quick."""

CONFIG = """\
model = "{name}"
model_provider = "here"
check_for_update_on_startup = false

[model_providers.here]
name = "here"
base_url = "{url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false

[features]
plugins = false  # or it looks for them elsewhere
"""

TEMPLATE = (
    "{% if tools %}<|system|>{% for t in tools %}{{ t.function|tojson }}{% endfor %}{% endif %}{% for m in messages %}"
    "<|{{ m.role }}|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function|tojson }}</tool_call>{% endfor %}{% endfor %}"
    "<|assistant|>"
)
"""Template of a model that reasons, and writes `<tool_call>`."""
CALL = '<tool_call>{"name": "exec_command", "arguments": {"cmd": "echo word >> words.txt; cat words.txt"}}</tool_call>'


def writer(message: bytes) -> bytes:
    """It has one word more written, and says how many there are."""
    _, called, output = message.partition(b"</tool_call>")
    if called:
        words = output.decode().partition("Output:\n")[2].split()
        return f"<think>I have seen it.</think>Words: {len(words)}.".encode()
    return f"<think>I write it.</think>{CALL}".encode()


@pytest.fixture(scope="session")
def codex(cache: Path) -> Path:
    """The command, in the cache: it is installed once a machine, where npm can."""
    folder = cache / f"codex-{VERSION}"
    if not folder.exists():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed, which installs Codex")
        try:
            install(folder)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"npm could not install Codex: {error}")
    return command(folder)


def install(folder: Path) -> None:
    """Whole or not at all: npm thinks nothing of it when the part for this machine did not come."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as temporary:
        fresh = Path(temporary, "codex")
        fresh.mkdir()
        for each in ([*INSTALL, "--prefix", str(fresh)], [str(command(fresh)), "--version"]):
            subprocess.run(each, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=INSTALL_SECONDS)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # or else another process of the tests was first
                raise


def command(folder: Path) -> Path:
    return folder / "node_modules" / ".bin" / "codex"


async def run(codex: Path, home: Path, *arguments: str) -> list[dict[str, Any]]:
    """A turn, and the events that it tells. It writes where it stands, so it stands in a folder of its own."""
    work = home / "work"
    work.mkdir(exist_ok=True)
    flags = ["--json", "--strict-config", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home), "CODEX_API_KEY": "none"}
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [codex, "exec", *arguments, *flags],
            cwd=work,
            env=environment,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def gist(events: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for event in events:
        match event:
            case {"type": "item.completed", "item": {"type": "command_execution", "aggregated_output": str(output)}}:
                yield "command", output
            case {"type": "item.completed", "item": {"type": "error"}}:
                pass  # it knows nothing of a model of this name
            case {"type": "item.completed", "item": item}:
                yield item["type"], item["text"]
            case {"type": "turn.failed", "error": {"message": message}}:
                yield "turn.failed", message
            case {"type": "turn.completed"}:
                yield ("turn.completed",)


@asynccontextmanager
async def at(served: Served, home: Path, reply: Reply, name: str = NAME) -> AsyncIterator[Running]:
    """A server that Codex knows, if it is at home there, with a model of that name."""
    model = ScriptedModel(reply, n_ctx=1 << 17, n_slots=1)
    async with served(model, template=TEMPLATE, aliases=(name,)) as running:
        (home / "config.toml").write_text(CONFIG.format(name=name, url=running.url))
        yield running


async def test_codex_runs_a_call_and_continues_in_next_turn(
    served: Served, codex: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "responsed.http")
    async with at(served, tmp_path, writer) as running:
        first = await run(codex, tmp_path, "Write it.")
        second = await run(codex, tmp_path, "resume", "--last", "And again.")
        replayed = prompt_text(running.model)
    for events, words, count in ((first, "word\n", 1), (second, "word\nword\n", 2)):
        assert list(gist(events)) == [
            ("reasoning", "I write it."),
            ("command", words),
            ("reasoning", "I have seen it."),
            ("agent_message", f"Words: {count}."),
            ("turn.completed",),
        ]
    assert (tmp_path / "work" / "words.txt").read_text() == "word\nword\n"
    assert statuses(caplog.text) == [200] * 4  # each turn: the call, and the text about its output
    _, _, conversation = replayed.rpartition("Write it.")
    assert re.sub("Chunk ID.*?Output:\n", "", conversation, flags=re.DOTALL) == (
        f"<think>I write it.</think>{CALL}word\n<think>I have seen it.</think>Words: 1.And again."
        f"<think>I write it.</think>{CALL}word\nword\n<think>I have seen it.</think>Words: 2."
    )


OPENAI = """\
model = "gpt-5-codex"
openai_base_url = "{url}"
model_auto_compact_token_limit = 20000
check_for_update_on_startup = false

[analytics]
enabled = false

[features]
plugins = false
"""
"""Codex asks the server of its own provider for summaries; for others it writes them itself."""


async def test_codex_goes_on_from_a_compaction_of_the_server(
    served_alone: Served, codex: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reply(message: bytes) -> bytes:
        if message.endswith(SUMMARY_PROMPT.encode()):
            return b"The file has the word word."
        if message.endswith(b"The file has the word word."):
            return b"I have read the summary."
        return CALL.encode()

    caplog.set_level(logging.DEBUG, "responsed")
    async with at(served_alone, tmp_path, reply, "gpt-5-codex") as running:
        (tmp_path / "config.toml").write_text(OPENAI.format(url=running.url))
        events = await run(codex, tmp_path, "Write it.")
        prompt = prompt_text(running.model)
    assert list(gist(events))[-3:] == [
        ("command", "word\n"),
        ("agent_message", "I have read the summary."),
        ("turn.completed",),
    ]
    assert prompt.count("</tool_call>") == 0
    assert "Write it." in prompt


async def test_codex_reads_the_catalog_of_the_server(served_alone: Served, codex: Path, tmp_path: Path) -> None:
    """Then it knows the model, and sends the short instructions."""
    async with at(served_alone, tmp_path, lambda message: b"Hi.", "my-model") as running:
        answer = await get(running, "/v1/models?client_version=0.171.0")
        (tmp_path / "models.json").write_bytes(answer.body)
        events = await run(codex, tmp_path, "Say hi.", "-c", f'model_catalog_json="{tmp_path}/models.json"')
        prompt = prompt_text(running.model)
    assert [event["item"] for event in events if event.get("item", {}).get("type") == "error"] == []
    assert list(gist(events)) == [("agent_message", "Hi."), ("turn.completed",)]
    assert INSTRUCTIONS in prompt
    assert [model["id"] for model in answer.json["data"]] == [model["slug"] for model in answer.json["models"]]
    assert answer.json["models"][1] == {
        "slug": "my-model",
        "display_name": "my-model",
        "description": "A local model, served by responsed.",
        "base_instructions": INSTRUCTIONS,
        "context_window": 131072,
        "auto_compact_token_limit": 98304,
        "truncation_policy": {"limit": 10000, "mode": "tokens"},
        "default_reasoning_level": None,
        "supported_reasoning_levels": [
            {"effort": "low", "description": "Up to 512 tokens of reasoning"},
            {"effort": "medium", "description": "Up to 2,048 tokens of reasoning"},
            {"effort": "high", "description": "As much reasoning as the model wants"},
        ],
        "default_reasoning_summary": "none",
        "supports_reasoning_summaries": True,
        "support_verbosity": False,
        "supports_parallel_tool_calls": True,
        "input_modalities": ["text"],
        "shell_type": "default",
        "experimental_supported_tools": [],
        "visibility": "list",
        "supported_in_api": True,
        "priority": 1,
    }


ALIAS = "gpt-5.6-sol"
"""Name of a model for which Codex sends its tools as `additional_tools`."""
SCRIPT = 'const r = await tools.exec_command({cmd: "echo word >> words.txt; cat words.txt"}); text(r.output);'


async def test_codex_with_a_known_alias_runs_its_additional_tools(
    served_alone: Served, codex: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def scripter(message: bytes) -> bytes:
        _, called, output = message.partition(b"</tool_call>")
        if called:
            return b"It has " + output.split()[-1]
        return call("functions__exec", json.dumps({"input": SCRIPT})).encode()

    caplog.set_level(logging.DEBUG, "responsed.http")
    async with at(served_alone, tmp_path, scripter, ALIAS) as running:
        events = await run(codex, tmp_path, "Write it.")
        prompt = prompt_text(running.model)
    if running.sends_chat:
        ((kind, reason),) = gist(events)
        assert kind == "turn.failed"
        assert "The Lark grammar in `input[0].tools[0].tools[0].format` cannot be enforced by an upstream" in reason
        return
    assert list(gist(events)) == [("command", "word\n"), ("agent_message", "It has word"), ("turn.completed",)]
    assert statuses(caplog.text) == [200] * 2
    assert '"functions__exec"' in prompt
    assert "additional_tools" not in caplog.text


async def test_codex_calls_tool_in_namespace(served_alone: Served, codex: Path, tmp_path: Path) -> None:
    def closer(message: bytes) -> bytes:
        """It closes somebody who isn't there, and says what it heard."""
        _, called, output = message.partition(b"</tool_call>")
        return output if called else call("multi_agent_v1__close_agent", '{"target": "nobody"}').encode()

    async with at(served_alone, tmp_path, closer):
        (message, end) = gist(await run(codex, tmp_path, "Close it."))
    assert (message[0], message[1].split(":")[0], end) == (
        "agent_message",
        "invalid agent id nobody",
        ("turn.completed",),
    )


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


async def test_codex_gets_answer_of_output_schema(served_alone: Served, codex: Path, tmp_path: Path) -> None:
    """Its tools are on offer too."""
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    async with at(served_alone, tmp_path, lambda message: b'{"n": 3} is it.'):
        events = await run(codex, tmp_path, "How many?", "--output-schema", str(tmp_path / "schema.json"))
    assert list(gist(events)) == [("agent_message", '{"n": 3}'), ("turn.completed",)]


async def test_codex_gets_call_before_answer_of_output_schema(
    served_alone: Served, codex: Path, tmp_path: Path
) -> None:
    def counter(message: bytes) -> bytes:
        return b'{"n": 1}' if b"</tool_call>" in message else CALL.encode()

    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    async with at(served_alone, tmp_path, counter):
        events = await run(codex, tmp_path, "How many?", "--output-schema", str(tmp_path / "schema.json"))
    assert list(gist(events)) == [("command", "word\n"), ("agent_message", '{"n": 1}'), ("turn.completed",)]
