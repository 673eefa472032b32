"""The plots of a report: each returns a captioned plot, or None if the run has no data for it."""

from reports.plots.gaps import distribution, histogram
from reports.plots.over_time import over_time
from reports.plots.stages import stages
from reports.plots.sweep import sweep
from reports.plots.ttft_against_rate import ttft_against_rate

__all__ = ["distribution", "histogram", "over_time", "stages", "sweep", "ttft_against_rate"]
