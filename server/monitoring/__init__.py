"""State of the server for managers and monitoring. `metrics` is imported on demand: its library takes 10 MB."""

from server.monitoring.status import Metrics, StatusHandler

__all__ = ["Metrics", "StatusHandler"]
