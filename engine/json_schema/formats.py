r"""Formats of texts: the enforced ones, and patterns that make some of them exact. Pure.

A format that no specification of JSON Schema defines forbids nothing.
"""

from collections.abc import Mapping

from engine.json_schema.values import JSON, Schema, with_all_of, without

FORMATS = frozenset(("date", "date-time", "duration", "hostname", "ipv4", "ipv6", "time", "uuid"))
"""Formats that llguidance compiles. Formats with characters that encoders escape, such as `/`, are patterns."""

STRICTER = {"idn-email": "email", "idn-hostname": "hostname", "iri": "uri"}
"""Formats of texts in any script -> the stricter format that replaces each; its texts are valid in both."""

MAX_HOSTNAME = 253
"""Characters (RFC 1035)."""

_YEAR = "([1-9].{3}|0[1-9].{2}|00[1-9].|000[1-9])"
_LEAP = "(..(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DAY = f"(.{{4}}-([^0].|0[^2])-..|.{{4}}-02-([01].|2[0-8])|{_LEAP}-02-29)"
_CHAR = r"([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_CHAR_WITHOUT_COLON = r"([A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})"
_CHAR_OF_USER = r"([A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})"
_CHAR_OF_HOST = r"[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}"
_NUMBER = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_NUMBER}(\.{_NUMBER}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"({_H16}:{_H16}|{_IPV4})"
_IPV6 = "|".join(
    (
        *(f"({_H16}:){{6}}{_LS32}", f"::({_H16}:){{5}}{_LS32}"),
        *(f"(({_H16}:){{0,{n}}}{_H16})?::({_H16}:){{{4 - n}}}{_LS32}" for n in range(5)),
        *(f"(({_H16}:){{0,5}}{_H16})?::{_H16}", f"(({_H16}:){{0,6}}{_H16})?::"),
    )
)
_USER = f"({_CHAR_OF_USER}*@)?"
_HOST = rf"//{_USER}(\[({_IPV6})\]|({_CHAR_OF_HOST})*)(:[0-9]*)?"
_PATH = f"(/{_CHAR}*)*"
_POINTER = "(/([^~/]|~[01])*)*"
_SCHEME = rf"[A-Za-z][A-Za-z0-9+.-]*:({_HOST}{_PATH}|/({_CHAR}+{_PATH})?|{_CHAR}+{_PATH})?"
_QUERY = rf"(\?({_CHAR}|[/?])*)?(#({_CHAR}|[/?])*)?"
_URI = rf"^{_SCHEME}{_QUERY}$"
_REFERENCE = rf"^({_SCHEME}|{_HOST}{_PATH}|/({_CHAR}+{_PATH})?|{_CHAR_WITHOUT_COLON}+{_PATH}|){_QUERY}$"

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_EMAIL = rf"^{_ATEXT}(\.{_ATEXT})*@({_LABEL}(\.{_LABEL})*|\[{_IPV4}\])$"

_VARIABLE = r"(\w|%[0-9A-Fa-f]{2})(\.?(\w|%[0-9A-Fa-f]{2}))*(\*|:[1-9][0-9]{0,3})?".replace(r"\w", "[A-Za-z0-9_]")
_TEMPLATE = (
    rf"^([!#$&(-;=?-\[\]_a-z~\u{{a0}}-\u{{d7ff}}]|%[0-9A-Fa-f]{{2}}"
    rf"|\{{[+#./;?&]?{_VARIABLE}(,{_VARIABLE})*\}})*$"
)

_REPETITION = r"(([*+?]|\{([0-9]{1,3},?|0,[0-9]{1,3}|1,[1-9][0-9]{0,2})\})\??)?"
_RANGE = "|".join(
    f"{chr(n)}-[{chr(n + 1)}-{last}]" for first, last in ("az", "AZ", "09") for n in range(ord(first), ord(last))
)
_CLASS = rf"\[\^?({_RANGE}|[^\\\]\[\^&|~\x00-\x1f-]|\\[dDwWsS\\\]\[\^nrtfv-])+\]"
_ONE = rf"[^\\\^$.*+?()\[\]{{}}|\x00-\x1f]|\.|{_CLASS}|\\[dDwWsS\\\^$.*+?()\[\]{{}}|/nrtfv]"
_ASSERTION = r"[\^$|]|\\[bB]"
MAX_NESTED_GROUPS = 3
"""Groups inside one another in a text with the format `regex`: a regex cannot count brackets."""


def _regexes(n_groups: int, look: str = "") -> str:
    """Return the regex of regexes that JavaScript and Python can read, without names, references and flags."""
    group = rf"|\((\?:)?{_regexes(n_groups - 1)}\)" if n_groups else ""
    return f"(({_ONE}{group}){_REPETITION}|{_ASSERTION}{look})*"


_LOOK = rf"|\(\?[=!]{_regexes(0)}\)"


PATTERNS: Mapping[str, tuple[str, ...]] = {
    "date": (f"^{_YEAR}", f"^{_DAY}"),
    "time": ("^.{6}[0-5]",),
    "date-time": (f"^{_YEAR}.{{13}}[0-5]", f"^{_DAY}"),
    "json-pointer": (f"^{_POINTER}$",),
    "relative-json-pointer": (f"^(0|[1-9][0-9]*)(#|{_POINTER})$",),
    "email": (_EMAIL,),
    "uri": (_URI,),
    "uri-reference": (_REFERENCE,),
    "iri-reference": (_REFERENCE,),
    "uri-template": (_TEMPLATE,),
    "regex": (f"^{_regexes(MAX_NESTED_GROUPS, _LOOK)}$",),
}
"""Patterns of formats, or added to those of llguidance (RFC 3339, 3986, 5321, 6570, 6901).

Dates must exist in the calendar. Year 0 and leap seconds, which RFC 3339 permits, are excluded: Python, for example,
can't parse them.
"""


def with_exact_format(schema: Schema) -> Schema:
    """Return the schema with a format that llguidance enforces, or without a format that forbids nothing."""
    name = schema.get("format")
    if not isinstance(name, str):
        return schema
    name = STRICTER.get(name, name)
    exact = without(schema, "format")
    if name in FORMATS:
        exact["format"] = name
    if name == "hostname" and isinstance(most := schema.get("maxLength", MAX_HOSTNAME), int):
        exact["maxLength"] = min(most, MAX_HOSTNAME)
    patterns: list[JSON] = [{"pattern": pattern} for pattern in PATTERNS.get(name, ())]
    return with_all_of(exact, patterns) if patterns else exact
