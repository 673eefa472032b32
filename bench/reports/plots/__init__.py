"""The plots of a report: each returns a figure, or None if the run has no data for it."""

from reports.plots.gaps import distribution, histogram
from reports.plots.load import ttft_against_rate
from reports.plots.over_time import over_time
from reports.plots.stages import stages
from reports.plots.sweep import sweep

__all__ = ["distribution", "histogram", "over_time", "stages", "sweep", "ttft_against_rate"]
