r"""Rewrite the pattern of a text into a pattern of its JSON, in which each character may be escaped. Pure.

A pattern describes the text, in which `é` is one character; its JSON may have `é`, `\u00e9` or `\u00E9`. Each part of
the pattern that matches one character becomes an alternative of the character itself and its escapes (RFC 8259, 7).
"""

import re
import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache

from engine.grammar.code_points import Range, common, merged
from engine.grammar.json_characters import SURROGATES, UNESCAPED

MAX_PATTERN = 12_000
"""Characters of a rewritten pattern. The compiler rewrites larger ones, with short escapes only."""
MAX_UNITS = 2_000
"""Characters of the `\\u` escapes of one class. The last half of its characters stays unescaped if they take more."""
_SPECIAL = ".+*?()|[]{}^$#&-~"
"""Characters that mean something else in a regex, or in a class."""
_HEX = "[0-9a-fA-F]"

_BACKSLASH = r"\\"
_SHORTHAND = re.compile(r"\\.", re.DOTALL)
_EXACT = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[A-Za-z0-9_]", r"\W": "[^A-Za-z0-9_]", r"\/": "/"}
"""Classes as in JavaScript and in llguidance's schema compiler; those of its grammars have every script."""
_SHORT = {'"': '"', "\\": r"\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
"""Character -> the regex of its escape after the backslash."""
_ESCAPABLE = ((0x00, 0x1F), *((ord(char), ord(char)) for char in "\"&'+/<=>\\`"), (0x7F, 0xFFFF))
"""Characters that encoders escape, for JSON itself or for JSON inside HTML and ASCII; others have one spelling."""
_ESCAPED = tuple((ord(char), ord(char)) for char in '"\\\b\f\n\r\t')
"""Characters that have no spelling but a short escape."""
_BLOCKS = (range(0xD800), range(0xE000, 0x10000))
"""Characters of one UTF-16 unit."""
_LONG = "".join(map(chr, (0x10000, 0x104A0, 0x1D49C, 0x1D7CE, 0x1F600, 0x20000, 0x10FFFF)))
"""Characters of two UTF-16 units, of each kind that a class of letters, digits or white space may match."""
_NAMES_LONG = re.compile(r"\\U00(?:0[1-9a-fA-F]|10)|\\u[0-9a-f]{4}-|[\U00010000-\U0010ffff]")
"""Part of a class that names characters of two units, or those of a category."""

_PART = re.compile(
    r"""
    (?P<open>\((?:\?:|\?P?<[A-Za-z_]\w*>)?)(?!\?)
  | (?P<end>[)|])
  | (?P<repetition>(?:[*+?]|\{\d+(?:,\d*)?\}))\??
  | (?P<class>\[\^?\]?(?:\\.|[^\\\]\[])*\])
  | (?P<one>\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[xu]\{[0-9a-fA-F]+\}|p\{\w+\}|[dDwWsStnrfv]|[^\w\s])
    |[^\\^$()\[\]{}*+?|])
    """,
    re.VERBOSE | re.DOTALL,
)
_PROPERTY = re.compile(r"\\p\{(\w+)\}")
_NUMBER = re.compile(r"\\[xu]\{([0-9a-fA-F]+)\}")


def escaped_pattern(pattern: str) -> str | None:
    """Return the regex of the JSON of the texts in which the pattern is found.

    None if it cannot be rewritten, or if its texts have no characters that encoders escape.
    """
    found = text_pattern(pattern)
    return found if found is not None and f"{_BACKSLASH}(?:" in found else None


def text_pattern(pattern: str) -> str | None:
    """Return the regex of the JSON of the texts in which the pattern is found; None if it cannot be rewritten."""
    return _rewritten(pattern, is_name=False)


def name_pattern(pattern: str) -> str | None:
    """Return the regex of the JSON of the names in which the pattern is found; a name has one spelling.

    None if the pattern cannot be rewritten.
    """
    return _rewritten(pattern, is_name=True)


def _rewritten(pattern: str, is_name: bool) -> str | None:
    body = pattern.removeprefix("^")
    ends = body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2 == 1
    pieces = _pieces(body.removesuffix("$") if ends else body, is_name)
    if pieces is None:
        return None
    anything = f"{_one('.', is_name, dotall=True)}*"
    begin, end = "" if pattern.startswith("^") else anything, "" if ends else anything
    found = f"{begin}(?:{''.join(pieces)}){end}"
    return found if len(found) <= MAX_PATTERN else None


def _pieces(body: str, is_name: bool) -> list[str] | None:
    pieces: list[str] = []
    at, depth = 0, 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            return None
        at = part.end()
        depth += bool(part["open"]) - (part["end"] == ")")
        piece = _piece(part, is_name)
        if piece is None or depth < 0:
            return None
        pieces.append(piece)
    return pieces if depth == 0 else None


def _piece(part: re.Match[str], is_name: bool) -> str | None:
    if part["open"]:
        return "(?:"
    atom = part["class"] or part["one"]
    return part["end"] or part["repetition"] if atom is None else _one(atom, is_name)


@lru_cache(maxsize=1000)
def _one(atom: str, is_name: bool, dotall: bool = False) -> str | None:
    """Return the regex of the JSON of the characters that an atom matches; None if Python cannot read the atom."""
    found = _ranges(_readable(atom), dotall)
    if found is None:
        return None
    ranges, has_pairs = found
    escapable = common(ranges, _ESCAPED if is_name else _ESCAPABLE)
    escapes = (
        _short_escapes(escapable) if is_name else [*_short_escapes(escapable), *_long_escapes(escapable, has_pairs)]
    )
    unescaped = _unescaped(atom) if any(map(_has_unescaped, ranges)) else ""
    if not escapes:
        return unescaped or None
    alternatives = filter(None, (f"{_BACKSLASH}(?:{'|'.join(escapes)})", unescaped))
    return f"(?:{'|'.join(alternatives)})"


def _readable(atom: str) -> str:
    """Return an atom as Python writes it."""
    readable = _NUMBER.sub(lambda found: rf"\U{int(found[1], 16):08x}", _PROPERTY.sub(_members, atom))
    return readable if readable == atom or atom.startswith("[") else f"[{readable}]"


def _short_escapes(ranges: Sequence[Range]) -> list[str]:
    """Return the regex of the short escapes of all characters in the ranges, after the backslash."""
    short = [escape for char, escape in _SHORT.items() if any(first <= ord(char) <= last for first, last in ranges)]
    return [f"[{''.join(short)}]"] if short else []


def _long_escapes(ranges: Sequence[Range], has_pairs: bool) -> list[str]:
    """Return regexes of the `\\u` escapes of the characters in the ranges, and of pairs of them."""
    units = _units(ranges)
    return [f"u{SURROGATES}"] * has_pairs + ([f"u{units}"] if units else [])


def _has_unescaped(characters: Range) -> bool:
    """True if one of the characters may stand for itself in JSON."""
    return any(chr(n) not in '"\\' for n in range(max(characters[0], 32), characters[1] + 1))


def _unescaped(atom: str) -> str:
    """Return the regex of the characters of an atom that stand for themselves in JSON."""
    if atom == ".":
        return UNESCAPED
    if len(atom) == 1:
        return rf"\{atom}" if atom in _SPECIAL else atom
    exact = _SHORTHAND.sub(lambda found: _EXACT.get(found[0], found[0]), atom)
    return f"[{exact}&&{UNESCAPED}]"


def _members(found: re.Match[str]) -> str:
    """Return the characters of a general category, for a class of Python. Scripts have none."""
    return _category(found[1])


@lru_cache(maxsize=64)
def _category(name: str) -> str:
    members = [n for block in _BLOCKS for n in block if unicodedata.category(chr(n)).startswith(name)]
    return "".join(rf"\u{first:04x}-\u{last:04x}" for first, last in merged((n, n) for n in members))


def _ranges(readable: str, dotall: bool) -> tuple[list[Range], bool] | None:
    """Return the code points of one unit that an atom matches, and "matches every other one".

    Regex languages differ in `\\w`, `\\d` and `\\s` beyond ASCII: only characters that match either way are returned.
    """
    flags = re.DOTALL if dotall else re.NOFLAG
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unicode, plain = re.compile(f"(?:{readable})+", flags), re.compile(f"(?:{readable})+", flags | re.ASCII)
    except (re.error, OverflowError):
        return None
    found = [
        [(match.start() + offset, match.end() - 1 + offset) for block, offset in _block_texts()
         for match in compiled.finditer(block)]
        for compiled in (unicode, plain)
    ]  # fmt: skip
    pairs = all(compiled.fullmatch(_LONG) for compiled in (unicode, plain)) and not _NAMES_LONG.search(readable)
    return common(*found), pairs


@cache
def _block_texts() -> list[tuple[str, int]]:
    """Return the characters of each block, with the first one's number."""
    return [("".join(map(chr, block)), block.start) for block in _BLOCKS]


def _units(ranges: Sequence[Range]) -> str:
    """Return the regex of the four hexadecimal digits of all numbers in the ranges, or in the first of them."""
    found = _digits(ranges, 4)
    return found if len(found) <= MAX_UNITS else _units(ranges[: len(ranges) // 2])


def _digits(ranges: Sequence[Range], n: int) -> str:
    """Return the regex of `n` hexadecimal digits for all numbers in the ranges; empty if there are none."""
    size = 16 ** (n - 1)
    firsts: dict[str, list[int]] = {}
    for digit in range(16):
        first = digit * size
        inner = common(ranges, [(first, first + size - 1)])
        if inner:
            firsts.setdefault(_last_digits([(a - first, b - first) for a, b in inner], n - 1), []).append(digit)
    alternatives = [f"{_digit(digits)}{rest}" for rest, digits in firsts.items()]
    return f"(?:{'|'.join(alternatives)})" if len(alternatives) > 1 else "".join(alternatives)


def _last_digits(ranges: Sequence[Range], n: int) -> str:
    """Return the regex of the `n` digits after the first one; empty if there are none."""
    if n == 0:
        return ""
    return f"{_HEX}{{{n}}}" if ranges == [(0, 16**n - 1)] else _digits(ranges, n)


def _digit(digits: list[int]) -> str:
    """Return the class of hexadecimal digits, in both cases."""
    return f"[{''.join(f'{n:x}{n:X}' if n > 9 else str(n) for n in digits)}]"
