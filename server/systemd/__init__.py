"""systemd: the units, notifications to it, and how the last run ended. Imports no other folder of the server."""

from server.systemd.last_run import marked, report_ends
from server.systemd.notifier import Notifier

__all__ = ["Notifier", "marked", "report_ends"]
