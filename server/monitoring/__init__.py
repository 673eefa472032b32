"""State of the server for managers and monitoring. `metrics` is imported on demand: its library takes 10 MB."""

from server.monitoring.health import Health, HealthHandler, Metrics, Version
from server.monitoring.latencies import LatencyStatus, Percentiles
from server.monitoring.status import StatusHandler
from server.monitoring.status_body import EndedAnswer, RunningStream, Status, UpstreamStatus

__all__ = [
    "EndedAnswer",
    "Health",
    "HealthHandler",
    "LatencyStatus",
    "Metrics",
    "Percentiles",
    "RunningStream",
    "Status",
    "StatusHandler",
    "UpstreamStatus",
    "Version",
]
