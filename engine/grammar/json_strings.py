"""Rewrite a text's Lark grammar into a grammar for the text inside a JSON string. Pure.

JSON strings escape quotation marks, backslashes and control characters. llguidance reads the longest lexeme without
lookahead, so no lexeme may continue with a backslash where another begins with one: a regex becomes a rule with one
lexeme for each character and each escape.
"""

import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Set

from engine.constraint import GrammarError
from engine.grammar.json_characters import UNESCAPED
from engine.grammar.lark import string_literal
from engine.grammar.lark_common import LARK_COMMON

ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
"""Character -> its escape in JSON. Other control characters are not supported."""

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|\#[^\n]*|%import\b[^\n]*)
  | (?P<ignore>%ignore\b[^\n]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*")(?P<case>i?)
  | (?P<regex>/(?!/)(?:[^/\\\n]|\\.)+/)(?P<flags>[a-z]*)
  | (?P<unsupported>%(?:json|lark|regex|override|extend)(?![\w-])|[<&]|~(?!\s*\d))
  | (?P<name>%?[!?]?[A-Za-z_][\w-]*)
  | (?P<other>\.\.|->|.)
    """,
    re.VERBOSE,
)
_IMPORTS = re.compile(r"^%import[ \t]+common[ \t]*\(([^)\n]*)\)", re.MULTILINE)
_IMPORT = re.compile(r"%import[ \t]+common\.(\w+)(?:[ \t]*->[ \t]*(\w+))?")
_IGNORE = re.compile(r"^%ignore[ \t]+(\w+)", re.MULTILINE)
_RANGE = re.compile(r'("(?:[^"\\]|\\.)")\s*\.\.\s*("(?:[^"\\]|\\.)")')
_INLINED = (
    *("ESCAPED_STRING", "WS_INLINE", "WS", "CR", "LF", "NEWLINE"),
    *("SH_COMMENT", "CPP_COMMENT", "SQL_COMMENT", "C_COMMENT"),
)
"""Terminals of Lark's `common` module that match escaped characters."""


def inside_json_string(lark: str) -> str:
    """Return the grammar of the text inside a JSON string. Raises GrammarError for unsupported syntax."""
    lark = _IMPORTS.sub(_split_import, lark)
    kept_terminals = {alias or name for name, alias in _IMPORT.findall(lark) if name not in _INLINED}
    lark = _RANGE.sub(lambda found: f"/[{_in_class(found[1])}-{_in_class(found[2])}]/", lark)
    lark = _IMPORT.sub(_inlined_import, lark)
    # Lark can ignore terminals only, so ignored definitions stay terminals.
    ignored = [line for name in _IGNORE.findall(lark) for line in re.findall(rf"^{name}[ \t]*:[^\n]*", lark, re.M)]
    return "\n".join(
        ["".join(_rewritten(lark, kept_terminals)), *("".join(_rewritten(line, None)) for line in ignored)]
    )


def _split_import(found: re.Match[str]) -> str:
    return "\n".join(f"%import common.{name}" for name in re.findall(r"\w+", found[1]))


def _inlined_import(found: re.Match[str]) -> str:
    name, alias = found[1], found[2] or found[1]
    return f"{alias}: /{LARK_COMMON[name]}/" if name in _INLINED else found[0]


def _in_class(literal: str) -> str:
    char = _decoded(literal)
    return f"\\{char}" if char in "\\]^-[&~/" else char


def _decoded(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except json.JSONDecodeError as error:
        raise GrammarError(f"the literal {literal:.40} is not a valid JSON string") from error


def _rewritten(lark: str, kept_terminals: Set[str] | None) -> Iterator[str]:
    """Yield the rewritten tokens. Terminals become rules, except `kept_terminals`; None: all of them stay terminals."""
    for match in _TOKEN.finditer(lark):
        token = match[0]
        if match["unsupported"]:
            raise GrammarError(f"{token!r} is not supported in the grammar of a tool")
        if match["string"]:
            yield _escaped_literal(match["string"], match["case"])
        elif match["regex"]:
            yield _Regex(match["regex"][1:-1], match["flags"], as_rule=kept_terminals is not None).rewritten()
        elif kept_terminals is None:
            yield token
        elif match["ignore"]:
            yield from ("%ignore", *_rewritten(token.removeprefix("%ignore"), None))
        else:
            is_terminal = match["name"] and token.isupper() and token not in kept_terminals
            yield f"quoted_{token.lower()}" if is_terminal else token


def _escaped_literal(literal: str, case: str) -> str:
    """Return a literal for the escaped text. `case` is `i` if the literal ignores case, or empty."""
    text = _decoded(literal)
    if any(char < " " and char not in ESCAPES for char in text):
        raise GrammarError("a control character in a literal is not supported in the grammar of a tool")
    escaped = "".join(ESCAPES.get(char, char) for char in text)
    if case and escaped != text:
        raise GrammarError("a case-insensitive literal with escaped characters is not supported")
    return string_literal(escaped) + case


class _Regex:
    """A regex of the Rust syntax, rewritten from left to right."""

    _GROUP = re.compile(r"\((?:\?(?:P?<\w+>|(?P<flags>[a-zA-Z]*)(?P<off>-[a-zA-Z]+)?(?P<end>[:)])))?")
    _REPETITION = re.compile(r"([*+?]|\{[^}]*\})\??")
    """A repetition. The lazy form matches the same whole texts, so the rewritten one is greedy."""
    _ATOM = re.compile(
        r"\\(?:x\{[0-9a-fA-F]+\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]+\}|[pP]\{\^?\w+\}|[pP]\w|.)|.",
        re.DOTALL,
    )

    def __init__(self, pattern: str, flags: str, as_rule: bool) -> None:
        """Set `as_rule` for an expression of a rule; otherwise the regex becomes part of a terminal.

        Raises GrammarError.
        """
        self._pattern = pattern
        self._flags = flags
        self._as_rule = as_rule
        self._at = 0
        self._dotall = ["s" in flags]
        """For each open group, True if a dot matches line breaks."""
        if {"x", "m"} & {*flags}:
            raise GrammarError(f"the flags {flags!r} of a regex are not supported in the grammar of a tool")

    def rewritten(self) -> str:
        pieces = list(self._pieces())
        return f"({' '.join(pieces)})" if self._as_rule else f"/{''.join(pieces)}/{self._flags}"

    def _pieces(self) -> Iterator[str]:
        while self._at < len(self._pattern):
            char = self._pattern[self._at]
            if repetition := self._REPETITION.match(self._pattern, self._at):
                self._at = repetition.end()
                yield repetition[1]
                if self._REPETITION.match(self._pattern, self._at):
                    raise GrammarError("a repetition of a repetition is not supported in a regex")
            elif char == "(":
                yield self._group()
            elif char == "[":
                yield self._class()
            elif char in ")|":
                if char == ")" and len(self._dotall) > 1:
                    self._dotall.pop()
                self._at += 1
                yield char
            else:
                yield self._atom()

    def _group(self) -> str:
        match = self._GROUP.match(self._pattern, self._at)
        assert match is not None, "the group begins with a bracket"
        self._at = match.end()
        flags, off = match["flags"] or "", match["off"] or ""
        if {"x", "m", "i"} & {*flags}:
            raise GrammarError(f"the flags {flags!r} of a regex are not supported in the grammar of a tool")
        dotall = ("s" in flags or self._dotall[-1]) and "s" not in off
        if match["end"] == ")":
            self._dotall[-1] = dotall
            return ""
        self._dotall.append(dotall)
        return "("

    def _atom(self) -> str:
        match = self._ATOM.match(self._pattern, self._at)
        assert match is not None, "the regex has a character left"
        self._at = match.end()
        text = match[0]
        if text in ("^", "$", r"\b", r"\B", r"\A", r"\z"):
            raise GrammarError(f"{text!r} is not supported in a regex")
        if text == ".":
            return self._alternatives(UNESCAPED, [char for char in ESCAPES if char != "\n" or self._dotall[-1]])
        found = _matched_escapes(text)
        if found and text[1:2] not in tuple("DWSPsp"):
            return self._alternatives("", found)  # the character itself
        return self._alternatives(
            f"[{text}&&{UNESCAPED}]" if len(text) > 1 else re.escape(text).replace("/", r"\/"), found
        )

    def _class(self) -> str:
        """Read a class up to its closing bracket and return it with the escapes of its members."""
        begin = self._at
        self._at += 2 if self._pattern[self._at + 1 : self._at + 2] == "^" else 1
        if self._pattern[self._at : self._at + 1] == "]":
            self._at += 1
        while (match := self._ATOM.match(self._pattern, self._at)) and match[0] != "]":
            if match[0] == "[" or self._pattern.startswith(("&&", "--", "~~"), self._at):
                raise GrammarError("a nested class is not supported in a regex")
            self._at = match.end()
        self._at += 1
        text = self._pattern[begin : self._at]
        return self._alternatives(f"[{text}&&{UNESCAPED}]", _matched_escapes(text))

    def _alternatives(self, unescaped: str, escaped: list[str]) -> str:
        """Return an expression for the unescaped characters and the given escaped ones."""
        if self._as_rule:
            alternatives = [f"/{unescaped}/{self._flags}"] * bool(unescaped) + [
                string_literal(ESCAPES[char]) for char in escaped
            ]
            return f"({' | '.join(alternatives)})"
        alternatives = [unescaped] * bool(unescaped) + [f"(?-i:{re.escape(ESCAPES[char])})" for char in escaped]
        return f"(?:{'|'.join(alternatives)})"


def _matched_escapes(atom: str) -> list[str]:
    """Return the escaped characters that an atom matches."""
    readable = re.sub(r"\\[pP](\{\^?\w+\}|\w)", _category_members, atom)
    if readable != atom and atom[0] != "[":
        readable = f"[{readable}]"
    readable = re.sub(r"\\[xu]\{([0-9a-fA-F]+)\}", lambda found: rf"\U{int(found[1], 16):08x}", readable)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(readable)
    except (re.error, OverflowError) as error:
        raise GrammarError(f"{atom!r:.40} is not supported in a regex") from error
    return [char for char in ESCAPES if compiled.fullmatch(char)]


def _category_members(found: re.Match[str]) -> str:
    """Return the escaped characters of a Unicode class, as a regex."""
    name = found[1].strip("{}")
    other = ("P" in found[0][:2]) != name.startswith("^")
    chars = [char for char in ESCAPES if unicodedata.category(char).startswith(name.lstrip("^")) != other]
    return "".join(map(re.escape, chars)) or "a"
