"""Names of the reasoning events for one client: OpenAI's (`response.reasoning_text.delta`) or Open Responses'.

Open Responses calls them `response.reasoning.delta` and `.done`. Strict readers of either side reject the other names.
OpenAI's are the default, since almost all clients read them, even the AI SDK's provider for Open Responses. A client
gets the others if it asks for a version of Open Responses, or looks like the compliance suite. The suite sends no
header of its own; it is a program of Bun that leaves the headers of `fetch` as they are, and a page.
"""

from collections.abc import Callable

VERSION = b"openresponses-version"
"""Header by which a client asks for a version of Open Responses (its examples)."""
ANY_VERSION = b"latest"

Header = Callable[[bytes], str | None]
"""Return the value of a request's header by its name in lower case, or None."""

SUITE_ORIGIN = "https://www.openresponses.org"
"""Origin of the page that runs the compliance suite in a browser."""
SUITE_RUNTIME = "Bun/"
"""Beginning of the `User-Agent` of Bun's `fetch`. SDKs and most programs replace it by their own."""


def reads_open_names(choice: str, header: Header) -> bool:
    """True if a client gets Open Responses' names. `choice`: the setting `reasoning_events`."""
    if choice == "open-responses" or header(VERSION) is not None:
        return True
    return choice == "auto" and _is_suite(header)


def _is_suite(header: Header) -> bool:
    agent = header(b"user-agent")
    if agent is not None:
        return agent.startswith(SUITE_RUNTIME) or header(b"origin") == SUITE_ORIGIN
    # Bun's WebSocket sends no agent. The suite gives it a content type, which a handshake has no use for: clients
    # after OpenAI's guide send neither, and openai-python sends both.
    return header(b"sec-websocket-key") is not None and header(b"content-type") is not None
