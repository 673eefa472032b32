"""Reports of a run: a page with plots, CSV, Markdown, raw records, and the comparison with an older run."""

from reports import comparison, files
from reports.noise import noise
from reports.page import page, warnings

__all__ = ["comparison", "files", "noise", "page", "warnings"]
