"""A recognizer of XGrammar's EBNF, as far as `engine.grammar.ebnf` writes it, without XGrammar."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from engine.model import FloatArray
from engine.tokenizer.vocabulary import Vocabulary

Stack = tuple[Any, ...]
"""Items that must follow, the first one last."""

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*") | \[(?P<inverted>\^?)(?P<class>(?:[^\]\\]|\\.)+)\] | Token\((?P<token>\d+)\)
  | TagDispatch\(loop_after_dispatch=false,\ excludes=\((?P<without>(?:"(?:[^"\\]|\\.)*"(?:,\ )?)+)\)\)
  | (?P<times>[*+?]|\{\d+(?:,\d*)?\}) | (?P<name>[A-Za-z_][\w.-]*) | (?P<sign>[()|])
    )""",
    re.VERBOSE,
)
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_ENDS = re.compile(r"(\\U[0-9a-f]{8}|\\u[0-9a-f]{4}|[A-Za-z0-9])(?:-(\\U[0-9a-f]{8}|\\u[0-9a-f]{4}|[A-Za-z0-9]))?")
_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Ebnf:
    """A grammar; texts are tried by `accepts`."""

    def __init__(self, text: str, name_of: Callable[[int], str] = str) -> None:
        """`name_of` returns the text of a control token."""
        rules = [line.split(" ::= ", 1) for line in text.split("\n")]
        self.rules: dict[str, Any] = {name: _Reader(body).whole() for name, body in rules}
        assert len(self.rules) == len(rules), "each rule has a name of its own"
        self.name_of = name_of

    def accepts(self, text: str) -> bool:
        return () in self.after(self.begin(), text)

    def begin(self) -> set[Stack]:
        return self._expanded({(("rule", "root"),)})

    def after(self, stacks: set[Stack], text: str) -> set[Stack]:
        for char in text:
            stacks = self._expanded({more for stack in stacks if stack for more in self._step(stack, char)})
        return stacks

    def after_token(self, stacks: set[Stack], id_: int, text: str) -> set[Stack]:
        """Return the stacks after a token, by its number and by its text."""
        by_number = {stack[:-1] for stack in stacks if stack and stack[-1] == ("token", id_)}
        return self._expanded(by_number) | self.after(stacks, text)

    def may_begin(self, stacks: set[Stack], data: bytes) -> bool:
        """True if the next character may begin with these bytes."""
        length = 1 + (data[0] >= 0xC0) + (data[0] >= 0xE0) + (data[0] >= 0xF0)
        missing, first = length - len(data), data[0] & (0x7F >> (length if length > 1 else 0))
        for byte in data[1:]:
            first = first << 6 | byte & 0x3F
        low, high = first << 6 * missing, (first + 1 << 6 * missing) - 1
        return any(_has_any(stack[-1], low, min(high, 0x10FFFF)) for stack in stacks if stack)

    def _step(self, stack: Stack, char: str) -> Iterator[Stack]:
        *rest, top = stack
        match top:
            case ("text", str(text)) if text[0] == char:
                yield (*rest, ("text", text[1:]))
            case ("class", inverted, ranges) if any(a <= char <= b for a, b in ranges) != inverted:
                yield (*rest,)
            case ("without", texts, tail) if not (tail + char).endswith(texts):
                yield (*rest, ("without", texts, (tail + char)[-max(map(len, texts)) :]))

    def _expanded(self, stacks: set[Stack]) -> set[Stack]:
        """Return the stacks that read a character, a token or the end next."""
        found, left = set[Stack](), list(stacks)
        while left:
            stack = left.pop()
            if stack in found:
                continue
            found.add(stack)
            if stack:
                left += self._alternatives(stack)
        kinds = ("text", "class", "token", "without")
        return {stack for stack in found if not stack or (stack[-1][0] in kinds and stack[-1] != ("text", ""))}

    def _alternatives(self, stack: Stack) -> Iterator[Stack]:
        *rest, top = stack
        match top:
            case ("text", "") | ("without", _, _):
                yield (*rest,)
            case ("rule", name):
                yield (*rest, self.rules[name])
            case ("one of", options):
                yield from ((*rest, each) for each in options)
            case ("in order", items):
                yield (*rest, *reversed(items))
            case ("repeated", item, least, most):
                if least == 0:
                    yield (*rest,)
                if most != 0:
                    yield (*rest, ("repeated", item, max(least - 1, 0), most and most - 1), item)


def _has_any(top: Any, low: int, high: int) -> bool:
    """True if an item may be a character between these."""
    match top:
        case ("text", str(text)):
            return low <= ord(text[0]) <= high
        case ("without", texts, tail) if low == high:
            return not (tail + chr(low)).endswith(texts)
        case ("class", False, ranges):
            return any(ord(a) <= high and low <= ord(b) for a, b in ranges)
        case ("class", True, ranges):
            return not any(ord(a) <= low and high <= ord(b) for a, b in ranges)
    return bool(top[0] == "without")


