"""Reports of a run: tables, a page with plots, CSV, Markdown, raw records, and the comparison with an older run."""

from reports.outputs import Outputs, add_flags
from reports.terminal_tables import show

__all__ = ["Outputs", "add_flags", "show"]
