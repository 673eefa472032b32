"""The flags of the bench, and the requests that they ask for."""

from flags.fields import client_options, deviations
from flags.parser import parser

__all__ = ["client_options", "deviations", "parser"]
