"""The prompt cache with SmolLM2, read by the official client: prewarm, diagnostics, and a clock in the instructions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response

from tests.support.helpers import official_client
from tests.support.processes import Daemon, serving

pytestmark = pytest.mark.slow

RULE = "You are the voice assistant of a house. Answer in one sentence, and name the room. "
RULES = RULE * 12
FILED = "You write the log of a ship. Be exact, and mention the weather first. " * 12


def clock(time: str) -> str:
    return f"Current time is {time}. Today's date is 2026-11-26.\n{RULES}"


@pytest.fixture(scope="module")
def daemon(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("prompt_cache")
    (folder / "ship.txt").write_text(FILED)
    flags = ("--model", str(smollm2), "--alias", "smollm2", "--context", "1024", "--prewarm", str(folder / "ship.txt"))
    with serving(folder, *flags) as running:
        yield running


def ask(daemon: Daemon, **body: Any) -> Response:
    with official_client(daemon.url, timeout=120) as client:
        response: Response = client.responses.create(model="smollm2", max_output_tokens=1, **body)
        return response


def counts(response: Response) -> tuple[int, int, int]:
    """Return the input tokens, cached tokens and output tokens."""
    assert response.usage is not None
    usage = response.usage
    return usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens


def test_prewarmed_prompt_is_cached_but_for_its_last_token(daemon: Daemon) -> None:
    body = {"instructions": f"Prewarm. {RULE}", "input": "Is the light on?"}
    warmed = ask(daemon, prompt_cache_options={"prewarm": True}, **body)
    n = counts(warmed)[0]
    assert (warmed.status, warmed.output, counts(warmed)) == ("completed", [], (n, counts(warmed)[1], 0))
    assert counts(ask(daemon, **body))[:2] == (n, n - 1)


def test_prewarmed_instructions_are_cached_for_any_question(daemon: Daemon) -> None:
    instructions = f"Any question. {RULE}"
    warmed = ask(daemon, prompt_cache_options={"prewarm": True}, instructions=instructions)
    for question in ("Is the light on?", "[1, 2]", "  Hm"):
        assert (
            counts(ask(daemon, instructions=instructions, input=question))[1] >= counts(warmed)[0] - 1
        )  # a line break may join the text


def test_file_prewarmed_at_start_is_cached(daemon: Daemon) -> None:
    n, cached, _ = counts(ask(daemon, instructions=FILED, input="Hello"))
    assert 200 < n - 10 < cached


def test_changed_clock_is_diagnosed(daemon: Daemon) -> None:
    first = ask(daemon, instructions=clock("12:31:05"), input="Hello")
    second = ask(
        daemon,
        instructions=clock("12:31:17"),
        input="Hello",
        prompt_cache_options={"comparison_response_id": first.id},
    )
    n, cached, _ = counts(second)
    found = second.prompt_cache_diagnostics
    assert found is not None
    assert found.type == "cache_miss"
    assert (found.reason, found.comparison_reusable_tokens) == ("input_changed", n - found.cache_missed_tokens)
    assert found.comparison_reusable_tokens is not None
    assert cached <= found.comparison_reusable_tokens < 30
    assert second.model_extra is not None
    difference = second.model_extra["responsed"]["cache"]["difference"]
    assert difference == {
        "field": "instructions",
        "type": "message",
        "character": len("Current time is 12:31:"),
        "text": "Current time is 12:31:|17. Today's date is 2026",
    }
    assert "differs from that of" in daemon.log.read_text()


def test_volatile_clock_costs_its_own_tokens_only(tiny: Path, tmp_path: Path) -> None:
    """A token of the tiny model is a byte, or a few; weights don't matter here."""
    with serving(tmp_path, "--model", str(tiny), "--alias", "smollm2", "--volatile", "clock") as daemon:
        ask(daemon, instructions=clock("12:31:05"), input="Hello")
        n, cached, _ = counts(ask(daemon, instructions=clock("12:31:17"), input="Hello"))
    assert n - cached < 50 < 1000 < n
