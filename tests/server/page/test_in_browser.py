"""The status page in a real browser: key, chat, live figures, themes and widths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backends.scripted import ScriptedModel
from tests.support.browser import BrowserPage, browsing
from tests.support.helpers import Client, PacedModel, Running, encode, post, served

pytestmark = pytest.mark.slow

ANN = "ann-0123456789abcdef"
TEMPLATE = (
    "{% for t in tools or [] %}<|system|>{{ t.function.name }}{% endfor %}{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function|tojson }}</tool_call>{% endfor %}{% endfor %}"
    "{% if enable_thinking is defined %}<|system|>{{ enable_thinking }}{% endif %}<|assistant|>"
)
TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
MARKUP = "<img src=x onerror=alert(1)> **bold**"
CALL = b'<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
SIZES = [(theme, width) for theme in ("light", "dark") for width in (360, 1400)]


def reply(message: bytes) -> bytes:
    """Call the tool at the first question about the weather, and answer with its result at the second one."""
    if b"weather" in message:
        return b"<think>\nThere is a tool.\n</think>\n\n" + CALL
    return b"<think>\nHmm.\n</think>\n\n" + (MARKUP.encode() if b"markup" in message else b"Hello.")


async def in_browser(folder: Path, look: Callable[[BrowserPage], None]) -> None:
    def run() -> None:
        with browsing(folder) as page:
            look(page)

    await trio.to_thread.run_sync(run)


def text(page: BrowserPage, selector: str) -> str:
    found: str = page.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''")
    return found


def until(page: BrowserPage, selector: str, part: str) -> None:
    page.wait(f"(document.querySelector({selector!r})?.textContent ?? '').includes({part!r})")


def count(page: BrowserPage, selector: str) -> int:
    found: int = page.evaluate(f"document.querySelectorAll({selector!r}).length")
    return found


def tab_to(page: BrowserPage, selector: str, shift: bool = False) -> None:
    """Move the focus by the keyboard alone."""
    for _ in range(20):
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
        page.press("Tab", shift=shift)
    raise AssertionError(f"Tab does not reach {selector}")


def widths_fit(page: BrowserPage) -> list[Any]:
    """Return the elements that are too wide, in both themes and widths."""
    found: list[Any] = []
    for theme, width in SIZES:
        page.theme(theme)
        page.resize(width)
        page.evaluate("new Promise(requestAnimationFrame)")
        found += [(theme, width, element) for element in page.too_wide()]
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append((theme, width, wide))
    page.resize(1400)
    return found


async def test_page_asks_for_a_key_and_chats_by_keyboard(tmp_path: Path) -> None:
    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        page.wait("document.querySelector('#dialog').open")
        assert page.evaluate("document.activeElement.id") == "key"
        page.type("a-wrong-key-0123456")
        page.press("Enter")
        until(page, "#dialog-text", "unknown")
        page.wait("document.querySelector('#dialog').open")
        page.type(ANN)
        page.press("Enter")
        until(page, "#state", "live")
        assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        refused = [error for error in page.errors if "401" not in error]
        page.errors.clear()  # Chromium reports each 401

        tab_to(page, "#prompt")
        page.type("Show markup")
        page.press("Enter")
        until(page, ".reasoning", "Hmm.")
        until(page, "#log > .message:not(.user)", MARKUP)
        until(page, ".facts-line", " out")
        assert count(page, "#log img") == 0

        tab_to(page, "details.options summary")
        page.press("Enter")
        tab_to(page, "#tools")
        page.type(json.dumps([TOOL]))
        tab_to(page, "#prompt", shift=True)
        page.type("How is the weather?")
        page.press("Enter")
        until(page, ".call", "get_weather")
        until(page, ".call pre", '{"city": "Rome"}')
        page.wait("document.activeElement.matches('.call input')")
        page.type("Sunny")
        page.press("Enter")
        until(page, ".call pre.soft", "Sunny")
        page.wait("document.querySelectorAll('.facts-line').length === 3")
        assert (refused, widths_fit(page)) == ([], [])
        assert (page.errors, page.foreign_requests("127.0.0.1")) == ([], [])

    async with served(ScriptedModel(reply, n_slots=2), template=TEMPLATE, keys={"ann": ANN}, state=tmp_path) as running:
        await in_browser(tmp_path, look)
        await running.app.wait_idle()
        evaluated = bytes(token for entry in running.model.decoded for token in entry.tokens if token < 256)
    assert b"Sunny" in evaluated
    assert b"get_weather" in evaluated


async def test_page_shows_streams_latencies_cache_and_answers(tmp_path: Path) -> None:
    model = PacedModel(lambda message: b"x" * 200, n_slots=2)

    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#streams", "decode")
        page.wait("document.querySelectorAll('#streams svg .gap').length > 0")
        until(page, "#figures", "1 of 2")
        until(page, "#streams", "1 free slot")
        assert widths_fit(page) == []
        model.go()
        until(page, "#streams", "2 free slots")
        page.wait("document.querySelectorAll('#answers tr').length === 4")
        until(page, "#answers", "first prompt of the client")
        until(page, "#cache", "Missed: first prompt of the client")
        assert count(page, "#ttft .mark") >= 1
        assert count(page, "#itl .mark") >= 1
        assert "3 · " in text(page, "#memory") or "4 · " in text(page, "#memory")
        assert "Between tokens" in text(page, "#figures")
        assert widths_fit(page) == []
        for theme, width in SIZES:
            page.theme(theme)
            page.resize(width)
            page.screenshot(tmp_path / f"{theme}-{width}.png")
        assert (page.errors, page.foreign_requests("127.0.0.1")) == ([], [])

    async with served(model, state=tmp_path) as running:
        for words in ("Hello", "Hello you", "a"):
            await post(running, input=words)
        model.hold()
        async with await Client.to(running) as client:
            await client.request("POST", "/v1/responses", encode(input="Go on", stream=True))
            await client.created()
            for tokens in range(1, 6):
                model.allow(1)
                await wait_tokens(running, tokens)
            await in_browser(tmp_path, look)


async def wait_tokens(running: Running, tokens: int) -> None:
    """Wait until the stream in progress has that many tokens."""
    while sum(each.generated_tokens for each in running.app._generations.in_progress) < tokens:
        await trio.lowlevel.checkpoint()


async def test_page_stops_an_answer_and_begins_anew(tmp_path: Path) -> None:
    model = PacedModel(lambda message: b"x" * 200)

    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#state", "live")
        tab_to(page, "#prompt")
        model.hold()
        page.type("Go on")
        page.press("Enter")
        page.wait("!document.querySelector('#stop').hidden")
        page.press("Escape")
        until(page, "#log", "Stopped.")
        model.go()
        until(page, "#answers", "cancelled (client disconnected)")
        tab_to(page, "#new", shift=True)
        page.press("Enter")
        assert page.wait("document.querySelector('#log').childElementCount === 0")
        assert page.evaluate("document.activeElement.id") == "prompt"
        assert (page.errors, page.foreign_requests("127.0.0.1")) == ([], [])

    async with served(model) as running:
        await in_browser(tmp_path, look)


LONG = """
    clearTimeout(timer)
    refused = true  // no further poll
    const long = "a-very-long-name-without-an-end-".repeat(6)
    latest.model.name = long
    latest.upstreams = [
        {url: `https://${long}/v1`, healthy: true, running: 3, answers: 1234567, errors: 2, first_delta: 0.42},
        {url: "http://10.0.0.7:8000/v1", healthy: false, running: 0, answers: 0, errors: 12, first_delta: null},
    ]
    latest.answers = [{...latest.answers[0], client: long, outcome: `failed (${long})`, prompt_tokens: 1234567890,
        cache_miss: "input_changed", cache_miss_place: long}]
    latest.cache.misses = {[long]: 123456789}
    latest.streams = ["queued", "prefill", "decode", "tool"].map(state => ({
        id: "resp_12345678", client: long, route: "/v1/responses", mode: "stream", lane: "batch", state: state,
        seconds: 1e6, queue: 1, ttft: 1e5, prompt_tokens: 123456789, cached_tokens: 12345678,
        evaluated_tokens: 123456789, output_tokens: 123456789, max_output_tokens: 1, tokens_per_second: 12345.6,
        gaps: [0.01, 0.02, 5]}))
    add(make("div", {class: "message user"}, long))
    begin({type: "function_call", name: long, call_id: "c"}).text.append(long)
    show(long)
