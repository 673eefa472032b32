"""Reports of a run: a page with plots, CSV, Markdown, raw records, and the comparison with an older run."""

from reports.noise import noise
from reports.notes import notes
from reports.page import page, warnings

__all__ = ["noise", "notes", "page", "warnings"]
