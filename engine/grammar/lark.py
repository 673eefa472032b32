"""A grammar in Lark, as it is put together: rules that get names, each once. Pure.

What a family writes around a call's parts is told in phrases: `$word` stands for a part, `~` for white space that may
be left out, and `«...»` for anything that may.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

from engine.json_schema import JSON


class Notation(Protocol):
    """Of a vocabulary: `engine.structured_output.compiler`."""

    def json(self, schema: JSON) -> str: ...

    def literal(self, text: str) -> str: ...


_PARTS = re.compile(r"(\$[a-z]+|[~«»])")
_OPTIONAL = {"«": "(", "»": ")?"}
_SPACE = r"( |\n {0,16}|\n\n)"


_CLOSING = re.compile(r'("(?:[^"\\]|\\.)*")? ?(<\[.*)?')


def pattern(regex: str) -> str:
    """Over all characters."""
    return "/(?s:" + regex.replace("/", r"\/") + ")/"


ANY = pattern(".*")


class Rules:
    def __init__(self, notation: Notation | None) -> None:
        """`notation`: None where only names are given to rules."""
        self._notation = notation
        self._names: dict[str, str] = {}
        """By what follows the name."""

    def text(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join([f"start: {start}", *(f"{name}{rest}" for rest, name in self._names.items())])

    def rule(self, body: str, option: str = "") -> str:
        """The name of a rule; `option`: `[lazy]`."""
        return self._named("r", f"{option}: {body}")

    def terminal(self, body: str) -> str:
        """The name of a terminal, which is read whole."""
        return self._named("T", f": {body}")

    def _named(self, kind: str, rest: str) -> str:
        return self._names.setdefault(rest, f"{kind}{len(self._names)}")

    def space(self) -> str:
        return f"{self.terminal(f'/{_SPACE}/')}?"

    def json(self, schema: JSON) -> str:
        """Raises GrammarError."""
        assert self._notation is not None, "it is needed for schemas"
        return self.rule(self._notation.json(schema))

    def lark(self, text: str) -> str:
        """A grammar within this one, with names of its own."""
        return self.rule(f"%lark {{\n{text}\n}}")

    def is_text(self, words: str) -> bool:
        """Whether they have no control token in them, so that a text may have them."""
        return "<[" not in self.literal(words)

    def literal(self, text: str) -> str:
        """A family's own words, with its control tokens."""
        assert self._notation is not None, "it is needed for control tokens"
        return self._notation.literal(text)

    def until(self, closing: str, text: str = ANY) -> str:
        """A text, as a terminal has it, up to what ends it."""
        match = _CLOSING.fullmatch(self.literal(closing))
        assert match is not None, "literals, and tokens"
        plain, tokens = match.groups()
        whole = self.terminal(f"({text}) {plain}" if plain else text)
        # A control token can't be part of a text, so the text ends by itself.
        return f"{whole} {tokens}" if tokens else self.rule(whole, "[lazy]")

    def phrase(self, phrase: str, parts: Mapping[str, str] | None = None) -> str:
        """`parts`: by their names, what stands for them in the grammar."""
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
        return bodies[0] if len(bodies) == 1 else self.rule(" | ".join(bodies))

    def row(self, items: Sequence[tuple[str, bool]], between: str) -> str:
        """One after the other; of each, whether it must be there."""
        rest = {True: "", False: ""}
        """What may follow, by whether something stands before it."""
        for body, required in reversed(items):
            here = {
                True: " ".join(filter(None, [between, body, rest[True]])),
                False: " ".join(filter(None, [body, rest[True]])),
            }
            rest = {begun: self.rule(here[begun] if required else f"{here[begun]} | {rest[begun]}") for begun in here}
        return rest[False]

    def unordered(self, items: Sequence[tuple[str, bool]], between: str) -> str:
        """As `row`, but in any order: there is a rule for each set of items, so only where these are few, and the
        grammar is not large."""
        if len(items) > MOST_UNORDERED or sum(map(len, self._names)) > LARGE:
            return self.row(items, between)

        @cache
        def rest(left: frozenset[int]) -> str:
            ways = [
                " ".join(filter(None, [between if len(left) < len(items) else "", items[n][0], rest(left - {n})]))
                for n in sorted(left)
            ]
            required = any(items[n][1] for n in left)
            return self.rule(" | ".join(ways if required else [*ways, ""])) if left else ""

        return rest(frozenset(range(len(items))))


MOST_UNORDERED = 4
"""Parameters of a function that may come in any order; with each more, their grammar doubles."""
LARGE = 12_000
"""Characters of a grammar; it may have five times as many."""


def string_literal(text: str) -> str:
    """A text to the letter, whatever it looks like."""
    return json.dumps(text, ensure_ascii=False)


def excluding(texts: Iterable[str], body: str = ANY) -> str:
    """For a terminal: a text in which none of these stand."""
    found = "|".join(map(_escaped, texts))
    return f"{body} & ~{pattern(f'.*({found}).*')}" if found else body


def other_than(texts: Iterable[str], body: str) -> str:
    """For a terminal: a text that is none of these."""
    taken = "|".join(map(_escaped, texts))
    return f"{body} & ~{pattern(f'({taken})')}" if taken else body


def _escaped(text: str) -> str:
    """For a regex of Rust's."""
    return re.sub(r"([\\.+*?()|\[\]{}^$#&\-~/])", r"\\\1", text).replace(r"\/", "/").replace("\n", r"\n")
