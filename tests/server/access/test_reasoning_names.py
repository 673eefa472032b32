"""Which names of the reasoning events a client gets, by the headers that real clients send (recorded)."""

import pytest

from server.access.reasoning_names import reads_open_names

UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "k"}
JSON = {"content-type": "application/json", "authorization": "Bearer x"}
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
STAINLESS = {"x-stainless-lang": "js", "x-stainless-runtime": "node"}
NODE = {"accept": "*/*", "accept-language": "*", "sec-fetch-mode": "cors", "accept-encoding": "gzip, deflate"}
CODEX = "codex_exec/0.171.0 (Debian 12.0.0; x86_64) xterm (codex_exec; 0.171.0)"

OPENAI = {
    "openai-python": JSON | {"user-agent": "OpenAI/Python 3.57.0", "x-stainless-lang": "python"},
    "openai-python, async": JSON | {"user-agent": "AsyncOpenAI/Python 3.57.0", "x-stainless-lang": "python"},
    "openai-python, connect": UPGRADE | JSON | {"user-agent": "OpenAI/Python 3.57.0", "x-stainless-lang": "python"},
    "Agents SDK, Python": JSON | {"user-agent": "Agents/Python 0.24.0", "x-stainless-lang": "python"},
    "LangChain, Python": JSON | {"user-agent": "OpenAI/Python 3.57.0", "x-stainless-lang": "python"},
    "LiteLLM": JSON | {"user-agent": "litellm/1.110.2", "accept": "*/*"},
    "openai-node": JSON | STAINLESS | {"user-agent": "OpenAI/JS 7.57.0"},
    "openai-node under Bun": JSON | STAINLESS | {"user-agent": "OpenAI/JS 7.57.0"},
    "openai-node, WebSocket": UPGRADE | {"authorization": "Bearer x", "user-agent": "OpenAI/JS 7.57.0"},
    "openai-node in a page": JSON | STAINLESS | {"user-agent": BROWSER, "origin": "http://localhost:3000"},
    "Agents SDK, JavaScript, under Bun": JSON | STAINLESS | {"user-agent": "Agents/JavaScript 0.20.0"},
    "LangChain, JavaScript": JSON | STAINLESS | {"user-agent": "langchainjs-openai/1.0.0 ((node/v26.3.0; linux; x64))"},
    "AI SDK": JSON | {"user-agent": "ai-sdk-openai/4.0.118 ai-sdk-provider-utils/5.0.81 node.js/v20.20.2"},
    "AI SDK under Bun": JSON | {"user-agent": "ai-sdk-openai/4.0.118 ai-sdk-provider-utils/5.0.81 bun/1.4.5"},
    "Codex": JSON | {"user-agent": CODEX, "originator": "codex_exec", "accept": "text/event-stream"},
    "Codex, WebSocket": UPGRADE | {"user-agent": CODEX, "originator": "codex_exec"},
    "fetch of Node.js": JSON | NODE | {"user-agent": "node"},
    "ws of Node.js, as in OpenAI's guide": UPGRADE | {"authorization": "Bearer x"},
    "websockets of Python": UPGRADE | {"user-agent": "Python/3.11 websockets/17.4"},
    "aiohttp": JSON | {"user-agent": "Python/3.11 aiohttp/3.14.5", "accept": "*/*"},
    "requests": JSON | {"user-agent": "python-requests/2.34.2", "accept": "*/*"},
    "curl": JSON | {"user-agent": "curl/7.88.1", "accept": "*/*"},
    "no agent": JSON,
}
OPEN_RESPONSES = {
    "its suite": JSON | {"user-agent": "Bun/1.4.5", "accept": "*/*", "accept-encoding": "gzip, deflate, br, zstd"},
    "its suite, WebSocket": UPGRADE | JSON,
    "its page": JSON | {"user-agent": BROWSER, "origin": "https://www.openresponses.org"},
}
VERSIONED = OPENAI["curl"] | {"openresponses-version": "latest"}


def chosen(headers: dict[str, str]) -> dict[str, bool]:
    """Return for each value of the setting if the client gets Open Responses' names."""
    choices = ("auto", "openai", "open-responses")
    return {choice: reads_open_names(choice, lambda name: headers.get(name.decode())) for choice in choices}


@pytest.mark.parametrize("headers", OPENAI.values(), ids=OPENAI)
def test_other_clients_get_openais_names(headers: dict[str, str]) -> None:
    assert chosen(headers) == {"auto": False, "openai": False, "open-responses": True}


@pytest.mark.parametrize("headers", OPEN_RESPONSES.values(), ids=OPEN_RESPONSES)
def test_suite_of_open_responses_gets_its_names(headers: dict[str, str]) -> None:
    assert chosen(headers) == {"auto": True, "openai": False, "open-responses": True}


def test_version_of_open_responses_chooses_its_names_under_every_setting() -> None:
    assert chosen(VERSIONED) == {"auto": True, "openai": True, "open-responses": True}
