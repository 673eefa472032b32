"""Capabilities of a chat template: the roles, calls, outputs and reasoning that it renders. Pure."""

from msgspec import Struct

from engine.chat_template.efforts import EFFORT_WORDS


class CallFields(Struct, frozen=True):
    """Fields of a message in which a template reads calls."""

    mapping: bool
    """True if arguments are an object; otherwise JSON as text."""
    empty: str | None
    """Content of a message that has only calls."""
    ids: str = ""
    """Ids of calls: empty for the client's, `digits` for nine digits (Mistral), `conversation` or `message` for
    `functions.name:number` (Kimi), counted in the whole conversation or in each message."""
    metadata: bool = False
    """True if a message has one call: its name as `metadata`, its arguments as content (GLM-4). Outputs have the role
    `observation`."""


class TemplateCapabilities(Struct, frozen=True):
    """Capabilities of a template. The defaults are the minimum."""

    system: bool = False
    """True if a conversation may begin with a system message."""
    later_system: bool = False
    """True if a system message may follow other messages."""
    consecutive_roles: bool = False
    """True if one role may write consecutive messages."""
    call_fields: CallFields | None = None
    """Fields of calls; without them, calls and their outputs are rendered as text."""
    parallel: bool = False
    """True if a message may have several calls."""
    text_beside_calls: bool = False
    """True if the text of a message with calls is rendered. Otherwise the text becomes a message before the calls, if
    `consecutive_roles` or `text_before_calls` permits that."""
    reasoning: str = ""
    """Field of the assistant's reasoning; empty if the template renders none."""
    effort: bool = False
    """True if the effort changes the prompt."""
    tools: bool = False
    """True if the template lists the functions. Otherwise a system message lists them."""
    text_before_calls: bool = False
    """True if a text message may precede calls although roles must alternate, because messages with calls don't count
    (Mistral)."""
    efforts: tuple[str, ...] = EFFORT_WORDS
    """Accepted values of `reasoning_effort` (Hy3 rejects `medium`)."""
    drops_system: bool = False
    """True if the template drops the system message of a conversation that ends with an output (Mistral-Nemo)."""
    outputs: bool = False
    """True if messages of role `tool` have their own format although calls have no fields (LFM2)."""

    @property
    def separates_text(self) -> bool:
        """True if text and calls of a message must be two messages, which the template permits."""
        return not self.text_beside_calls and (self.consecutive_roles or self.text_before_calls)
