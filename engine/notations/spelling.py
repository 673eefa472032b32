"""Write the arguments of past calls as text, in the notations of the families. Pure.

Arguments that a notation can't write are written as JSON in the same place, as in new calls.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from engine.notations.argument_schema import is_plain
from engine.notations.elements import ITEM

Values: TypeAlias = Mapping[str, Any]
"""Arguments by name: JSON values."""
Spell: TypeAlias = Callable[[Values], str]


def json_spelling(values: Values) -> str:
    """Return arguments as a JSON object."""
    return json.dumps(values, ensure_ascii=False)


def pythonic_spelling(values: Values) -> str:
    """Return arguments as in Python: `key=value, other=value`, with values in JSON."""
    if not all(map(is_plain, values)):
        return json_spelling(values)
    return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def tagged_spelling(parameter: str, ends: Sequence[str], python: bool = False) -> Spell:
    """Return the spelling of arguments between tags: texts verbatim, other values in JSON, or as in Python.

    `parameter` has `$key`, `$value`, and perhaps the type as `$type` or `$text`; no text contains any of `ends`.
    """

    def value_of(value: Any) -> str:
        if isinstance(value, str):
            return value
        return repr(value) if python else json.dumps(value, ensure_ascii=False)

    def spell(values: Values) -> str:
        written = {key: value_of(value) for key, value in values.items()}
        if not all(map(is_plain, values)) or any(end in text for text in written.values() for end in ends):
            return json_spelling(values)
        return "\n".join(
            parameter.replace("~", "\n")
            .replace("$key", key)
            .replace("$type", _javascript_type(values[key]))
            .replace("$text", json.dumps(isinstance(values[key], str)))
            .replace("$value", text)
            for key, text in written.items()
        )

    return spell


def _javascript_type(value: Any) -> str:
    """Return the JavaScript type of a value."""
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", type(None): "null"}
    return names.get(type(value), "object")


def gemma_spelling(quote: str) -> Spell:
    """Return the spelling `{key:<|"|>text<|"|>,other:3}`. `quote` is the token for a quotation mark."""

    def text_of(value: Any) -> str:
        match value:
            case str():
                return f"{quote}{value}{quote}"
            case dict():
                pairs = sorted(value.items(), key=lambda pair: pair[0].lower())
                return "{" + ",".join(f"{key}:{text_of(inner)}" for key, inner in pairs) + "}"
            case list():
                return f"[{','.join(map(text_of, value))}]"
        return json.dumps(value)

    return lambda values: text_of(values) if _is_free_of(quote, values) else json_spelling(values)


def element_spelling(mark: str) -> Spell:
    """Return the spelling of arguments as nested elements, with the mark of the tag that follows. `mark` precedes each
    tag."""

    def element(tag: str, value: Any) -> str:
        match value:
            case str():
                inner = value
            case dict():
                inner = "".join(element(*pair) for pair in value.items())
            case list():
                inner = "".join(element(ITEM, each) for each in value)
            case _:
                inner = json.dumps(value)
        return f"{mark}<{tag}>{inner}{mark}</{tag}>"

    def spell(values: Values) -> str:
        is_free = _is_free_of(mark, values)
        return ("".join(element(*pair) for pair in values.items()) if is_free else json_spelling(values)) + mark

    return spell


def _is_free_of(marker: str, value: Any) -> bool:
    """True if no text contains the marker and all keys are plain."""
    match value:
        case str():
            return marker not in value
        case dict():
            return all(is_plain(key) and _is_free_of(marker, inner) for key, inner in value.items())
        case list():
            return all(_is_free_of(marker, inner) for inner in value)
    return True
