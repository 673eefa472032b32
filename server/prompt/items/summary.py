"""The summary of a conversation as a message. Pure."""

from engine.chat_template import Message

HEADING = "What was said before, in summary:\n\n"


def render_summary(summary: str) -> Message:
    """Return the summary as a message of the user, because it deserves no more trust than the user's input."""
    return Message("user", HEADING + summary)


def is_summary(message: Message) -> bool:
    return message.role == "user" and message.content.startswith(HEADING)
