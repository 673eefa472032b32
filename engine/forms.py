"""What an answer may be where calls are demanded, and how a call goes on once it has begun: as grammars in Lark. Pure.

Each family's form is data (`families`); here is what is made of it. A function whose parameters can't be written one
by one and be sure to be valid has its arguments as JSON in the same place. One whose name would be misread is called
in the generic form. Both are read in all families.
"""

import json
import re
from collections.abc import Sequence

from msgspec import Struct

from engine.constraint import GrammarError
from engine.dialect import Dialect
from engine.json_schema import JSON
from engine.lark import Notation, Rules, pattern, plain
from engine.objects import BEFORE_NAMES, NAMES
from engine.writers import GENERIC_FORM, OBJECT, Form, Function, json_arguments

MOST_CALLS = 16
"""In one answer."""

_MADE_UP = {"id": pattern("[A-Za-z0-9_]{1,32}"), "number": pattern("[0-9]{1,3}")}
"""What a call is known by, where the family writes that. Nobody reads it."""
_AROUND = pattern("[ \n]{1,4}")
"""What an answer may begin with, and calls end with."""


class _Calls(Struct, frozen=True):
    """A call in one form, of any of the functions that are written so."""

    form: Form
    opening: str
    """Up to the name, as a phrase."""
    rest: str
    """From the name on, as a rule."""


def answer(
    dialect: Dialect,
    functions: Sequence[Function],
    notation: Notation,
    most: int = MOST_CALLS,
    format_: JSON = None,
) -> str:
    """A whole answer: calls, at least one and at most so many; or, where there is a format, JSON of that.

    Raises GrammarError.
    """
    rules = Rules(notation)
    ways = []
    for calls in _calls(dialect, functions, rules):
        begin = rules.phrase(calls.form.begin)
        if calls.form.unmarked and format_ is None:
            begin = f"({begin})?"
        several = _several(calls, rules, most)
        opening = rules.phrase(calls.opening.removeprefix(dialect.begun), _MADE_UP)
        ways.append(_joined(begin, opening, several, f"{_AROUND}?"))
    if format_ is not None:
        ways.append(rules.phrase(dialect.form.answer, {"answer": rules.json(format_)}))
    if not ways:
        raise GrammarError("this model can't be held to a call of such a name")
    head, text, tail = dialect.form.before.partition("$text")
    before = f"({rules.phrase(head)} {rules.until(tail)})?" if text else ""
    space = "" if dialect.said else f"{_AROUND}?"
    return rules.text(_joined(space, before, rules.one_of(ways)))


def arguments(function: Function, notation: Notation) -> str:
    """A call's arguments alone, as JSON. Raises GrammarError."""
    rules = Rules(notation)
    return rules.text(json_arguments(function, rules))


def triggers(
    dialect: Dialect, functions: Sequence[Function], notation: Notation, most: int = MOST_CALLS
) -> list[tuple[str, str]]:
    """Markers by which calls begin, each with what follows it up to the end of the calls. Raises GrammarError."""
    found = []
    for function in filter(lambda function: function.plain, functions):
        for marker in dialect.form.markers:
            if "$name" in marker:
                rules = Rules(notation)
                rest = rules.phrase(dialect.form.call.partition(marker)[2], _parts(dialect.form, function, rules))
                found.append((marker.replace("$name", function.name), rules.text(rest)))
    for marker in dict.fromkeys((*dialect.form.markers, *(() if dialect.channels else GENERIC_FORM.markers))):
        rules = Rules(notation)
        own = marker in dialect.form.markers
        ways = []
        for calls in _calls(dialect, functions, rules) if own else _written(GENERIC_FORM, functions, rules)[0]:
            _, known, rest = f"{calls.form.begin}{calls.opening}".partition(marker)
            if known and marker in calls.form.markers:
                # Where nothing stands around all of them, each call begins with the marker anew.
                several = _several(calls, rules, most if calls.form.begin else 1)
                ways.append(_joined(rules.phrase(rest, _MADE_UP), several))
        if ways:
            found.append((marker, rules.text(rules.one_of(ways))))
    return found


def beginnings(dialect: Dialect, functions: Sequence[Function], notation: Notation) -> list[tuple[str, str]]:
    """How an answer begins that is a call without a marker, as regexes up to a function's name; each with what follows
    the name, up to the end of that call. None where the family marks all calls. Raises GrammarError."""
    form = dialect.form if dialect.form.unmarked else _UNMARKED_FORM
    found = []
    for name in [_in_json(function.name) for function in functions] if dialect.bare else ():
        rules = Rules(notation)
        # A longer name begins with it, maybe.
        like = [function for function in functions if _in_json(function.name).startswith(name)]
        ways = [body for function in like if (body := _body(form, function, rules, len(name))) is not None]
        found.append((_OBJECT_BEGINS + re.escape(name), rules.text(rules.one_of(ways))))
    return found


_UNMARKED_FORM = Form(OBJECT, (), any_name=True)
_OBJECT_BEGINS = (
    r"[\s;,]*\{\s*"
    rf'("({"|".join(BEFORE_NAMES)})"\s*:\s*("[^"]*"|[^"{{\[,\s]*)\s*,\s*)*'
    rf'"({"|".join(NAMES)})"\s*:\s*"'
)  # fmt: skip


def _calls(dialect: Dialect, functions: Sequence[Function], rules: Rules) -> list[_Calls]:
    """In the family's form, and in the generic one where that must be and can be."""
    calls, rest = _written(dialect.form, functions, rules)
    return calls if dialect.channels else [*calls, *_written(GENERIC_FORM, rest, rules)[0]]


def _written(form: Form, functions: Sequence[Function], rules: Rules) -> tuple[list[_Calls], list[Function]]:
    """In one form; and those that can't be written so."""
    bodies = [(function, _body(form, function, rules)) for function in functions]
    written = [body for _, body in bodies if body is not None]
    calls = [_Calls(form, form.call.partition("$name")[0], rules.rule(" | ".join(written)))] if written else []
    return calls, [function for function, body in bodies if body is None]


def _body(form: Form, function: Function, rules: Rules, said: int = 0) -> str | None:
    """One call from its name on, of which so many characters are there; None where the form can't have it."""
    if not (form.any_name or function.plain):
        return None
    name = _in_json(function.name)[said:]
    rest = rules.phrase(form.call.partition("$name")[2], _parts(form, function, rules))
    return _joined(name and plain(name), rest)


def _parts(form: Form, function: Function, rules: Rules) -> dict[str, str]:
    return {"name": plain(function.name), "arguments": form.write(function, rules), **_MADE_UP}


def _in_json(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _several(calls: _Calls, rules: Rules, most: int) -> str:
    """From the first call's name up to the end of the last one."""
    form, more = calls.form, ""
    if form.between is not None and most > 1:
        another = _joined(rules.phrase(form.between), rules.phrase(calls.opening, _MADE_UP), calls.rest)
        more = f"({another}){{0,{most - 1}}}"
    return _joined(calls.rest, more, rules.phrase(form.end))


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
