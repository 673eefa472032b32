"""A radix tree of saved states: finds the longest cached prefix of a prompt, and stores every shared prefix once.

SGLang's RadixAttention (Zheng et al., arXiv:2312.07104) has such a tree over pages of GPU memory; this one is over
host memory, into which slots are saved. A node is cut in two where two sequences part. Some models cannot continue
everywhere (`ModelInfo.cuts_state`): their prefixes end with a node that has a tail.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from engine.model import SavedState
from engine.prefix_cache.eviction import EvictionOrder
from engine.prefix_cache.node import CachedRun, Node
from engine.prefix_cache.sequences import common_length

Split: TypeAlias = Callable[[SavedState, int], tuple[SavedState, SavedState]]
"""`Model.split`."""
MIN_CACHED_TOKENS = 16
"""Minimum tokens of a run that are worth their own node, and of a prefix that is worth a restore."""
MAX_LAST_TAILS = 4
"""Number of tails at the end of a path: two turns, each with question and answer."""
MAX_LIFETIME_SHARE = 0.5
"""Share of the memory for runs with a lifetime. Beyond it they are evicted like all others."""


class Match(Struct, frozen=True):
    """The longest usable prefix of a prompt: `n` tokens, from consecutive states."""

    n: int = 0
    states: tuple[SavedState, ...] = ()


class PrefixTree:
    """Saved states of at most `limit` bytes."""

    def __init__(self, limit: int, split: Split, *, cuts_state: bool) -> None:
        self._limit = limit
        self._split = split
        self._cuts_state = cuts_state
        self._root = Node(None, (), 0, SavedState(b"", b""))
        self._order = EvictionOrder()
        self.size = 0
        """Bytes of all states."""
        self.now = 0.0
        """Present time in seconds, set by the caller."""
        self.evictions = 0
        """Number of runs that were removed because the tree was full."""

    def match(self, prompt: Sequence[int]) -> Match:
        """Return the longest usable prefix. The last token of the prompt never counts: its logits are needed."""
        path, n = self._walk(tuple(prompt[:-1]))
        if not self._cuts_state:
            while path and (path[-1].end > n or not path[-1].state.tail):
                path.pop()
            n = path[-1].end if path else 0
        return Match(n, tuple(node.state for node in path))

    def cached_length(self, tokens: Sequence[int]) -> int:
        """Return the number of first tokens that are cached, usable or not."""
        return self._walk(tuple(tokens))[1]

    def missing(self, tokens: Sequence[int]) -> int | None:
        """Return the position from which a state of `tokens` is missing; None if too little is missing to be worth
        saving."""
        path, n = self._walk(tuple(tokens))
        if len(tokens) < MIN_CACHED_TOKENS:
            return None
        if not self._cuts_state:
            ends_here = bool(path) and path[-1].end == n == len(tokens) and bool(path[-1].state.tail)
            return None if ends_here else min(n, len(tokens) - 1)
        return n if len(tokens) - n >= MIN_CACHED_TOKENS else None

    def insert(self, run: CachedRun, savable: int = 0, *, past: bool = False, keep_until: float = 0.0) -> None:
        """Add a run after its cached beginning, without the tokens that are cached already.

        The first `savable` tokens may be written to a disk. Without its beginning the run is of no use and is ignored.
        `keep_until`: see `Node`. `past`: the run was last used before everything in the tree, and before every run that
        was inserted with `past` earlier.
        """
        path, n = self._walk(run.tokens)
        if n < run.start or run.size > self._limit or not (self._cuts_state or run.state.tail or past):
            return
        added = self._extend(path, n, run, savable)
        for node in (*path, *added):
            if node.end <= len(run.tokens):
                self._record_job(node, run.groups, node.end <= savable, keep_until)
        if past:
            self._order.record_past_use(added)
        else:
            self._order.record_use((*path, *added))
            self._drop_tails((*path, *added))
        self._evict()

    def _extend(self, path: list[Node], n: int, run: CachedRun, savable: int) -> list[Node]:
        """Add the run after its first `n` tokens, which end in the last node of the path, and return the new nodes.

        That node is cut if further tokens part there, or if the run has a tail there.
        """
        is_whole = n == len(run.tokens)
        if path and path[-1].end > n and (not is_whole or (run.state.tail and not self._cuts_state)):
            path[-1] = self._cut(path[-1], n)
        if is_whole:
            self._add_tail(path, run)
            return []
        return self._append(path[-1] if path else self._root, run, n, savable)

    def record_use(self, tokens: Sequence[int], group: str = "", savable: int = 0, *, keep_until: float = 0.0) -> None:
        """Record a job of an affinity group that had these first tokens: how many of them may be written to a disk, and
        the time until which they should remain."""
        path, n = self._walk(tuple(tokens))
        self._order.record_use(path)
        for node in path:
            if node.end <= n:
                self._record_job(node, {group} if group else (), node.end <= savable, keep_until)

    def drop(self, group: str | None) -> None:
        """Remove the savable runs that no other affinity group had; None: all savable runs.

        Runs that others had stay, but are savable no more unless one of these allows it.
        """
        dropped = {
            node: None for node in self._root.subtree() if node.savable and (group is None or node.groups <= {group})
        }
        for node in dropped:
            if node.parent not in dropped:
                self._remove(node)
        for node in self._root.subtree():
            node.forget_group(group or "")

    def forget(self, tokens: Sequence[int]) -> None:
        """Remove the last run of a sequence with all that continues it: a model could not restore it."""
        if path := self._walk(tuple(tokens))[0]:
            self._remove(path[-1])

    def savable_runs(self, limit: int) -> list[CachedRun]:
        """Return the runs that may be written to a disk and fit into `limit` bytes, the most useful first.

        Every run comes after its beginning.
        """
        chosen: list[CachedRun] = []
        candidates = [_candidate(self._root)]
        while candidates:
            node = heapq.heappop(candidates)[-1]
            if node.size <= limit:
                limit -= node.size
                chosen += [node.run()] if node.tokens else []
                for child in node.children.values():
                    if child.savable:
                        heapq.heappush(candidates, _candidate(child))
        return chosen

    def _walk(self, tokens: tuple[int, ...]) -> tuple[list[Node], int]:
        """Return the nodes that contain the longest cached prefix, and its length. It may end inside the last node."""
        path: list[Node] = []
        node, n = self._root, 0
        while n < len(tokens) and (child := node.children.get(tokens[n])) is not None:
            path.append(child)
            n += common_length(child.tokens, tokens, n)
            if n < child.end:
                break
            node = child
        return path, n

    def _append(self, parent: Node, run: CachedRun, n: int, savable: int) -> list[Node]:
        """Add the tokens from `n` on, as two nodes if only the first of them are savable."""
        state = self._split(run.state, n - run.start)[1] if n > run.start else run.state
        if self._cuts_state and n < savable < len(run.tokens):
            first, state = self._split(state, savable - n)
            parent = self._add(parent, run.tokens[n:savable], first)
            return [parent, self._add(parent, run.tokens[savable:], state)]
        return [self._add(parent, run.tokens[n:], state)]

    def _add(self, parent: Node, tokens: tuple[int, ...], state: SavedState) -> Node:
        node = Node(parent, tokens, parent.end, state)
        parent.children[tokens[0]] = node
        self._order.leaves.discard(parent)
        self._order.add_leaf(node)
        self.size += node.size
        return node

    def _add_tail(self, path: Sequence[Node], run: CachedRun) -> None:
        """Add the tail of a run whose tokens are all cached, if one is missing where they end."""
        if path and run.state.tail and path[-1].end == len(run.tokens) and not path[-1].state.tail:
            self._replace(path[-1], SavedState(path[-1].state.rows, run.state.tail))

    def _cut(self, node: Node, position: int) -> Node:
        """Cut a node in two at a position inside, and return the first part."""
        assert node.parent is not None, "the root has no tokens"
        at = position - node.start
        left, right = self._split(node.state, at)
        self.size -= node.size
        first = Node(node.parent, node.tokens[:at], node.start, left)
        first.priority, first.savers = node.priority, set(node.savers)
        self._record_job(first, node.groups, savable=False, keep_until=node.keep_until)
        first.children = {node.tokens[at]: node}
        node.parent.children[node.tokens[0]] = first
        node.parent, node.tokens, node.start, node.state = first, node.tokens[at:], position, right
        self.size += first.size + node.size
        return first

    def _replace(self, node: Node, state: SavedState) -> None:
        self.size -= node.size
        node.state = state
        self.size += node.size

    def _drop_tails(self, path: Sequence[Node]) -> None:
        """Drop the tails of a path but the first, the last ones and those where sequences part: a conversation would
        have two for each turn, each as large as hundreds of tokens."""
        with_tail = [node for node in path if node.state.tail]
        for node in with_tail[1:-MAX_LAST_TAILS]:
            if len(node.children) < 2:
                self._replace(node, SavedState(node.state.rows, b""))

    def _record_job(self, node: Node, groups: Iterable[str], savable: bool, keep_until: float) -> None:
        node.record_use(groups, savable, keep_until)
        if node.keep_until > self.now:
            self._order.keep(node)

    def _evict(self) -> None:
        """Remove leaves until the limit is met; runs with a lifetime last, if they have at most `MAX_LIFETIME_SHARE` of
        the memory."""
        if self.size <= self._limit:
            return
        self._order.end_lifetimes(self.now)
        while self.size > self._limit:
            leaf = self._order.next_leaf(spares_kept=self._order.kept_size <= MAX_LIFETIME_SHARE * self._limit)
            self._order.advance_clock(leaf)
            self.evictions += 1
            self._remove(leaf)

    def _remove(self, node: Node) -> None:
        """Remove a node with all that continues it, and its beginning if that is of no use alone."""
        parent = node.parent
        assert parent is not None, "the root stays"
        for below in node.subtree():
            self.size -= below.size
            self._order.remove(below)
        del parent.children[node.tokens[0]]
        if parent.parent is not None and not parent.children:
            self._order.add_leaf(parent)
            if not (self._cuts_state or parent.state.tail):
                self._remove(parent)


def _candidate(node: Node) -> tuple[float, int, int, Node]:
    """Return an entry of a heap that has the node with the highest priority first; parts of one run have the same."""
    usefulness, use = node.priority
    return -usefulness, -use, id(node), node
