"""Write a Lark grammar in the EBNF of XGrammar, which SGLang's default backend reads. Pure.

The written grammar allows at least the same texts: of regexes and schemas, parts that EBNF lacks are wider, and there
is no lexer, whose lexemes are the longest ones. Verified with XGrammar 0.2.7.
"""

from collections import deque
from collections.abc import Callable, Mapping, Set

from msgspec import Struct

from engine.grammar import code_points
from engine.grammar.ebnf.expressions import (
    Characters,
    ControlToken,
    Expression,
    InnerGrammar,
    InOrder,
    OneOf,
    Repeated,
    RuleName,
    TextWithout,
    UnreadGrammar,
    Words,
)
from engine.grammar.ebnf.lark_reader import START, read_lark

MAX_EBNF = 65_536
"""Characters of a written grammar. XGrammar compiles as many in half a second."""
ROOT = "root"
_SIGNS = {(0, None): "*", (1, None): "+", (0, 1): "?"}
_SHORT = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


class _Scope(Struct):
    """A grammar whose rules have names of their own."""

    number: int
    rules: Mapping[str, Expression]


def ebnf(lark: str, name_of: Callable[[int], str], ends: Set[int] = frozenset()) -> str:
    """Return the grammar in EBNF; empty if there is none.

    `name_of` returns the name of a control token, and `ends` are the tokens that end the answer.
    """
    try:
        return _EbnfWriter(name_of, ends).text(lark)
    except (UnreadGrammar, RecursionError):  # brackets that are nested too deep
        return ""


class _EbnfWriter:
    def __init__(self, name_of: Callable[[int], str], ends: Set[int]) -> None:
        self._name_of = name_of
        self._ends = ends
        self._scopes: dict[str, _Scope] = {}
        """Grammars by their texts."""
        self._left: deque[tuple[str, Expression, _Scope]] = deque()
        """Rules to write, by name."""
        self._names: set[str] = set()
        self._texts: dict[tuple[str, ...], str] = {}
        """Names of the rules for any text without some."""

    def text(self, lark: str) -> str:
        """Return the rules that the first one needs. Raises UnreadGrammar."""
        self._grammar(lark)
        lines, size = list[str](), 0
        while self._left:
            name, rule, scope = self._left.popleft()
            lines.append(f"{name} ::= {self._written(rule, scope)}")
            size += len(lines[-1])
            if size > MAX_EBNF:
                raise UnreadGrammar(lark)
        return "\n".join([*lines, *(f"{name} ::= {_dispatch(texts)}" for texts, name in self._texts.items())])

    def _grammar(self, lark: str) -> str:
        """Return the name of a grammar's first rule. Raises UnreadGrammar."""
        scope = self._scopes.get(lark)
        if scope is None:
            scope = self._scopes[lark] = _Scope(len(self._scopes), read_lark(lark))
        return self._rule(START, scope)

    def _rule(self, key: str, scope: _Scope) -> str:
        """Return the name of a rule, which is to be written too. Raises UnreadGrammar."""
        if (rule := scope.rules.get(key)) is None:
            raise UnreadGrammar(key)
        name = f"{key}.{scope.number}" if scope.number or key != START else ROOT
        if name not in self._names:
            self._names.add(name)
            self._left.append((name, rule, scope))
        return name

    def _written(self, rule: Expression, scope: _Scope) -> str:
        """Return an expression. Raises UnreadGrammar."""
        match rule:
            case OneOf(options):
                return " | ".join(self._written(each, scope) for each in options)
            case InOrder(items) if items:
                return " ".join(self._in_brackets(each, scope, OneOf) for each in items)
            case InOrder() | Repeated(_, _, 0):
                return '""'
            case Repeated(item, least, most):
                return self._in_brackets(item, scope, (OneOf, InOrder, Repeated)) + _times(least, most)
        return self._one(rule, scope)

    def _in_brackets(self, rule: Expression, scope: _Scope, kinds: "type | tuple[type, ...]") -> str:
        """Return an expression, in brackets if it is of these kinds."""
        written = self._written(rule, scope)
        return f"({written})" if isinstance(rule, kinds) else written

    def _one(self, rule: Expression, scope: _Scope) -> str:
        match rule:
            case Words(text):
                return _literal(text)
            case Characters(ranges):
                return _class(ranges)
            case RuleName(name):
                return self._rule(name, scope)
            case InnerGrammar(lark):
                return self._grammar(lark)
            case TextWithout(excluded):
                return self._texts.setdefault(excluded, f"text.{len(self._texts)}")
            case ControlToken(id_):
                # XGrammar loses its place after `Token` if a text before it may contain the name, and takes end
                # tokens only where the grammar is complete.
                ways = [f"Token({id_})", _literal(self._name_of(id_)), *['""'] * (id_ in self._ends)]
                return f"({' | '.join(ways)})"
        raise AssertionError("the other expressions have parts")


def _dispatch(excluded: tuple[str, ...]) -> str:
    texts = ", ".join(map(_literal, excluded))
    return f"TagDispatch(loop_after_dispatch=false, excludes=({texts}))"


def _times(least: int, most: int | None) -> str:
    if least == most:
        return f"{{{least}}}"
    return _SIGNS.get((least, most)) or f"{{{least},{'' if most is None else most}}}"


def _literal(text: str) -> str:
    return '"' + "".join(_SHORT.get(char) or (char if char >= " " else f"\\u{ord(char):04x}") for char in text) + '"'


def _class(ranges: tuple[code_points.Range, ...]) -> str:
    """Return the class of the characters, or an inverted one if that is shorter; XGrammar inverts ASCII only."""
    others = code_points.complement(ranges)
    if 0 < len(others) <= len(ranges) and others[-1][1] < 128:
        return f"[^{''.join(map(_range, others))}]"
    return f"[{''.join(map(_range, ranges))}]"


def _range(ends: code_points.Range) -> str:
    first, last = ends
    return _character(first) if first == last else f"{_character(first)}-{_character(last)}"


def _character(code: int) -> str:
    char = chr(code)
    if char.isascii() and char.isalnum():
        return char
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
