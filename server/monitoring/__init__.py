"""State of the server for managers and monitoring. `metrics` is imported on demand: its library takes 10 MB."""

from server.monitoring.status import Health, Metrics, StatusHandler, Version

__all__ = ["Health", "Metrics", "StatusHandler", "Version"]
