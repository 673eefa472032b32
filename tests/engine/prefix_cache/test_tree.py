"""The prefix tree against a naive model: a list of the sequences that were inserted."""

import sys
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.model import SavedState
from engine.prefix_cache import CachedRun, PrefixTree, common_length

AMPLE = 10**6
SHARED = bytes(range(100, 140))


def state(tokens: Sequence[int], *, tail: bool = False) -> SavedState:
    """Return a state of a byte a token."""
    return SavedState(bytes(tokens), bytes([tokens[-1]]) if tail else b"")


def split(state: SavedState, at: int) -> tuple[SavedState, SavedState]:
    assert 0 < at < len(state.rows), "both parts have tokens"
    return SavedState(state.rows[:at], b""), SavedState(state.rows[at:], state.tail)


def run(tokens: bytes, start: int = 0, *groups: str, tail: bool = False) -> CachedRun:
    return CachedRun(tuple(tokens), start, state(tokens[start:], tail=tail), frozenset(groups))


def tree_of(*sequences: bytes, limit: int = AMPLE, cuts_state: bool = True, savable: int = AMPLE) -> PrefixTree:
    tree = PrefixTree(limit, split, cuts_state=cuts_state)
    for tokens in sequences:
        save(tree, tokens, cuts_state=cuts_state, savable=savable)
    return tree


def save(tree: PrefixTree, tokens: bytes, *groups: str, cuts_state: bool = True, savable: int = AMPLE) -> None:
    """Save what is missing, as the inference thread does."""
    if (start := tree.missing(tokens)) is not None:
        tree.insert(run(tokens, start, *groups, tail=not cuts_state), savable)


def hit(tree: PrefixTree, prompt: bytes) -> bytes:
    """Return the tokens that a restore of the match would give."""
    found = tree.match(prompt)
    tokens = b"".join(state.rows for state in found.states)
    assert len(tokens) - (len(found.states[-1].rows) if found.states else 0) <= found.n <= len(tokens)
    return tokens[: found.n]


def test_match_returns_the_longest_common_prefix_without_the_last_token() -> None:
    tree = tree_of(SHARED + b"one and more", SHARED + b"two and more tokens")
    assert hit(tree, SHARED + b"two and more tokens, and a question") == SHARED + b"two and more tokens"
    assert hit(tree, SHARED + b"one and") == SHARED + b"one an"
    assert hit(tree, SHARED[:20] + b"another") == SHARED[:20]
    assert hit(tree, b"nothing in common") == b""


def test_insert_of_sequences_with_a_shared_prefix_has_it_once() -> None:
    tree = tree_of(SHARED + b"one, which goes on", SHARED + b"two, which goes on")
    assert tree.size == len(SHARED) + 2 * len(b"one, which goes on")


def test_match_of_a_model_that_needs_tails_ends_where_a_sequence_ended() -> None:
    tree = tree_of(SHARED, SHARED + b"first turn with an answer", cuts_state=False)
    assert hit(tree, SHARED + b"first turn with another answer") == SHARED
    assert hit(tree, SHARED + b"first turn with an answer, then a second") == SHARED + b"first turn with an answer"
    assert hit(tree, SHARED) == b"", "its last token's logits are needed"
    tree = tree_of(SHARED + b"first turn with an answer", SHARED, cuts_state=False)
    assert hit(tree, SHARED + b"and another turn") == SHARED, "a later checkpoint inside a run"


KEPT, OTHERS = b"\xff" + SHARED[1:], [bytes([i]) * 20 for i in range(10)]


@pytest.mark.parametrize(
    ("limit", "keep_until", "stays"),
    [(100, 0.0, False), (100, 5.0, False), (100, 5.1, True), (79, 5.1, False)],
)
def test_run_with_a_lifetime_is_evicted_last_if_it_has_half_of_the_memory(
    limit: int, keep_until: float, stays: bool
) -> None:
    assert len(KEPT) == 40
    tree = PrefixTree(limit, split, cuts_state=True)
    tree.insert(run(KEPT), keep_until=keep_until)
    tree.now = 5.0
    for tokens in OTHERS:
        save(tree, tokens)
        assert tree.size <= limit
    assert hit(tree, KEPT + b"?") == (KEPT if stays else b"")
    assert hit(tree, OTHERS[-1] + b"?") == OTHERS[-1]
    tree.now = 6.0
    for tokens in OTHERS[:5]:
        save(tree, tokens)
    assert hit(tree, KEPT + b"?") == b""


