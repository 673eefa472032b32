"""Beginnings of strings that match a regular expression: the first character that spoils a match is found. Pure.

The expression becomes a nondeterministic automaton, whose sets of states are a deterministic one that is made as the
texts need it. Python's parser of expressions reads it, so that both agree.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

MAX_NODES = 4096
"""Nodes of an automaton at most; larger expressions are verified at the end of a string only."""
MAX_STEPS = 4096
"""Remembered steps of an automaton."""
ACCEPT = 0
INSIDE, ENDED, BEFORE_NEWLINE = range(3)
"""Phases: before any `$`; at the end of the text; before a newline at its end, where `$` matches too."""
CATEGORIES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda character: character.isalnum() or character == "_",
}
State: TypeAlias = tuple[int, int]
"""Node and phase."""
_parse: Callable[[str], Any] = importlib.import_module("re._parser").parse


class Unsupported(Exception):
    """The expression needs more than an automaton, or a larger one."""


class PatternNode(NamedTuple):
    nexts: tuple[int, ...]
    matches: Callable[[str], bool] | None = None
    """Test of the character that leads to the next node; None if none is needed."""
    end: str = ""
    """`$` or `\\Z` if the node is passed at the end of the text only."""


class Prefixes:
    """Automaton of one expression that is searched in texts. Set of states: what is possible after a beginning."""

    def __init__(self, pattern: str) -> None:
        """Raises Unsupported."""
        tree = _parse(pattern)
        if tree.state.flags & ~re.UNICODE:
            raise Unsupported
        self._nodes: list[PatternNode] = [PatternNode(())]
        anywhere = self._sequence(list(tree), ACCEPT, at_start=False)
        start = self._sequence(list(tree), ACCEPT, at_start=True)
        self._live = self._find_live()
        self._again = self._closure([(anywhere, INSIDE)])
        self.start = self._closure([(start, INSIDE)]) | self._again
        self._steps: dict[tuple[frozenset[State], str], frozenset[State]] = {}

    @property
    def refuses(self) -> bool:
        """False if any beginning can be completed, as without `^`."""
        return not self._again

    def step(self, states: frozenset[State], character: str) -> frozenset[State]:
        """Return the states after another character; none if no text that begins so matches."""
        if (ACCEPT, INSIDE) in states:
            return states
        found = self._steps.get((states, character))
        if found is None:
            if len(self._steps) >= MAX_STEPS:
                self._steps.clear()
            found = self._closure(self._after(states, character)) | self._again
            self._steps[states, character] = found
        return found

    def _after(self, states: Iterable[State], character: str) -> Iterator[State]:
        for id_, phase in states:
            node = self._nodes[id_]
            if phase == BEFORE_NEWLINE and character == "\n" and id_ == ACCEPT:
                yield ACCEPT, ENDED
            elif node.matches is not None and node.matches(character):
                if phase == INSIDE:
                    yield node.nexts[0], INSIDE
                elif phase == BEFORE_NEWLINE and character == "\n":
                    yield node.nexts[0], ENDED

    def _closure(self, states: Iterable[State]) -> frozenset[State]:
        """Return the live states that are reached without a character."""
        found, todo = set(), list(states)
        while todo:
            state = todo.pop()
            if state not in found and state in self._live:
                found.add(state)
                todo += self._free(state)
        return frozenset(found)

    def _free(self, state: State) -> list[State]:
        """Return the states that are reached from a state without a character."""
        id_, phase = state
        node = self._nodes[id_]
        if node.matches is not None:
            return []
        phases = {
            "": [phase],
            "$": [ENDED, BEFORE_NEWLINE] if phase == INSIDE else [phase],
            "\\Z": [] if phase == BEFORE_NEWLINE else [ENDED],
        }[node.end]
        return [(each, later) for each in node.nexts for later in phases]

    def _find_live(self) -> set[State]:
        """Return the states from which a match can be completed."""
        before: dict[State, list[State]] = {}
        for id_, node in enumerate(self._nodes):
            for phase in (INSIDE, ENDED, BEFORE_NEWLINE):
                for later in self._followers((id_, phase), node):
                    before.setdefault(later, []).append((id_, phase))
        live, todo = set[State](), [(ACCEPT, INSIDE), (ACCEPT, ENDED), (ACCEPT, BEFORE_NEWLINE)]
        while todo:
            state = todo.pop()
            if state not in live:
                live.add(state)
                todo += before.get(state, ())
        return live

    def _followers(self, state: State, node: PatternNode) -> list[State]:
        if node.matches is None:
            return self._free(state)
        if state[1] == INSIDE:
            return [(node.nexts[0], INSIDE)]
        return [(node.nexts[0], ENDED)] if state[1] == BEFORE_NEWLINE and node.matches("\n") else []

    def _add(self, node: PatternNode) -> int:
        if len(self._nodes) >= MAX_NODES:
            raise Unsupported
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _sequence(self, parts: list[Any], following: int, at_start: bool | None) -> int:
        """Add the nodes of parts that follow each other; return the first.

        `at_start`: True if `^` matches before them; None if that depends on the text.
        """
        for index in range(len(parts) - 1, -1, -1):
            starts = at_start if all(_is_empty(each) for each in parts[:index]) else None
            kind, value = parts[index]
            following = self._part(kind, value, following, starts)
        return following

    def _part(self, kind: Any, value: Any, following: int, at_start: bool | None) -> int:
        name = str(kind)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._add(PatternNode((following,), _test(name, value)))
        if name == "AT":
            return self._place(str(value), following, at_start)
        if name == "BRANCH":
            return self._add(PatternNode(tuple(self._sequence(list(each), following, at_start) for each in value[1])))
        if name == "SUBPATTERN" and not value[1] and not value[2]:
            return self._sequence(list(value[3]), following, at_start)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, repeated = value
            return self._repeated(least, most, repeated, following)
        raise Unsupported

    def _place(self, where: str, following: int, at_start: bool | None) -> int:
        if where in ("AT_BEGINNING", "AT_BEGINNING_STRING") and at_start is not None:
            return following if at_start else self._add(PatternNode(()))
        if where in ("AT_END", "AT_END_STRING"):
            return self._add(PatternNode((following,), end="$" if where == "AT_END" else "\\Z"))
        raise Unsupported

    def _repeated(self, least: int, most: Any, parts: Any, following: int) -> int:
        if _has_place(parts):
            raise Unsupported
        body = list(parts)
        if str(most) == "MAXREPEAT":
            loop = self._add(PatternNode(()))
            self._nodes[loop] = PatternNode((self._sequence(body, loop, None), following))
            following = loop
        else:
            skipped = following
            for _ in range(most - least):
                following = self._add(PatternNode((self._sequence(body, following, None), skipped)))
        for _ in range(least):
            following = self._sequence(body, following, None)
        return following


@lru_cache(maxsize=256)
def prefixes(pattern: str) -> Prefixes | None:
    """Return the automaton of an expression; None if it cannot refuse a beginning."""
    try:
        found = Prefixes(pattern)
    except (Unsupported, re.error, RecursionError, OverflowError):
        return None
    return found if found.refuses else None


def _is_empty(part: Any) -> bool:
    """True for parts that match no character."""
    return str(part[0]) == "AT"


def _has_place(parts: Any) -> bool:
    """True if an expression inside a repetition depends on its place."""
    return "AT_" in str(list(parts))


def _test(name: str, value: Any) -> Callable[[str], bool]:
    """Return the test of a character."""
    if name == "ANY":
        return lambda character: character != "\n"
    if name == "IN":
        tests = [_test(str(kind), each) for kind, each in value if str(kind) != "NEGATE"]
        wanted = str(value[0][0]) != "NEGATE"
        return lambda character: any(test(character) for test in tests) is wanted
    if name == "RANGE":
        low, high = value
        return lambda character: low <= ord(character) <= high
    if name == "CATEGORY":
        category = str(value)
        test = CATEGORIES[category.replace("_NOT_", "_")]
        wanted = "_NOT_" not in category
        return lambda character: test(character) is wanted
    if name not in ("LITERAL", "NOT_LITERAL"):
        raise Unsupported
    wanted = name == "LITERAL"
    return lambda character: (ord(character) == value) is wanted
