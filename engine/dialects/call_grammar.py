"""What an answer may be where calls are demanded, and how a call goes on once it has begun: as grammars in Lark. Pure.

Each family's form is data (`families`); here is what is made of it. A function whose parameters can't be written one
by one and be sure to be valid has its arguments as JSON in the same place. One whose name would be misread is called
in the generic form. Both are read in all families.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from engine.constraint import GrammarError
from engine.dialects.dialect import Dialect
from engine.grammar import Notation, Rules, pattern, string_literal
from engine.json_schema import JSON
from engine.notations import GENERIC_FORMAT, OBJECT, CallFormat, Function, json_arguments

MOST_CALLS = 16
"""In one answer."""

_MADE_UP = {
    "id": pattern("[A-Za-z0-9_]{1,32}"),
    "number": pattern("[0-9]{1,3}"),
    "place": '"functions."?',
}
"""What a call is known by, where the family writes that. Nobody reads it."""
_AROUND = pattern("[ \n]{1,4}")
"""What an answer may begin with, and calls end with."""


class _Calls(Struct, frozen=True):
    """A call in one form, of any of the functions that are written so."""

    form: CallFormat
    opening: str
    """Up to the name, as a phrase."""
    rest: str
    """From the name on, as a rule."""


def answer_grammar(
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
    ways = [f"{way} {_AROUND}?" for way in _ways(dialect, functions, rules, most, format_ is None)]
    if format_ is not None:
        ways.append(rules.phrase(dialect.form.answer, {"answer": rules.json(format_)}))
    if not ways:
        raise GrammarError("this model can't be held to a call of such a name")
    space = "" if dialect.content_markers else f"{_AROUND}?"
    return rules.text(_joined(space, rules.one_of(ways)))


def after_reasoning_grammar(
    dialect: Dialect, functions: Sequence[Function], notation: Notation, most: int = MOST_CALLS
) -> str | None:
    """What follows a thought that had to end, where models might think on: calls, or the beginning of words. None where
    words have no beginning of their own. Raises GrammarError."""
    head = dialect.form.answer.partition("$answer")[0].removeprefix(dialect.generation_prefix)
    rules = Rules(notation)
    ways = [rules.phrase(head), *_ways(dialect, functions, rules, most, unmarked=False)] if head else []
    return rules.text(rules.one_of(ways)) if ways else None


def _ways(dialect: Dialect, functions: Sequence[Function], rules: Rules, most: int, unmarked: bool) -> Iterator[str]:
    """Calls, in each form that any of the functions has. `unmarked`: whether the marker may be left out."""
    for calls in _calls(dialect, functions, rules, unmarked):
        begin = rules.phrase(calls.form.begin)
        if calls.form.marker_optional and unmarked:
            begin = f"({begin})?"
        others = [phrase for phrase in calls.form.alternative_openings if phrase.startswith(dialect.generation_prefix)]
        openings = [phrase.removeprefix(dialect.generation_prefix) for phrase in (calls.opening, *others)]
        opening = rules.one_of([rules.phrase(phrase, _MADE_UP) for phrase in openings])
        yield _joined(begin, opening, _several(calls, rules, most))


def arguments_grammar(function: Function, notation: Notation) -> str:
    """A call's arguments alone, as JSON. Raises GrammarError."""
    rules = Rules(notation)
    return rules.text(json_arguments(function, rules))


def triggers(
    dialect: Dialect, functions: Sequence[Function], notation: Notation, most: int = MOST_CALLS
) -> list[tuple[str, str]]:
    """Markers by which calls begin, each with what follows it up to the end of the calls. Raises GrammarError."""
    found: list[tuple[str, str]] = []
    forms = (dialect.form, *dialect.alternatives)
    for form in forms:
        for marker in [marker for marker in form.markers if "$name" in marker]:
            found += _named(form, marker, functions, notation, most)
        for phrase in form.alternative_openings:
            marker, made_up, part = phrase.partition("$")
            rules = Rules(notation)
            for calls in _written(form, functions, rules)[0]:
                found.append((marker, rules.text(f"{rules.phrase(made_up + part, _MADE_UP)} {calls.rest}")))
    for marker in dict.fromkeys(marker for form in forms for marker in form.markers):
        rules, ways, left = Rules(notation), [], functions
        for form in [form for form in forms if marker in form.markers]:
            written, left = _written(form, left, rules)
            for calls in written:
                _, known, rest = f"{form.begin}{calls.opening}".partition(marker)
                if known:
                    # Where nothing stands around all of them, each call begins with the marker anew.
                    several = _several(calls, rules, most if form.begin else 1)
                    ways.append(_joined(rules.phrase(rest, _MADE_UP), several))
        ways += [rules.phrase(form.none) for form in forms if ways and form.none and marker in form.markers]
        if ways:
            found.append((marker, rules.text(rules.one_of(ways))))
    return found


