"""Figures from records: formulas, percentiles, objectives, and ratios with their confidence intervals."""

from measures.figures import Group, summarize
from measures.formulas import MEASURES, PER_REQUEST, samples
from measures.objectives import Objectives
from measures.percentiles import POINTS, percentile, spread
from measures.ratios import ratios

__all__ = [
    "MEASURES",
    "PER_REQUEST",
    "POINTS",
    "Group",
    "Objectives",
    "percentile",
    "ratios",
    "samples",
    "spread",
    "summarize",
]
