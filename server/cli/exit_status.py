"""Exit statuses of the commands. The unit does not restart after those that only a person can cure."""

from collections.abc import Mapping
from enum import IntEnum

from engine.chat_template import TemplateError
from engine.gguf import GGUFError
from engine.loader import catalog
from engine.model import ModelError, OptionError, TooLittleMemory
from server.config import ConfigError
from server.http import BindError, ExposedAddress
from server.live_view import Unreachable
from server.store import NewerStore, StoreError


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
    """The address cannot be bound, or a download failed."""
    EXPOSED = 6
    """The address is reachable from other machines, and there are no API keys."""


STATUS_BY_ERROR: Mapping[type[BaseException], ExitStatus] = {
    ExposedAddress: ExitStatus.EXPOSED,
    ConfigError: ExitStatus.USAGE,
    NewerStore: ExitStatus.USAGE,
    StoreError: ExitStatus.RESOURCES,
    OptionError: ExitStatus.USAGE,
    MemoryError: ExitStatus.RESOURCES,
    TooLittleMemory: ExitStatus.RESOURCES,
    GGUFError: ExitStatus.MODEL,
    TemplateError: ExitStatus.MODEL,
    ModelError: ExitStatus.MODEL,
    catalog.DownloadError: ExitStatus.NETWORK,
    catalog.CatalogError: ExitStatus.MODEL,
    BindError: ExitStatus.NETWORK,
    Unreachable: ExitStatus.NETWORK,
    OSError: ExitStatus.RESOURCES,
}
"""Exit status of each error, the most specific first."""


def exit_status(error: BaseException) -> ExitStatus:
    return next(status for kind, status in STATUS_BY_ERROR.items() if isinstance(error, kind))
