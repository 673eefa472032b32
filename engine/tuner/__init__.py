"""Measure which threads and options are fastest on this machine. Imports `wording` and the root."""
