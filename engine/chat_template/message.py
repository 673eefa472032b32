"""What has been said, as the engine knows it. Data only."""

from msgspec import Struct


class Call(Struct, frozen=True):
    """A function that the assistant called."""

    id: str
    name: str
    arguments: str
    """As they were written: JSON, or what the model took for it."""


class Message(Struct, frozen=True):
    """One turn of the conversation. Its role: `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str
    reasoning: str = ""
    """What the assistant thought before it said this."""
    calls: tuple[Call, ...] = ()
    """Of the assistant. Behind it stand their outputs, as many and in the same order, of role `tool`."""
    name: str = ""
    """Of an output: the function's."""
    call_id: str = ""


class Tool(Struct, frozen=True):
    """A function that the assistant may call."""

    name: str
    description: str
    parameters: str
    """Their JSON schema, an object."""
