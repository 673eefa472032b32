"""The order in which the leaves of a prefix tree are evicted: GreedyDual-Size.

Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", 1997: a leaf's priority is the clock at its last use plus its
cost by its size, the lowest priority goes first, and the clock becomes that priority. The cost is the number of tokens
to evaluate again: seconds per token would be one factor for all nodes. Costs by size that differ by less than a factor
of two count as equal, and then the least recently used leaf goes first.
"""

import itertools
import math
from collections.abc import Iterable

from engine.prefix_cache.node import Node


class EvictionOrder:
    """The leaves of a tree, and the priorities of its nodes."""

    def __init__(self) -> None:
        self.leaves: set[Node] = set()
        self._clock = 0.0
        self._uses = itertools.count(1)

    def record_use(self, nodes: Iterable[Node]) -> None:
        """Record that the nodes are used now."""
        for node in nodes:
            node.priority = (self._clock + _value(node), next(self._uses))

    def record_past_use(self, nodes: Iterable[Node]) -> None:
        """Record that the nodes were last used before all others, and before those recorded here earlier."""
        for node in nodes:
            node.priority = (_value(node), -next(self._uses))

    def next_leaf(self, now: float) -> Node:
        """Return the leaf to evict next, and advance the clock. Leaves with a lifetime beyond `now` come last."""
        leaf = min(self.leaves, key=lambda leaf: (leaf.keep_until > now, leaf.priority))
        self._clock = leaf.priority[0]
        return leaf


def _value(node: Node) -> float:
    """Return the tokens of a node by its bytes, as a power of two."""
    _, exponent = math.frexp(len(node.tokens) / max(node.size, 1))
    return 2.0**exponent
