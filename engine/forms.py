"""What an answer may be where calls are demanded, and how a call goes on once it has begun: as grammars in Lark. Pure.

Each family's form is data (`families`); here is what is made of it. A function that a family can't write with
certainty is called in the generic form, which is read in all of them.
"""

import json
from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine.constraint import GrammarError
from engine.dialect import Dialect
from engine.json_schema import JSON
from engine.lark import Notation, Rules, pattern, plain
from engine.writers import GENERIC_FORM, Form, Function

MOST_CALLS = 16
"""In one answer."""

_MADE_UP = {"id": pattern("[A-Za-z0-9_]{1,32}"), "number": pattern("[0-9]{1,3}")}
"""What a call is known by, where the family writes that. Nobody reads it."""
_LEADING = pattern("[ \n]{1,4}")
"""What an answer may begin with."""


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
    for calls in _written(dialect, functions, rules):
        begin = rules.phrase(calls.form.begin)
        if calls.form.unmarked and format_ is None:
            begin = f"({begin})?"
        ways.append(_joined(begin, rules.phrase(calls.opening, _MADE_UP), _several(calls, rules, most)))
    if format_ is not None:
        ways.append(rules.phrase(dialect.form.answer, {"answer": rules.json(format_)}))
    head, text, tail = dialect.form.before.partition("$text")
    before = f"({rules.phrase(head)} {rules.until(tail)})?" if text else ""
    return rules.text(_joined(f"{_LEADING}?", before, rules.one_of(ways)))


def triggers(
    dialect: Dialect, functions: Sequence[Function], notation: Notation, most: int = MOST_CALLS
) -> list[tuple[str, str]]:
    """Markers by which calls begin, each with what follows it up to the end of the calls. Raises GrammarError."""
    markers = dict.fromkeys((*dialect.form.markers, *GENERIC_FORM.markers))
    found = []
    for marker in markers:
        rules = Rules(notation)
        ways = []
        for calls in _written(dialect, functions, rules):
            _, known, rest = f"{calls.form.begin}{calls.opening}".partition(marker)
            if known and marker in calls.form.markers:
                # Where nothing stands around all of them, each call begins with the marker anew.
                ways.append(
                    _joined(rules.phrase(rest, _MADE_UP), _several(calls, rules, most if calls.form.begin else 1))
                )
        if ways:
            found.append((marker, rules.text(rules.one_of(ways))))
    return found


def _written(dialect: Dialect, functions: Sequence[Function], rules: Rules) -> Iterator[_Calls]:
    """In the family's form, and in the generic one where that must be."""
    form = dialect.form
    written = {function.name: _body(form, function, rules) for function in functions}
    rest = [function for function in functions if written[function.name] is None]
    if rest and dialect.channels:
        raise GrammarError(f"this model can't be held to a call of {rest[0].name!r}")
    generic = [body for function in rest if (body := _body(GENERIC_FORM, function, rules)) is not None]
    native = [body for body in written.values() if body is not None]
    for each, bodies in ((form, native), (GENERIC_FORM, generic)):
        if bodies:
            yield _Calls(each, each.call.partition("$name")[0], rules.rule(" | ".join(bodies)))


def _body(form: Form, function: Function, rules: Rules) -> str | None:
    """One call from its name on; None where the form can't have it."""
    if not (form.any_name or function.plain):
        return None
    arguments = form.write(function, rules)
    if arguments is None:
        return None
    name = plain(json.dumps(function.name, ensure_ascii=False)[1:-1])
    return f"{name} {rules.phrase(form.call.partition('$name')[2], {'arguments': arguments, **_MADE_UP})}"


def _several(calls: _Calls, rules: Rules, most: int) -> str:
    """From the first call's name up to the end of the last one."""
    form, more = calls.form, ""
    if form.between is not None and most > 1:
        another = _joined(rules.phrase(form.between), rules.phrase(calls.opening, _MADE_UP), calls.rest)
        more = f"({another}){{0,{most - 1}}}"
    return _joined(calls.rest, more, rules.phrase(form.end))


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
