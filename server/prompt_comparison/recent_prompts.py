"""Recent prompts, to explain why a later one was not in the KV cache. They are in memory only. Pure."""

from array import array

from msgspec import Struct

MAX_TOKENS = 1 << 20
"""Tokens of all recent prompts together, 4 bytes each."""
MAX_PROMPTS = 1000
"""Number of recent prompts, each of which takes a kilobyte besides its tokens."""
TAIL_CHARACTERS = 64


class PromptSettings(Struct, frozen=True):
    """Settings that change a prompt; `tools` and `text_format` are hashes."""

    tools: int = 0
    text_format: int = 0
    effort: str | None = None
    compactions: int = 0
    """Number of items that replace earlier turns."""


class RecentPrompt(Struct, frozen=True):
    """Prompt of a response."""

    response_id: str
    client: str
    group: str
    """Affinity group."""
    tokens: "array[int]"
    tail: str
    """End of the last item's text: everything after it is the template's."""
    settings: PromptSettings


def recent_prompt(
    response_id: str, client: str, group: str, tokens: "array[int]", last_text: str, settings: PromptSettings
) -> RecentPrompt:
    return RecentPrompt(response_id, client, group, tokens, last_text.strip()[-TAIL_CHARACTERS:], settings)


class RecentPrompts:
    """The last prompts of all clients. A client finds only its own."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._prompts: dict[str, RecentPrompt] = {}
        """By the id of the response, the oldest first."""
        self._by_sender: dict[tuple[str, str | None], dict[str, RecentPrompt]] = {}
        """Prompts by client and affinity group, and by client and None: each request looks for its latest one."""
        self._tokens = 0

    def add(self, prompt: RecentPrompt) -> None:
        self._remove(prompt.response_id)
        self._prompts[prompt.response_id] = prompt
        for sender in _senders(prompt):
            self._by_sender.setdefault(sender, {})[prompt.response_id] = prompt
        self._tokens += len(prompt.tokens)
        while self._tokens > self._max_tokens or len(self._prompts) > MAX_PROMPTS:
            self._remove(next(iter(self._prompts)))

    def find(self, response_id: str, client: str) -> RecentPrompt | None:
        prompt = self._prompts.get(response_id)
        return prompt if prompt is not None and prompt.client == client else None

    def latest(self, client: str, group: str) -> RecentPrompt | None:
        """Return the client's last prompt of the affinity group, or its last one of any group."""
        own = self._by_sender.get((client, group)) or self._by_sender.get((client, None))
        return None if own is None else next(reversed(own.values()))

    def forget(self, response_id: str, group: str | None) -> None:
        """Forget the prompts of an affinity group; None: of a response's, which may contain its texts, or all if its
        prompt is not among the recent ones."""
        if group is None and (prompt := self._prompts.get(response_id)) is not None:
            group = prompt.group
        for prompt in [prompt for prompt in self._prompts.values() if group in (None, prompt.group)]:
            self._remove(prompt.response_id)

    def _remove(self, response_id: str) -> None:
        if (prompt := self._prompts.pop(response_id, None)) is None:
            return
        self._tokens -= len(prompt.tokens)
        for sender in _senders(prompt):
            own = self._by_sender[sender]
            del own[response_id]
            if not own:
                del self._by_sender[sender]


def _senders(prompt: RecentPrompt) -> tuple[tuple[str, str], tuple[str, None]]:
    return (prompt.client, prompt.group), (prompt.client, None)
