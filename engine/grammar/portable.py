"""Rewrite a grammar into the part of Lark that llguidance and XGrammar both read. Pure.

XGrammar 0.2.8 reads `%json`, `%lark`, `%import common` and `<[token]>` as llguidance does. It reads no flags in
regexes, no line breaks in them, no sets within their classes, and no `&` of terminals. The rewritten grammar allows at
least the same texts: `\\d`, `\\w` and `\\s` are ASCII only in XGrammar, so they get all characters beyond it.
"""

import re

_PART = re.compile(
    r'"(?:[^"\\]|\\.)*"|//[^\n]*|(?P<also> & ~?)?(?P<regex>/(?:[^/\\]|\\.)+/)'
    r"|(?P<unread>[&~]|%(?!json|lark|ignore|import\s+common\b))",
    re.DOTALL,
)
_CLASS = r"\[(\^?)((?:[^\[\]\\]|\\.)+)\]"
_BOTH = re.compile(rf"\[(?:{_CLASS}|(\\.))&&\[\^((?:[^\[\]\\]|\\.)+)\]\]", re.DOTALL)
"""A class and a forbidden one, as `json_strings` and `json_patterns` write them."""
_UNIT = re.compile(rf"{_CLASS}|\\.|(?P<flag>\(\?s:)|(?P<dot>\.)|(?P<line>\n)|(?P<unread>\(\?(?!:)|\[)", re.DOTALL)
_SHORTHAND = re.compile(r"\\(.)", re.DOTALL)
_BEYOND_ASCII = "\x80-\U0010ffff"
_WIDENED = {"d": f"0-9{_BEYOND_ASCII}", "w": f"0-9A-Za-z_{_BEYOND_ASCII}", "s": rf" \t-\r{_BEYOND_ASCII}"}
"""Members of the sets that are Unicode's in llguidance, and ASCII's in XGrammar."""


class _Unread(Exception):
    """XGrammar cannot read a part of the grammar."""


def portable(text: str) -> str:
    """Return a grammar that both read; empty if there is none."""
    try:
        return _PART.sub(_rewritten, text)
    except _Unread:
        return ""


def _rewritten(part: re.Match[str]) -> str:
    if part["unread"]:
        raise _Unread
    if part["also"]:
        return ""
    return part[0] if part["regex"] is None else _UNIT.sub(_plain, _BOTH.sub(_one_class, part["regex"]))


def _one_class(both: re.Match[str]) -> str:
    """Return the class without the forbidden one, which can be a part of it only if it excludes characters itself."""
    inverted, listed, escape, forbidden = both.groups()
    return f"[^{listed}{forbidden}]" if inverted else f"[{listed or escape}]"


def _plain(unit: re.Match[str]) -> str:
    if unit["unread"]:
        raise _Unread
    if unit["flag"]:
        return "(?:"
    if unit["dot"]:
        return r"(.|\n)"
    inverted, members = unit[1], unit[2]
    if members is None:
        return f"[{_WIDENED[unit[0][1:]]}]" if unit[0][1:] in _WIDENED else unit[0].replace("\n", r"\n")
    return f"[{inverted}{_SHORTHAND.sub(_inverted_set if inverted else _set, members)}]".replace("\n", r"\n")


def _set(shorthand: re.Match[str]) -> str:
    """Return the members of a set that is a part of a class."""
    return _WIDENED.get(shorthand[1], shorthand[0])


def _inverted_set(shorthand: re.Match[str]) -> str:
    """Return a set whose members a class excludes: without those beyond ASCII, XGrammar's class is the wider one."""
    if shorthand[1].lower() in _WIDENED and shorthand[1].isupper():
        raise _Unread
    return shorthand[0]
