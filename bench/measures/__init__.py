"""Figures from records: formulas, percentiles, objectives, and ratios with their confidence intervals."""

from measures.distances import distance_line, distances, read_floor
from measures.figures import Group, summarize
from measures.formulas import MEASURES, samples
from measures.objectives import Objectives
from measures.percentiles import POINTS, percentile, spread
from measures.ratios import RATIO_POINTS, ratios

__all__ = [
    "MEASURES",
    "POINTS",
    "RATIO_POINTS",
    "Group",
    "Objectives",
    "distance_line",
    "distances",
    "percentile",
    "ratios",
    "read_floor",
    "samples",
    "spread",
    "summarize",
]
