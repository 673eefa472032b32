"""Write Lark grammars for answers that must be calls, and for the rest of a call that has begun. Pure.

`families` has the format of each family. Arguments that a family's notation can't guarantee to be valid are written as
JSON in the same place. A function whose name the notation would misread is called in the generic format. The parser
reads both in all families.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from msgspec import Struct

from engine.constraint import GrammarError
from engine.dialects.dialect import Dialect
from engine.grammar import Rules, SchemaWriter, pattern, string_literal
from engine.json_schema import JSON
from engine.notations import GENERIC_FORMAT, OBJECT, CallFormat, Function, json_arguments

MAX_CALLS = 16
"""Maximum number of calls in one answer."""

_MODEL_CHOSEN = {
    "id": pattern("[A-Za-z0-9_]{1,32}"),
    "number": pattern("[0-9]{1,3}"),
    "place": '"functions."?',
}
"""Parts of a call that the model chooses and the parser ignores."""
_MARGIN = pattern("[ \n]{1,4}")
"""White space before an answer and after calls."""


class _Calls(Struct, frozen=True):
    """The call of any of several functions in one format."""

    call_format: CallFormat
    opening: str
    """Template up to the name."""
    rest: str
    """Rule from the name on."""


def answer_grammar(
    dialect: Dialect,
    functions: Sequence[Function],
    writer: SchemaWriter,
    max_calls: int = MAX_CALLS,
    format_: JSON = None,
) -> str:
    """Return the grammar of a whole answer: 1 to `max_calls` calls, or JSON of the schema `format_` if there is one.

    Raises GrammarError.
    """
    rules = Rules(writer)
    calls = _call_alternatives(dialect, functions, rules, max_calls, format_ is None)
    alternatives = [f"{each} {_MARGIN}?" for each in calls]
    if format_ is not None:
        alternatives.append(rules.expand(dialect.call_format.answer, {"answer": rules.json(format_)}))
    if not alternatives:
        raise GrammarError("this model's calls can't have the function's name: use letters, digits, `_`, `-` and `.`")
    space = "" if dialect.content_markers else f"{_MARGIN}?"
    return rules.text(_joined(space, rules.one_of(alternatives)))


def after_reasoning_grammar(
    dialect: Dialect, functions: Sequence[Function], writer: SchemaWriter, max_calls: int = MAX_CALLS
) -> str | None:
    """Return the grammar of the text after reasoning that the budget ended: calls, or the opening of an answer.

    It prevents further reasoning. None if answers of this family have no opening. Raises GrammarError.
    """
    head = dialect.call_format.answer.partition("$answer")[0].removeprefix(dialect.generation_prefix)
    rules = Rules(writer)
    alternatives = (
        [rules.expand(head), *_call_alternatives(dialect, functions, rules, max_calls, unmarked=False)] if head else []
    )
    return rules.text(rules.one_of(alternatives)) if alternatives else None


def _call_alternatives(
    dialect: Dialect, functions: Sequence[Function], rules: Rules, max_calls: int, unmarked: bool
) -> Iterator[str]:
    """Yield an expression for calls in each format that a function needs. `unmarked` makes the marker optional."""
    for calls in _calls(dialect, functions, rules, unmarked):
        begin = rules.expand(calls.call_format.begin)
        if calls.call_format.marker_optional and unmarked:
            begin = f"({begin})?"
        further = [
            phrase for phrase in calls.call_format.alternative_openings if phrase.startswith(dialect.generation_prefix)
        ]
        openings = [phrase.removeprefix(dialect.generation_prefix) for phrase in (calls.opening, *further)]
        opening = rules.one_of([rules.expand(phrase, _MODEL_CHOSEN) for phrase in openings])
        yield _joined(begin, opening, _repeated(calls, rules, max_calls))


def arguments_grammar(function: Function, writer: SchemaWriter) -> str:
    """Return the grammar of a call's arguments as JSON. Raises GrammarError."""
    rules = Rules(writer)
    return rules.text(json_arguments(function, rules))


def triggers(
    dialect: Dialect, functions: Sequence[Function], writer: SchemaWriter, max_calls: int = MAX_CALLS
) -> list[tuple[str, str]]:
    """Return pairs of a marker that begins calls and the grammar of the text from there to the end of the calls.

    Raises GrammarError.
    """
    formats = (dialect.call_format, *dialect.alternatives)
    found: list[tuple[str, str]] = []
    for call_format in formats:
        found += _named_triggers(call_format, functions, writer, max_calls)
        found += _alternative_triggers(call_format, functions, writer)
    for marker in dict.fromkeys(marker for call_format in formats for marker in call_format.markers):
        sharing = [call_format for call_format in formats if marker in call_format.markers]
        if (grammar := _after_shared_marker(marker, sharing, functions, writer, max_calls)) is not None:
            found.append((marker, grammar))
    return found


def _named_triggers(
    call_format: CallFormat, functions: Sequence[Function], writer: SchemaWriter, max_calls: int
) -> Iterator[tuple[str, str]]:
    """Yield pairs of a marker with a function's name and the grammar of the text after it. Raises GrammarError."""
    plain = [function for function in functions if function.plain]
    for marker, function in product([marker for marker in call_format.markers if "$name" in marker], plain):
        rules = Rules(writer)
        rest = f"{call_format.begin}{call_format.call}".partition(marker)[2]
        first = rules.expand(rest, _parts(call_format, function, rules))
        (calls,) = _in_format(call_format, functions, rules)[0]
        repeated = _repeated(calls, rules, max_calls if call_format.begin else 1, first)
        yield marker.replace("$name", function.name), rules.text(repeated)