def _named(
    form: CallFormat, marker: str, functions: Sequence[Function], notation: Notation, most: int
) -> Iterator[tuple[str, str]]:
    """Yield the marker with the name of each function in it, and what follows. Raises GrammarError."""
    for function in filter(lambda function: function.plain, functions):
        rules = Rules(notation)
        rest = f"{form.begin}{form.call}".partition(marker)[2]
        first = rules.phrase(rest, _parts(form, function, rules))
        (calls,) = _written(form, functions, rules)[0]
        several = _several(calls, rules, most if form.begin else 1, first)
        yield marker.replace("$name", function.name), rules.text(several)


def openings(dialect: Dialect, names: Iterable[str]) -> tuple[str, ...]:
    """Texts by which calls begin in this family, for an answer that may have none. `names`: of the functions that
    the model has heard of."""
    names, found = tuple(names), list[str]()
    for form in (dialect.form, *dialect.alternatives):
        for marker in form.markers:
            found += [marker.replace("$name", name) for name in names] if "$name" in marker else [marker]
        found += [phrase.partition("$")[0] for phrase in form.alternative_openings]
    # A model that may not write the marker would write the call without it.
    found += [f'"name":{space}{json.dumps(name, ensure_ascii=False)[:-1]}' for name in names for space in ("", " ")]
    return tuple(dict.fromkeys(filter(None, found)))


def bare_call_grammar(dialect: Dialect, function: Function, notation: Notation) -> str | None:
    """How a call that no marker marks goes on behind the name's string, up to its end; None where the family marks all
    calls. Raises GrammarError."""
    if not dialect.allows_bare_json:
        return None
    rules = Rules(notation)
    form = dialect.form if dialect.form.marker_optional else _UNMARKED_FORM
    return rules.text(rules.phrase(form.call.partition('"$name"')[2], _parts(form, function, rules)))


_UNMARKED_FORM = CallFormat(OBJECT, ())


def _calls(dialect: Dialect, functions: Sequence[Function], rules: Rules, unmarked: bool) -> list[_Calls]:
    """In the family's form, and in the generic one where that must be and can be. `unmarked`: see `_ways`."""
    form = dialect.form if dialect.form.markers or unmarked else GENERIC_FORMAT
    calls, rest = _written(form, functions, rules)
    return calls if dialect.channels else [*calls, *_written(GENERIC_FORMAT, rest, rules)[0]]


def _written(form: CallFormat, functions: Sequence[Function], rules: Rules) -> tuple[list[_Calls], list[Function]]:
    """In one form; and those that can't be written so."""
    bodies = [(function, _body(form, function, rules)) for function in functions]
    written = [body for _, body in bodies if body is not None]
    calls = [_Calls(form, form.call.partition("$name")[0], rules.rule(" | ".join(written)))] if written else []
    return calls, [function for function, body in bodies if body is None]


def _body(form: CallFormat, function: Function, rules: Rules) -> str | None:
    """One call from its name on; None where the form can't have it."""
    if not (form.any_name or function.plain):
        return None
    name = json.dumps(function.name, ensure_ascii=False)[1:-1]
    return _joined(string_literal(name), rules.phrase(form.call.partition("$name")[2], _parts(form, function, rules)))


def _parts(form: CallFormat, function: Function, rules: Rules) -> dict[str, str]:
    return {"name": string_literal(function.name), "arguments": form.write(function, rules), **_MADE_UP}


def _several(calls: _Calls, rules: Rules, most: int, first: str = "") -> str:
    """From the first call's name up to the end of the last one. `first`: the rest of that call, where it has begun."""
    form, more = calls.form, ""
    if form.between is not None and most > 1:
        another = _joined(rules.phrase(form.between), rules.phrase(calls.opening, _MADE_UP), calls.rest)
        more = f"({another}){{0,{most - 1}}}"
    return _joined(first or calls.rest, more, rules.phrase(form.end))


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