def test_run_that_is_used_again_gets_a_lifetime() -> None:
    tree = tree_of(KEPT, OTHERS[0], limit=100)
    tree.record_use(KEPT[:30], keep_until=1.0)  # ends inside the run
    tree.record_use(KEPT, keep_until=0.5)
    tree.now = 0.4
    for tokens in OTHERS:
        save(tree, tokens)
    assert hit(tree, KEPT + b"?") == KEPT


def test_parts_of_a_run_with_a_lifetime_have_it_too() -> None:
    tree = PrefixTree(120, split, cuts_state=True)
    tree.insert(run(KEPT), keep_until=1.0)
    save(tree, KEPT[:20] + b"another continuation")
    for tokens in OTHERS:
        save(tree, tokens)
    assert hit(tree, KEPT + b"?") == KEPT
    assert hit(tree, KEPT[:20] + b"another continuation?") == KEPT[:20]


def test_eviction_removes_the_least_recently_used_leaf() -> None:
    one, two, three = (SHARED + bytes([i]) * 20 for i in range(3))
    tree = tree_of(one, two, limit=80)
    tree.record_use(one)
    save(tree, three)
    assert [hit(tree, tokens + b"?") for tokens in (one, two, three)] == [one, SHARED, three]


def calls_of_a_full_tree(runs: int) -> tuple[int, int]:
    """Return the Python calls of an insert that evicts, and those for each run that is chosen for the disk."""
    tree = PrefixTree(20 * runs, split, cuts_state=True)
    for number in range(runs + 1):
        tree.insert(CachedRun((number,) * 20, 0, SavedState(bytes(20), b"")), 20)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        save(tree, SHARED[:20])
        insert, calls = calls, 0
        chosen = tree.savable_runs(AMPLE)
    finally:
        sys.setprofile(None)
    assert tree.evictions == 2
    return insert, calls // len(chosen)


def test_eviction_and_choice_for_the_disk_search_no_large_tree() -> None:
    (insert, choice), (insert_of_large, choice_of_large) = calls_of_a_full_tree(50), calls_of_a_full_tree(1000)
    assert insert_of_large < 2 * insert
    assert choice_of_large < 2 * choice


def test_eviction_prefers_states_that_are_large_for_their_tokens() -> None:
    tree = PrefixTree(200, split, cuts_state=False)
    tree.insert(CachedRun(tuple(b"cheap" * 4), 0, SavedState(bytes(20), bytes(10))))
    tree.insert(CachedRun(tuple(b"large" * 4), 0, SavedState(bytes(20), bytes(120))))
    tree.insert(CachedRun(tuple(b"other" * 4), 0, SavedState(bytes(20), bytes(30))))
    assert [tree.match(text * 5).n for text in (b"cheap", b"large", b"other")] == [20, 0, 20]


def test_insert_of_a_state_above_the_limit_changes_nothing() -> None:
    tree = tree_of(SHARED, bytes(100), limit=60)
    assert (tree.size, hit(tree, SHARED + b"?")) == (len(SHARED), SHARED)


def test_insert_without_the_cached_beginning_is_ignored() -> None:
    tree = tree_of()
    tree.insert(run(SHARED, 10))
    assert (tree.size, tree.match(SHARED).n) == (0, 0)


@pytest.mark.parametrize(
    ("tokens", "missing"),
    [(SHARED, None), (SHARED + b"short", None), (SHARED + b"a turn of some length", 40), (b"tiny", None)],
)
def test_missing_skips_cached_and_tiny_parts(tokens: bytes, missing: int | None) -> None:
    assert tree_of(SHARED).missing(tokens) == missing


def test_savable_runs_end_with_the_savable_tokens() -> None:
    tree = tree_of(SHARED + b"an unstored secret", savable=len(SHARED))
    assert [bytes(run.tokens) for run in tree.savable_runs(AMPLE)] == [SHARED]
    save(tree, SHARED + b"an unstored secret")
    assert len(tree.savable_runs(AMPLE)) == 1, "it may be saved once a stored job had the same tokens"
    tree.insert(run(SHARED + b"an unstored secret"), AMPLE)
    assert [run.start for run in tree.savable_runs(AMPLE)] == [0, len(SHARED)]