"""


async def test_page_fits_names_of_any_length(tmp_path: Path) -> None:
    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#state", "live")
        page.evaluate(LONG)
        page.evaluate("render(latest)")
        assert count(page, "#streams .stream") == 5
        assert widths_fit(page) == []
        page.resize(360)
        page.screenshot(tmp_path / "long.png")
        assert page.errors == []

    async with served() as running:
        await post(running, input="Hi")
        await running.app.wait_idle()
        await in_browser(tmp_path, look)


MANY = """
    clearTimeout(timer)
    refused = true  // no further poll
    const stream = {client: "a", route: "/v1/responses", state: "queued", lane: "interactive", seconds: 1, queue: 1,
        prompt_tokens: 9, cached_tokens: 0, evaluated_tokens: 0, output_tokens: 0, gaps: []}
    const decoding = {...stream, state: "decode", ttft: 0.1, tokens_per_second: 5, output_tokens: 3, gaps: [0.1, 0.2]}
    latest.streams = [...Array(8).fill(decoding), ...Array(WAITING).fill(stream)]
    latest.running = latest.slots = 8
    render(latest)
"""


async def test_page_shows_all_running_streams_and_the_first_five_that_wait(tmp_path: Path) -> None:
    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#state", "live")
        page.evaluate(f"{{{MANY.replace('WAITING', '22')}}}")
        assert count(page, "#streams .stream") == 8 + 5 + 1
        assert text(page, "#streams .stream:last-child") == "17 more wait behind them"
        assert widths_fit(page) == []
        page.evaluate(f"{{{MANY.replace('WAITING', '5')}}}")
        assert count(page, "#streams .stream") == 8 + 5
        assert page.errors == []

    async with served() as running:
        await post(running, input="Hi")
        await in_browser(tmp_path, look)


TRUNCATED = """
    clearTimeout(timer)
    refused = true  // no further poll
    latest.answers = [{...latest.answers[0], client: "192.168.100.101", outcome: "incomplete (max_output_tokens)",
        age: 59, prompt_tokens: 12345, output_tokens: 4096, ttft: 12.3, cache_miss: "first_prompt"}]
    render(latest)
    const region = document.querySelector("#answers").closest(".scroll")
    region.scrollWidth - region.clientWidth
