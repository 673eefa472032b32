"""Regexes of the characters of JSON strings (RFC 8259, 7). Data only."""

UNESCAPED = r'[^"\\\x00-\x1f]'
"""A character that stands for itself."""
SURROGATES = r"[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
"""A character of two UTF-16 units, after the first `\\u`."""
_UNIT = r"[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"
CHARACTER = rf'(?:{UNESCAPED}|\\["\\/bfnrt]|\\u(?:{_UNIT}|{SURROGATES}))'
"""A character in any spelling."""
