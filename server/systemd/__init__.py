"""systemd: the units, and notifications to it. Imports nothing of ours."""

from server.systemd.notifier import Notifier

__all__ = ["Notifier"]