def _alternative_triggers(
    call_format: CallFormat, functions: Sequence[Function], writer: SchemaWriter
) -> Iterator[tuple[str, str]]:
    """Yield pairs of another beginning of calls and the grammar of the text after it. Raises GrammarError."""
    for phrase in call_format.alternative_openings:
        marker, dollar, part = phrase.partition("$")
        rules = Rules(writer)
        for calls in _in_format(call_format, functions, rules)[0]:
            yield marker, rules.text(f"{rules.expand(dollar + part, _MODEL_CHOSEN)} {calls.rest}")


def _after_shared_marker(
    marker: str, formats: Sequence[CallFormat], functions: Sequence[Function], writer: SchemaWriter, max_calls: int
) -> str | None:
    """Return the grammar of the text after a marker that all `formats` begin with; None if no call follows it.

    Raises GrammarError.
    """
    rules, alternatives, left = Rules(writer), list[str](), functions
    for call_format in formats:
        written, left = _in_format(call_format, left, rules)
        for calls in written:
            _, found, rest = f"{call_format.begin}{calls.opening}".partition(marker)
            if found:
                # Without a marker around all calls, each call begins with the marker again.
                repeated = _repeated(calls, rules, max_calls if call_format.begin else 1)
                begun = rules.expand(rest, _MODEL_CHOSEN)
                alternatives.append(_joined(begun, repeated))
                if call_format.no_call:
                    nothing = _body(call_format, Function(call_format.no_call, {"properties": {}}), rules)
                    alternatives.append(_joined(begun, nothing or "", rules.expand(call_format.end)))
    return rules.text(rules.one_of(alternatives)) if alternatives else None


def openings(dialect: Dialect, names: Iterable[str]) -> tuple[str, ...]:
    """Return the texts that begin calls, which an answer without calls must not contain.

    `names` are the functions that the model knows.
    """
    names, found = tuple(names), list[str]()
    for call_format in (dialect.call_format, *dialect.alternatives):
        for marker in call_format.markers:
            found += [marker.replace("$name", name) for name in names] if "$name" in marker else [marker]
        found += [phrase.partition("$")[0] for phrase in call_format.alternative_openings]
    # A model that can't write the marker would write the call without it.
    found += [f'"name":{space}{json.dumps(name, ensure_ascii=False)[:-1]}' for name in names for space in ("", " ")]
    return tuple(dict.fromkeys(filter(None, found)))


def bare_call_grammar(dialect: Dialect, function: Function, writer: SchemaWriter) -> str | None:
    """Return the grammar of a call without a marker, from the end of the name's string to the end of the call.

    None if the family marks all calls. Raises GrammarError.
    """
    if not dialect.allows_bare_json:
        return None
    rules = Rules(writer)
    call_format = dialect.call_format if dialect.call_format.marker_optional else _UNMARKED_FORMAT
    return rules.text(rules.expand(call_format.call.partition('"$name"')[2], _parts(call_format, function, rules)))


_UNMARKED_FORMAT = CallFormat(OBJECT, ())


def _calls(dialect: Dialect, functions: Sequence[Function], rules: Rules, unmarked: bool) -> list[_Calls]:
    """Return calls in the family's format, and in the generic one for names that it can't write. `unmarked`: see
    `_call_alternatives`."""
    call_format = dialect.call_format if dialect.call_format.markers or unmarked else GENERIC_FORMAT
    calls, rest = _in_format(call_format, functions, rules)
    return calls if dialect.channels else [*calls, *_in_format(GENERIC_FORMAT, rest, rules)[0]]


def _in_format(
    call_format: CallFormat, functions: Sequence[Function], rules: Rules
) -> tuple[list[_Calls], list[Function]]:
    """Return the calls in one format, and the functions that it can't write."""
    bodies = [(function, _body(call_format, function, rules)) for function in functions]
    written = [body for _, body in bodies if body is not None]
    calls = (
        [_Calls(call_format, call_format.call.partition("$name")[0], rules.rule(" | ".join(written)))]
        if written
        else []
    )
    return calls, [function for function, body in bodies if body is None]


def _body(call_format: CallFormat, function: Function, rules: Rules) -> str | None:
    """Return an expression for a call from its name on; None if the format can't write the name."""
    if not (call_format.any_name or function.plain):
        return None
    name = json.dumps(function.name, ensure_ascii=False)[1:-1]
    return _joined(
        string_literal(name), rules.expand(call_format.call.partition("$name")[2], _parts(call_format, function, rules))
    )


def _parts(call_format: CallFormat, function: Function, rules: Rules) -> dict[str, str]:
    return {"name": string_literal(function.name), "arguments": call_format.write(function, rules), **_MODEL_CHOSEN}


def _repeated(calls: _Calls, rules: Rules, max_calls: int, first: str = "") -> str:
    """Return an expression from the first call's name to the end of the last call. `first` is the rest of a first call
    that has begun."""
    call_format, more = calls.call_format, ""
    if call_format.between is not None and max_calls > 1:
        another = _joined(rules.expand(call_format.between), rules.expand(calls.opening, _MODEL_CHOSEN), calls.rest)
        more = f"({another}){{0,{max_calls - 1}}}"
    return _joined(first or calls.rest, more, rules.expand(call_format.end))


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
