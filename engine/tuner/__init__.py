"""Measure which threads and options are fastest on this machine. Imports the engine's root only."""
