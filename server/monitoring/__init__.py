"""State of the server for managers and monitoring. `metrics` is imported on demand: its library takes 10 MB."""

from server.monitoring.latencies import LatencyStatus, Percentiles
from server.monitoring.live import LiveStatus
from server.monitoring.live_state import EndedAnswer, RunningStream, Status, UpstreamStatus
from server.monitoring.status import Health, Metrics, StatusHandler, Version

__all__ = [
    "EndedAnswer",
    "Health",
    "LatencyStatus",
    "LiveStatus",
    "Metrics",
    "Percentiles",
    "RunningStream",
    "Status",
    "StatusHandler",
    "UpstreamStatus",
    "Version",
]
