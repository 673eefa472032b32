"""Messages of a conversation, as the engine sees them. Data only."""

from msgspec import Struct


class Call(Struct, frozen=True):
    """A call of a function by the assistant."""

    id: str
    name: str
    arguments: str
    """Arguments as the model wrote them, which may be invalid JSON."""


class Message(Struct, frozen=True):
    """One message of the conversation. Its role is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str
    reasoning: str = ""
    """Reasoning of the assistant before this message."""
    calls: tuple[Call, ...] = ()
    """Calls of the assistant. Their outputs follow as messages of role `tool`, in the same order."""
    name: str = ""
    """Name of the function whose output this message is."""
    call_id: str = ""
    """Id of the call whose output this message is."""
    example: str = ""
    """Example of a call that the server added to the content: names of control tokens in it mean these tokens."""

    @property
    def is_of_call(self) -> bool:
        """True if the message has calls, or is the output of one."""
        return bool(self.calls) or self.role == "tool"


class Tool(Struct, frozen=True):
    """A function that the assistant may call."""

    name: str
    description: str
    parameters: str
    """JSON schema of the parameters, as text."""