"""


@pytest.mark.parametrize("width", [1200, 1400])
async def test_table_of_answers_is_not_cut_beside_the_chat(tmp_path: Path, width: int) -> None:
    def look(page: BrowserPage) -> None:
        page.resize(width)
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#answers", "completed")
        assert page.evaluate(TRUNCATED) == 0

    async with served() as running:
        await post(running, input="Hi")
        await running.app.wait_idle()
        await in_browser(tmp_path, look)


async def test_page_asks_again_after_the_connection_is_lost(tmp_path: Path) -> None:
    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#state", "live")
        network: dict[str, Any] = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.call("Network.emulateNetworkConditions", offline=True, **network)
        until(page, "#notice", "The server does not answer; trying again.")
        assert text(page, "#state") == "disconnected"
        page.call("Network.emulateNetworkConditions", offline=False, **network)
        until(page, "#state", "live")
        assert page.evaluate("document.querySelector('#notice').hidden")

    async with served() as running:
        await in_browser(tmp_path, look)


async def test_policy_blocks_a_script_that_is_not_the_page_s(tmp_path: Path) -> None:
    def look(page: BrowserPage) -> None:
        page.open(f"http://127.0.0.1:{running.port}/")
        until(page, "#state", "live")
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.broken = 1'}))"
        )
        assert page.evaluate("window.broken") is None
        page.evaluate("fetch('http://127.0.0.2:9/').catch(() => 0)")
        assert sum("Content Security Policy" in error for error in page.errors) >= 2
        assert not any("127.0.0.2" in url for url in page.requests)

    async with served() as running:
        await in_browser(tmp_path, look)
