"""The command `status`: a running server, seen in the terminal. Imports `config` and `monitoring`."""

from server.live_view.command import add_status
from server.live_view.server_address import Unreachable

__all__ = ["Unreachable", "add_status"]