def test_savable_runs_are_the_most_useful_within_the_limit_parents_first() -> None:
    one, two = SHARED + b"first conversation", SHARED + b"second conversation"
    tree = tree_of(one, two)
    tree.record_use(one)
    assert [bytes(run.tokens) for run in tree.savable_runs(len(one))] == [SHARED, one]


@pytest.mark.parametrize(("group", "left"), [("a", [SHARED, SHARED + b"b talks with many words"]), (None, [])])
def test_drop_removes_the_runs_of_a_group_alone(group: str | None, left: list[bytes]) -> None:
    tree = PrefixTree(AMPLE, split, cuts_state=True)
    for name in "ab":
        save(tree, SHARED + f"{name} talks with many words".encode(), name)
    tree.record_use(SHARED + b"a talks", "b")
    tree.drop(group)
    assert [bytes(run.tokens) for run in tree.savable_runs(AMPLE)] == left
    assert hit(tree, SHARED + b"a talks with many words") == (SHARED if left else b"")


@pytest.mark.parametrize(("other_saves", "left"), [(False, []), (True, [SHARED])])
def test_drop_leaves_a_shared_run_savable_only_if_another_group_allows_it(other_saves: bool, left: list[bytes]) -> None:
    tree = PrefixTree(AMPLE, split, cuts_state=True)
    save(tree, SHARED, "a")
    tree.record_use(SHARED, "b", AMPLE if other_saves else 0)
    tree.drop("a")
    assert [bytes(run.tokens) for run in tree.savable_runs(AMPLE)] == left
    assert [run.groups for run in tree.savable_runs(AMPLE)] == [{"b"}] * len(left)
    assert hit(tree, SHARED + b"?") == SHARED


def test_forget_removes_the_last_run_of_a_sequence() -> None:
    tree = tree_of(SHARED + b"first conversation", SHARED + b"second conversation")
    tree.forget(SHARED + b"first")
    assert hit(tree, SHARED + b"first") == SHARED
    assert tree.size == len(SHARED) + len(b"second conversation")


TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=12).map(
    lambda bits: bytes(bit * 9 for bit in bits for _ in range(4))
)
"""Sequences that share many prefixes."""


