"""Leave out the items that a `compaction` item stands for. Pure.

A client may send the summary alone, or after everything that it stands for: as a stored chain does, or as an array to
which all output was appended. Codex sends its instructions and the user's messages before it. So messages of the user
and of the system stay, and answers, reasoning, calls and outputs go.
"""

from collections.abc import Sequence

from engine.chat_template import Message
from server.prompt.items import PlacedEntry

MAX_USER_MESSAGES, MAX_USER_CHARACTERS = 8, 4000
"""Number of the user's last messages that stay unchanged in a chain, and their characters in total."""


def without_compacted(entries: Sequence[PlacedEntry]) -> list[PlacedEntry]:
    """Return the entries without those that the last summary stands for."""
    last = max((index for index, each in enumerate(entries) if each.place.type == "compaction"), default=0)
    users = _past_users(entries[:last])
    return [each for index, each in enumerate(entries) if index >= last or _stays(each, index in users)]


def _stays(placed: PlacedEntry, is_last_of_user: bool) -> bool:
    """True if an entry before the last summary stays. `is_last_of_user`: see `_past_users`."""
    entry, place = placed.entry, placed.place
    if not isinstance(entry, Message) or entry.role == "assistant" or place.type == "compaction":
        return False
    return entry.role == "system" or place.field == "input" or is_last_of_user


def _past_users(entries: Sequence[PlacedEntry]) -> set[int]:
    """Return the indexes of the user's last messages in earlier turns, up to the limits."""
    found: set[int] = set()
    left = MAX_USER_CHARACTERS
    for index in reversed(range(len(entries))):
        entry = entries[index].entry
        if not isinstance(entry, Message) or entry.role != "user" or entries[index].place.type == "compaction":
            continue
        left -= len(entry.content)
        if left < 0 or len(found) == MAX_USER_MESSAGES:
            break
        found.add(index)
    return found
