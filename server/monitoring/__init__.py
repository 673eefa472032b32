"""State of the server for managers and monitoring. `metrics` is imported on demand: its library takes 10 MB."""

from server.monitoring.live import LiveStatus
from server.monitoring.live_state import Status
from server.monitoring.status import Health, Metrics, StatusHandler, Version

__all__ = ["Health", "LiveStatus", "Metrics", "Status", "StatusHandler", "Version"]
