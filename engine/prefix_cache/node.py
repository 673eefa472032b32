"""Nodes of the prefix tree: a run of tokens with its saved state."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from engine.model import SavedState

MAX_GROUPS = 64
"""Maximum number of affinity groups that a node remembers."""
EVERYBODY = "*"
"""Stands for more groups than `MAX_GROUPS`: the run belongs to no single one."""


class CachedRun(Struct, frozen=True):
    """The state of `tokens[start:]`, in a form that can be written to a file and inserted again."""

    tokens: tuple[int, ...]
    """The tokens from the beginning of the sequence to the end of the run."""
    start: int
    state: SavedState
    groups: frozenset[str] = frozenset()
    """Affinity groups of the jobs that had these tokens, and allow writing them to a disk."""

    @property
    def size(self) -> int:
        """Bytes of the state."""
        return self.state.size


class Node:
    """A run of tokens that continues the run of `parent`. Only the root has no tokens and no state."""

    __slots__ = (
        "__weakref__",
        "children",
        "groups",
        "keep_until",
        "parent",
        "priority",
        "savers",
        "start",
        "state",
        "tokens",
    )

    def __init__(self, parent: "Node | None", tokens: tuple[int, ...], start: int, state: SavedState) -> None:
        self.parent = parent
        self.tokens = tokens
        self.start = start
        """Position of the first token."""
        self.state = state
        self.children: dict[int, Node] = {}
        """Continuations by their first token."""
        self.groups: set[str] = set()
        """Affinity groups of the jobs that had these tokens."""
        self.savers: set[str] = set()
        """Groups of the jobs that allow writing them to a disk; empty names are among them."""
        self.keep_until = 0.0
        """Time, in the tree's clock, until which the run is evicted only if there is no other."""
        self.priority = (0.0, 0)
        """The leaf with the lowest priority is evicted first; the second number is the time of the last use."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def savable(self) -> bool:
        """True if the run may be written to a disk."""
        return bool(self.savers)

    @property
    def size(self) -> int:
        """Bytes of the state."""
        return self.state.size

    def record_use(self, groups: Iterable[str], savable: bool, keep_until: float) -> None:
        """Record a job that had these tokens: its affinity groups, whether it allows writing them to a disk, and the
        time until which they should remain."""
        names = set(groups)
        self.groups = _bounded(self.groups | names)
        if savable:
            self.savers = _bounded(self.savers | (names or {""}))
        self.keep_until = max(self.keep_until, keep_until)

    def forget_group(self, group: str) -> None:
        """Forget the jobs of an affinity group. The run stays savable if other ones allow that."""
        self.groups.discard(group)
        self.savers.discard(group)

    def path(self) -> list["Node"]:
        """Return the nodes from the root's child to this one."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def subtree(self) -> Iterator["Node"]:
        """Yield this node and all below it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    def run(self) -> CachedRun:
        """Return the node's content."""
        tokens = tuple(token for node in self.path() for token in node.tokens)
        return CachedRun(tokens, self.start, self.state, frozenset(self.savers - {""}))


def _bounded(groups: set[str]) -> set[str]:
    return groups if len(groups) <= MAX_GROUPS else {EVERYBODY}
