"""Saved states of token sequences in host memory, as a radix tree. Imports the root only."""

from engine.prefix_cache.node import CachedRun
from engine.prefix_cache.sequences import common_length
from engine.prefix_cache.tree import Match, PrefixTree

__all__ = [
    "CachedRun",
    "Match",
    "PrefixTree",
    "common_length",
]
