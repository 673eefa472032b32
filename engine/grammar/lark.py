"""Build a Lark grammar from rules; each rule gets one name. Pure.

Templates describe the syntax around the parts of a call: `$word` stands for a part, `~` for optional white space, and
`«...»` encloses anything optional.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

from engine.json_schema import JSON


class SchemaWriter(Protocol):
    """Writes schemas and control tokens for one vocabulary; see `engine.structured_output.compiler`."""

    def json(self, schema: JSON) -> str:
        """Return the right side of a rule for a schema. Raises GrammarError."""
        ...

    def literal(self, text: str) -> str:
        """Return the right side of a rule for a text that may contain names of control tokens."""
        ...


MAX_UNORDERED = 5
"""Parameters of a function that come in any order and at most once. Each further one doubles the grammar."""
LARGE_GRAMMAR = 12_000
"""Characters of a grammar beyond which parameters come in order; the compiler's limit is five times as high."""
_PARTS = re.compile(r"(\$[a-z]+|[~«»])")
_OPTIONAL = {"«": "(", "»": ")?"}
_SPACE = r"( |\n {0,16}|\n\n)"
_CLOSING = re.compile(r'("(?:[^"\\]|\\.)*")? ?(<\[.*)?')


def pattern(regex: str) -> str:
    """Return a terminal's regex in which a dot matches every character."""
    return "/(?s:" + regex.replace("/", r"\/") + ")/"


ANY = pattern(".*")
"""Terminal of any text."""


