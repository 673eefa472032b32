"""The exit status of each error. This module imports nearly everything, so `main` imports it after an error only."""

from collections.abc import Mapping

from engine.chat_template import TemplateError, TemplateFileError
from engine.gguf import GGUFError
from engine.loader import catalog
from engine.model import ModelError, OptionError, TooLittleDisk, TooLittleMemory
from server.cli.console import ExitStatus
from server.config import ConfigError
from server.listening import BindError, ExposedAddress
from server.live_view import Unreachable
from server.store import NewerStore, StoreError
from server.upstream import NoUpstream

STATUS_BY_ERROR: Mapping[type[BaseException], ExitStatus] = {
    ExposedAddress: ExitStatus.EXPOSED,
    ConfigError: ExitStatus.USAGE,
    NewerStore: ExitStatus.USAGE,
    StoreError: ExitStatus.RESOURCES,
    OptionError: ExitStatus.USAGE,
    TemplateFileError: ExitStatus.USAGE,
    MemoryError: ExitStatus.RESOURCES,
    TooLittleMemory: ExitStatus.RESOURCES,
    TooLittleDisk: ExitStatus.RESOURCES,
    GGUFError: ExitStatus.MODEL,
    TemplateError: ExitStatus.MODEL,
    ModelError: ExitStatus.MODEL,
    catalog.DownloadError: ExitStatus.NETWORK,
    catalog.CatalogError: ExitStatus.MODEL,
    BindError: ExitStatus.NETWORK,
    NoUpstream: ExitStatus.NETWORK,
    Unreachable: ExitStatus.NETWORK,
    OSError: ExitStatus.RESOURCES,
}
"""Exit status of each error, the most specific first."""


def exit_status(error: BaseException) -> ExitStatus | None:
    """Return the exit status of an error; None if no command raises it on purpose."""
    return next((status for kind, status in STATUS_BY_ERROR.items() if isinstance(error, kind)), None)
