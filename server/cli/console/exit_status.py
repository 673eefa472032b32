"""Exit statuses of the commands. The unit does not restart after those that only a person can cure."""

from enum import IntEnum


class ExitStatus(IntEnum):
    OK = 0
    CRASH = 1
    """Python's own status after an unexpected exception."""
    USAGE = 2
    """A flag or a setting is wrong."""
    MODEL = 3
    """The model file cannot be used."""
    RESOURCES = 4
    """Memory, disk or file descriptors are missing."""
    NETWORK = 5
    """The address cannot be bound, a download failed, or no upstream answers."""
    EXPOSED = 6
    """The address is reachable from other machines, and there are no API keys."""
