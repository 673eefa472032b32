"""A decoded request and what came before it -> everything that the model and the response need of it. Pure."""

from collections.abc import Sequence

from msgspec import Raw, Struct

from engine.chat_template import Message
from server.prompt import builder
from server.protocol.request import Request
from server.tools import NO_TOOLS, Toolbox


class Past(Struct, frozen=True):
    """The conversation before a request."""

    items: Sequence[Raw] = ()
    """Oldest first."""
    root: str | None = None
    """Id that all turns of the conversation have in common; None where it begins."""


class PreparedRequest(Struct, frozen=True, kw_only=True):
    """A request that can be rendered, constrained and answered."""

    request: Request
    """References are replaced by the items they name."""
    messages: Sequence[Message] = ()
    """The whole conversation up to the answer."""
    toolbox: Toolbox = NO_TOOLS
    root: str | None = None
    """See Past."""
    skipped: tuple[str, ...] = ()
    """Fields and items that have no effect."""
    field: str = "input"
    """Field that the conversation stands in, for errors."""
    schema_field: str = "text.format.schema"
    """Field that the schema of the answer stands in, for errors."""
    plain_text: bool = False
    """True if the answer is text only, whatever the model's family reads in it."""


def prepare(request: Request, past: Past, skipped: Sequence[str] = ()) -> PreparedRequest:
    """Return the prepared request; `skipped` are fields that the caller found without effect.

    Raises InvalidRequest for items and tools that cannot be read.
    """
    toolbox = builder.toolbox(request)
    conversation = builder.conversation(request, past.items, toolbox)
    found = (*skipped, *builder.unused_options(request), *conversation.skipped, *toolbox.skipped)
    return PreparedRequest(
        request=request,
        messages=conversation.messages,
        toolbox=toolbox,
        root=past.root,
        skipped=tuple(dict.fromkeys(found)),
    )