class Rules:
    """The rules and terminals of a grammar, without repetition."""

    def __init__(self, writer: SchemaWriter | None) -> None:
        """Pass None as `writer` to build rules without schemas and control tokens."""
        self._writer = writer
        self._names: dict[str, str] = {}
        """Rule names by the text that follows the name in the rule."""

    def text(self, start: str) -> str:
        """Return the whole grammar."""
        return "\n".join([f"start: {start}", *(f"{name}{rest}" for rest, name in self._names.items())])

    def rule(self, body: str, option: str = "") -> str:
        """Add a rule and return its name. `option` is `[lazy]` or empty."""
        return self._add("r", f"{option}: {body}")

    def named(self, name: str, body: str) -> str:
        """Add a rule under its own name, so that it can contain itself, and return the name."""
        return self._names.setdefault(f": {body}", name)

    def terminal(self, body: str) -> str:
        """Add a terminal, which the lexer reads as one unit, and return its name."""
        return self._add("T", f": {body}")

    def _add(self, kind: str, rest: str) -> str:
        return self._names.setdefault(rest, f"{kind}{len(self._names)}")

    def space(self) -> str:
        """Return an expression for optional white space."""
        return f"{self.terminal(f'/{_SPACE}/')}?"

    def json(self, schema: JSON) -> str:
        """Add a rule for a schema and return its name. Raises GrammarError."""
        assert self._writer is not None, "schemas need a writer"
        return self.rule(self._writer.json(schema))

    def lark(self, text: str) -> str:
        """Add a nested grammar, which has its own names, and return the rule's name."""
        return self.rule(f"%lark {{\n{text}\n}}")

    def is_text(self, words: str) -> bool:
        """True if the words have no control token, so that a text can contain them."""
        return "<[" not in self.literal(words)

    def literal(self, text: str) -> str:
        """Return literals for a family's words and control tokens."""
        assert self._writer is not None, "control tokens need a writer"
        return self._writer.literal(text)

    def until(self, closing: str, text: str = ANY) -> str:
        """Return a rule for a text, given as the terminal `text`, up to and including `closing`."""
        match = _CLOSING.fullmatch(self.literal(closing))
        assert match is not None, "the closing is a literal, then tokens"
        plain, tokens = match.groups()
        whole = self.terminal(f"({text}) {plain}" if plain else text)
        # A control token can't be part of a text, so the text ends by itself.
        return f"{whole} {tokens}" if tokens else self.rule(whole, "[lazy]")

    def expand(self, phrase: str, parts: Mapping[str, str] | None = None) -> str:
        """Return the expression of a template. `parts` maps each part's name to its expression."""
        made = []
        for piece in filter(None, _PARTS.split(phrase)):
            if piece == "~":
                made.append(self.space())
            elif piece.startswith("$"):
                made.append((parts or {})[piece[1:]])
            elif piece in _OPTIONAL:
                made.append(_OPTIONAL[piece])
            else:
                made.append(self.literal(piece))
        return " ".join(made)

    def one_of(self, bodies: Sequence[str]) -> str:
        """Return an expression for any one of the bodies."""
        return bodies[0] if len(bodies) == 1 else self.rule(" | ".join(bodies))

    def in_order(self, items: Sequence[tuple[str, bool]], between: str) -> str:
        """Return an expression for items in this order, given as pairs of item and "is required"."""
        rest = {True: "", False: ""}
        """Expression for the remaining items, keyed by "an item precedes them"."""
        for body, required in reversed(items):
            here = {
                True: " ".join(filter(None, [between, body, rest[True]])),
                False: " ".join(filter(None, [body, rest[True]])),
            }
            rest = {after: self.rule(here[after] if required else f"{here[after]} | {rest[after]}") for after in here}
        return rest[False]

    def in_any_order(self, items: Sequence[tuple[str, bool]], between: str) -> str:
        """Return an expression for items in any order, given as pairs of item and "is required".

        Few items occur at most once, since each set of remaining items has a rule. Among many, the optional ones may
        repeat, at most as often as there are any. Many required ones come in the given order.
        """
        small = sum(map(len, self._names)) <= LARGE_GRAMMAR
        bodies = [self.rule(body) for body, _ in items]
        required = frozenset(n for n, (_, needed) in enumerate(items) if needed)
        optional = [n for n in range(len(items)) if n not in required]
        if len(items) <= MAX_UNORDERED and small:
            return self._each_once(bodies, required, between)
        return self._all_required(bodies, required, optional, between, small and len(required) <= MAX_UNORDERED)

    def _each_once(self, bodies: Sequence[str], required: frozenset[int], between: str) -> str:
        @cache
        def rest(left: frozenset[int]) -> str:
            first = between if len(left) < len(bodies) else ""
            found = [" ".join(filter(None, [first, bodies[n], rest(left - {n})])) for n in sorted(left)]
            return self.rule(" | ".join(found if left & required else [*found, ""])) if left else ""

        return rest(frozenset(range(len(bodies))))

    def _all_required(
        self, bodies: Sequence[str], required: frozenset[int], optional: Sequence[int], between: str, any_order: bool
    ) -> str:
        most = len(optional)
        other = self.rule(" | ".join(bodies[n] for n in optional)) if optional else ""
        if not required:
            return f"({other} ({between} {other}){{0,{most - 1}}})?"
        before = f"({other} {between}){{0,{most}}}" if optional else ""
        after = f"({between} {other}){{0,{most}}}" if optional else ""

        @cache
        def rest(left: frozenset[int]) -> str:
            follows = {n: f"{between} {rest(left - {n})}" if len(left) > 1 else after for n in sorted(left)}
            chosen = follows if any_order else {min(left): follows[min(left)]}
            return self.rule(" ".join([before, f"({' | '.join(f'{bodies[n]} {more}' for n, more in chosen.items())})"]))

        return rest(required)


def string_literal(text: str) -> str:
    """Return a Lark literal that matches the text exactly."""
    return json.dumps(text, ensure_ascii=False)


def excluding(texts: Iterable[str], body: str = ANY) -> str:
    """Return a terminal for texts that contain none of these."""
    found = "|".join(map(_escaped, texts))
    return f"{body} & ~{pattern(f'.*({found}).*')}" if found else body


def not_equal_to(texts: Iterable[str], body: str) -> str:
    """Return a terminal for texts that equal none of these."""
    excluded = "|".join(map(_escaped, texts))
    return f"{body} & ~{pattern(f'({excluded})')}" if excluded else body


def _escaped(text: str) -> str:
    """Return a regex in the Rust syntax that matches the text exactly."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~/])", r"\\\1", text).replace(r"\/", "/").replace("\n", r"\n")