class _Reader:
    def __init__(self, body: str) -> None:
        self._body = body
        self._at = 0

    def whole(self) -> Any:
        found = self._options()
        assert self._at == len(self._body), f"not read: {self._body[self._at :]}"
        return found

    def _options(self) -> Any:
        options = [self._items()]
        while self._peek("|"):
            options.append(self._items())
        return ("one of", tuple(options))

    def _peek(self, sign: str) -> bool:
        match = _TOKEN.match(self._body, self._at)
        if match is None or match["sign"] != sign:
            return False
        self._at = match.end()
        return True

    def _items(self) -> Any:
        items: list[Any] = []
        while (match := _TOKEN.match(self._body, self._at)) is not None and match["sign"] not in ("|", ")"):
            self._at = match.end()
            if match["times"]:
                items.append(("repeated", items.pop(), *_times(match["times"])))
            elif match["sign"]:
                items.append(self._options())
                assert self._peek(")")
            else:
                items.append(_one(match))
        return ("in order", tuple(items))


def _one(match: re.Match[str]) -> Any:
    if match["text"]:
        return ("text", _decoded(match["text"][1:-1]))
    if match["class"]:
        assert _ENDS.sub("", match["class"]) == ""
        ends = [(_decoded(low), _decoded(high or low)) for low, high in _ENDS.findall(match["class"])]
        return ("class", bool(match["inverted"]), tuple(ends))
    if match["token"]:
        return ("token", int(match["token"]))
    if match["without"]:
        return ("without", tuple(_decoded(each[1:-1]) for each in _TEXT.findall(match["without"])), "")
    return ("rule", match["name"])


def _times(written: str) -> tuple[int, int | None]:
    if written in _SIGNS:
        return _SIGNS[written]
    least, comma, most = written[1:-1].partition(",")
    return int(least), (int(most) if most else None) if comma else int(least)


def _decoded(text: str) -> str:
    escapes = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(
        r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))",
        lambda found: escapes.get(found[3], found[3]) if found[3] else chr(int(found[1] or found[2], 16)),
        text,
    )


class EbnfGrammar:
    """A grammar that masks the tokens of a small vocabulary; see `engine.constraint`."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self._ebnf = Ebnf(text, vocabulary.name_of)
        self._vocabulary = vocabulary
        self._state = (self._ebnf.begin(), b"")

    def start(self) -> "EbnfGrammar":
        return self

    @property
    def mask_ready(self) -> bool:
        return True

    def compute_mask(self) -> None: ...

    def apply_mask(self, logits: FloatArray) -> None:
        for id_ in range(len(self._vocabulary)):
            allowed = self._ends if id_ in self._vocabulary.end_tokens else self._allows(id_)
            if not allowed:
                logits[id_] = -np.inf

    @property
    def _ends(self) -> bool:
        stacks, pending = self._state
        return () in stacks and not pending

    def _allows(self, token: int) -> bool:
        data = self._vocabulary.bytes_of(token)
        if len(data) == 1 and not self._state[1]:
            return (data.isascii() or 0xC2 <= data[0] <= 0xF4) and self._ebnf.may_begin(self._state[0], data)
        stacks, pending = _after(self._ebnf, *self._state, token, self._vocabulary)
        return self._ebnf.may_begin(stacks, pending) if pending else bool(stacks)

    def fits(self, token: int) -> bool:
        return False

    def accept(self, token: int) -> None:
        self._state = _after(self._ebnf, *self._state, token, self._vocabulary)

    def forced(self) -> Sequence[int]:
        return ()


def accepted(grammar: Ebnf, tokens: Collection[int], vocabulary: Vocabulary) -> bool:
    """True if a grammar accepts the tokens of an answer, of which an end token is none: XGrammar does not match it."""
    stacks, pending = grammar.begin(), b""
    for token in tokens:
        if token not in vocabulary.end_tokens:
            stacks, pending = _after(grammar, stacks, pending, token, vocabulary)
    return () in stacks


def _after(
    grammar: Ebnf, stacks: set[Stack], pending: bytes, token: int, vocabulary: Vocabulary
) -> tuple[set[Stack], bytes]:
    """Return the stacks after a token, and the bytes of a character that is not complete."""
    data = vocabulary.bytes_of(token)
    if not data:
        return grammar.after_token(stacks, token, vocabulary.name_of(token)), b""
    for byte in data:
        pending += bytes([byte])
        try:
            stacks, pending = grammar.after(stacks, pending.decode()), b""
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return set(), b""
    return stacks, pending