@settings(max_examples=60, stateful_step_count=40)
class CacheMachine(RuleBasedStateMachine):
    """Any order of insert, match, drop, forget and crash."""

    @initialize(limit=st.sampled_from([40, 90, AMPLE]), cuts_state=st.booleans())
    def create(self, limit: int, cuts_state: bool) -> None:
        self.limit, self.cuts_state = limit, cuts_state
        self.tree = PrefixTree(limit, split, cuts_state=cuts_state)
        self.inserted: set[bytes] = set()
        self.complete = limit == AMPLE
        """True if nothing was evicted or removed."""

    @rule(tokens=TOKENS, savable=st.integers(0, 50), group=st.sampled_from("abc"))
    def insert(self, tokens: bytes, savable: int, group: str) -> None:
        save(self.tree, tokens, group, cuts_state=self.cuts_state, savable=savable)
        if len(tokens) >= 16:
            self.inserted.add(tokens)

    @rule(tokens=TOKENS, start=st.integers(0, 20))
    def insert_from_a_file(self, tokens: bytes, start: int) -> None:
        if start < len(tokens):
            self.tree.insert(run(tokens, start, "d", tail=not self.cuts_state), AMPLE)
            self.complete = False

    @rule(tokens=TOKENS, seconds=st.integers(0, 3))
    def insert_for_some_time(self, tokens: bytes, seconds: int) -> None:
        whole = run(tokens, tail=not self.cuts_state)
        self.tree.insert(whole, keep_until=self.tree.now + seconds)
        self.complete = False

    @rule(seconds=st.integers(1, 2))
    def wait(self, seconds: int) -> None:
        self.tree.now += seconds

    @rule(prompt=TOKENS)
    def match(self, prompt: bytes) -> None:
        found = hit(self.tree, prompt)
        assert found == prompt[: len(found)], "a hit is a true prefix"
        assert len(found) < len(prompt), "the last token's logits are needed"
        if not self.cuts_state and found:
            assert self.tree.match(prompt).states[-1].tail == found[-1:], "the tail belongs to the end"
        if self.complete:
            assert len(found) >= self.expected(prompt)

    def expected(self, prompt: bytes) -> int:
        """Return the length of the prefix that must be found; runs below the minimum are not saved."""
        if self.cuts_state:
            return max((common_length(other, prompt[:-1]) - 15 for other in self.inserted), default=0)
        return max((len(other) for other in self.inserted if prompt[:-1].startswith(other)), default=0)

    @rule(tokens=TOKENS, savable=st.integers(0, 50), group=st.sampled_from("abc"))
    def use(self, tokens: bytes, savable: int, group: str) -> None:
        before = {run.tokens for run in self.tree.savable_runs(AMPLE)}
        self.tree.record_use(tokens, group, savable)
        added = {run.tokens for run in self.tree.savable_runs(AMPLE)} - before
        assert all(bytes(run) == tokens[: len(run)] and len(run) <= savable for run in added)

    @rule(group=st.sampled_from(["a", "b", "c", None]))
    def drop(self, group: str | None) -> None:
        self.tree.drop(group)
        self.complete = False
        if group is not None:
            assert all(group not in run.groups for run in self.tree.savable_runs(AMPLE))
        else:
            assert self.tree.savable_runs(AMPLE) == []

    @rule(tokens=TOKENS)
    def forget(self, tokens: bytes) -> None:
        self.tree.forget(tokens)
        self.complete = False

    @rule(limit=st.sampled_from([30, AMPLE]))
    def crash(self, limit: int) -> None:
        """Only the savable runs survive, as many as the disk has."""
        runs = self.tree.savable_runs(limit)
        assert sum(run.size for run in runs) <= limit
        self.tree = PrefixTree(self.limit, split, cuts_state=self.cuts_state)
        for each in runs:
            self.tree.insert(each, AMPLE)
        assert {run.tokens for run in self.tree.savable_runs(AMPLE)} <= {run.tokens for run in runs}
        self.complete = False

    @invariant()
    def bounded(self) -> None:
        nodes = [node for node in self.tree._root.subtree() if node.tokens]
        assert self.tree.size == sum(node.size for node in nodes) <= self.limit
        assert {node for node in nodes if not node.children} == self.tree._order.leaves
        if nodes:
            self.assert_next_leaves()
        prefixes = {bytes(node.run().tokens)[: node.end - i] for node in nodes for i in range(len(node.tokens))}
        assert len(prefixes) == sum(len(node.tokens) for node in nodes), "shared prefixes are counted once"
        for node in nodes:
            assert node.parent is not None
            assert node.start == node.parent.end
            assert node.savable <= (node.parent.savable or node.parent.parent is None), (
                "a savable run has its beginning"
            )

    def assert_next_leaves(self) -> None:
        """Compare the leaves that would be evicted next with those that a search through all leaves finds."""
        order, now = self.tree._order, self.tree.now
        order.end_lifetimes(now)
        assert order.kept_size == sum(node.size for node in self.tree._root.subtree() if node.keep_until > now)
        assert order.next_leaf(spares_kept=False) is min(order.leaves, key=lambda leaf: leaf.priority)
        unkept_first = min(order.leaves, key=lambda leaf: (leaf.keep_until > now, leaf.priority))
        assert order.next_leaf(spares_kept=True) is unkept_first


TestCache = pytest.mark.slow(CacheMachine.TestCase)


def test_insert_of_a_long_conversation_drops_tails_between_its_first_and_last_turns() -> None:
    turns = [bytes([number] * 20) for number in range(8)]
    conversation = [b"".join(turns[:n]) for n in range(1, 9)]
    tree = tree_of(*conversation[:3], conversation[1] + SHARED, *conversation[3:], cuts_state=False)
    found = [len(hit(tree, sequence + b"?")) for sequence in conversation]
    assert found == [20, 40, 40, 40, 100, 120, 140, 160], "two conversations part at 40"
    assert tree.size == 8 * 20 + len(SHARED) + 7
    again = PrefixTree(AMPLE, split, cuts_state=False)
    for each in tree.savable_runs(AMPLE):
        again.insert(each, AMPLE, past=True)
    assert [len(hit(again, sequence + b"?")) for sequence in conversation] == found


@given(TOKENS, TOKENS)
def test_common_length_is_that_of_the_naive_comparison(left: bytes, right: bytes) -> None:
    n = common_length(tuple(left), tuple(right))
    assert n == common_length(array("B", left), array("B", right))
    assert left[:n] == right[:n]
    assert n == min(len(left), len(right)) or left[n] != right[n]
