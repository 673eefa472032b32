"""The order in which the leaves of a prefix tree are evicted: GreedyDual-Size.

Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", 1997: a leaf's priority is the clock at its last use plus its
cost by its size, the lowest priority goes first, and the clock becomes that priority. The cost is the number of tokens
to evaluate again: seconds per token would be one factor for all nodes. Costs by size that differ by less than a factor
of two count as equal, and then the least recently used leaf goes first.

A full tree has thousands of leaves, so the first one is found by heaps.
"""

import heapq
import itertools
import math
import weakref
from collections.abc import Iterable
from typing import TypeAlias

from engine.prefix_cache.node import Node

Entry: TypeAlias = tuple[tuple[float, int], int, weakref.ref[Node]]
"""Priority, a serial number that decides between equal ones, and the leaf, whose state must not outlive its removal."""
SPARE_ENTRIES = 64
"""Number of outdated entries that are no reason to build the heaps anew."""


class EvictionOrder:
    """The leaves of a tree, the priorities of its nodes, and the lifetimes of some.

    The leaves are in two heaps, without and with a lifetime. An outdated entry is dropped once it is the first.
    """

    def __init__(self) -> None:
        self.leaves: set[Node] = set()
        self.kept_size = 0
        """Bytes of the nodes with a lifetime, since the last `end_lifetimes`."""
        self._kept: set[Node] = set()
        """Nodes with a lifetime."""
        self._heaps: dict[bool, list[Entry]] = {False: [], True: []}
        """Entries by whether their leaves have a lifetime."""
        self._serials = itertools.count()
        self._clock = 0.0
        self._uses = itertools.count(1)

    def record_use(self, nodes: Iterable[Node]) -> None:
        """Record that the nodes are used now."""
        for node in nodes:
            node.priority = (self._clock + _value(node), next(self._uses))
            self._enter(node)

    def record_past_use(self, nodes: Iterable[Node]) -> None:
        """Record that the nodes were last used before all others, and before those recorded here earlier."""
        for node in nodes:
            node.priority = (_value(node), -next(self._uses))
            self._enter(node)

    def add_leaf(self, node: Node) -> None:
        self.leaves.add(node)
        self._enter(node)

    def keep(self, node: Node) -> None:
        """Record that a node has a lifetime."""
        if node not in self._kept:
            self._kept.add(node)
            self._enter(node)

    def end_lifetimes(self, now: float) -> None:
        """End the lifetimes that are over."""
        ended = {node for node in self._kept if node.keep_until <= now}
        self._kept -= ended
        for node in ended:
            self._enter(node)
        self.kept_size = sum(node.size for node in self._kept)

    def remove(self, node: Node) -> None:
        """Forget a node that leaves the tree."""
        self.leaves.discard(node)
        if node in self._kept:
            self._kept.remove(node)
            self.kept_size -= node.size

    def next_leaf(self, *, spares_kept: bool) -> Node:
        """Return the leaf to evict next: one without a lifetime if `spares_kept` and if there is any."""
        first = [entry for heap in self._heaps if (entry := self._first(heap)) is not None]
        leaf = (first[0] if spares_kept else min(first))[2]()
        assert leaf is not None, "outdated entries are dropped"
        return leaf

    def advance_clock(self, evicted: Node) -> None:
        self._clock = evicted.priority[0]

    def _enter(self, node: Node) -> None:
        """Enter a node whose priority or lifetime has changed into its heap, if it is a leaf."""
        if node not in self.leaves:
            return
        if sum(map(len, self._heaps.values())) > 2 * len(self.leaves) + SPARE_ENTRIES:
            self._build_heaps()
        else:
            heapq.heappush(self._heaps[node in self._kept], self._entry(node))

    def _build_heaps(self) -> None:
        for kept in self._heaps:
            self._heaps[kept] = [self._entry(leaf) for leaf in self.leaves if (leaf in self._kept) is kept]
            heapq.heapify(self._heaps[kept])

    def _entry(self, leaf: Node) -> Entry:
        return leaf.priority, next(self._serials), weakref.ref(leaf)

    def _first(self, kept: bool) -> Entry | None:
        heap = self._heaps[kept]
        while heap and not self._is_valid(heap[0], kept):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _is_valid(self, entry: Entry, kept: bool) -> bool:
        leaf = entry[2]()
        return leaf in self.leaves and leaf.priority == entry[0] and (leaf in self._kept) is kept


def _value(node: Node) -> float:
    """Return the tokens of a node by its bytes, as a power of two."""
    _, exponent = math.frexp(len(node.tokens) / max(node.size, 1))
    return 2.0**exponent
