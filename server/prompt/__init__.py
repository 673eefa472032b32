"""Input items to messages to tokens, pure. Imports `protocol` and `tools`."""

from server.prompt.item_reader import Reader
from server.prompt.truncation import Tokens

__all__ = [
    "Reader",
    "Tokens",
]
