"""Arguments that are no JSON, as grammars: each parameter by itself. The other direction of `parameters`. Pure.

What is read back must be valid. Where that wouldn't be sure, all of them are written as JSON in the same place: where a
text between tags must match a `pattern`, say, or a parameter's name has a bracket in it.
"""

import json
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from engine.declared import DEFINITIONS, HELD, Declared, Schema
from engine.gemma import QUOTE
from engine.json_schema import JSON
from engine.lark import Rules, pattern, plain, without
from engine.parameters import Tags
from engine.writers import Function, Write, is_plain, json_arguments, json_text

_WHOLE = frozenset(("type", "properties", "required", "additionalProperties", *DEFINITIONS))
"""The keywords of objects whose parameters can be written one by one."""
_LONGEST = 4096
"""Of texts whose length is held."""


class Parameter(Struct, frozen=True):
    name: str
    schema: Schema
    required: bool


def parameters(schema: Schema) -> list[Parameter] | None:
    """In the order of the schema; None where such an object is more than its parameters."""
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or schema.keys() & HELD - _WHOLE:
        return None
    if not all(name in properties for name in required) or not all(map(is_plain, properties)):
        return None
    schemas = {name: {} if inner is True else inner for name, inner in properties.items()}
    if not all(isinstance(inner, dict) for inner in schemas.values()):
        return None
    return [Parameter(name, inner, name in required) for name, inner in schemas.items() if isinstance(inner, dict)]


def tagged_arguments(tags: Tags, parameter: str, cdata: bool = False) -> Write:
    """Each between tags: a text as it is, or as XML's `CDATA` where models know that; all else as JSON.

    `parameter` is a phrase with `$key` and `$value`; `$type` is JavaScript's word for it, `$text` whether it is a text.
    """
    head, _, closing = parameter.partition("$value")
    ends = (tags.value_ends, tags.key, *tags.end)

    def write(function: Function, rules: Rules) -> str:
        def item(each: Parameter) -> str | None:
            declared = Declared(each.schema, function.schema)
            kind = declared.kind
            is_text = kind == "string"
            if function.lark:
                value: str | None = f"{rules.lark(function.lark)} {rules.phrase(closing)}"
            elif is_text:
                value = tagged_text(declared.followed.schema, closing, ends, rules, cdata)
            else:
                as_json = json_value(each.schema, function.schema, rules)
                value = as_json and f"{as_json} {rules.phrase(closing)}"
            told = {"integer": "number"}.get(kind, kind) if isinstance(kind, str) else "object"
            parts = {"key": plain(each.name), "type": plain(told), "text": plain(str(is_text).lower())}
            return value and f"{rules.phrase(head, parts)} {value}"

        items = items_of(function.schema, item)
        return f'"\\n" {json_arguments(function, rules)}' if items is None else rules.row(items, rules.space())

    return write


def pythonic_arguments(function: Function, rules: Rules) -> str:
    """`key="text", other=3`: values as JSON has them, or, where a whole parameter is one, as Python does."""

    def item(each: Parameter) -> str | None:
        value = json_text(function, rules) if function.lark else json_value(each.schema, function.schema, rules)
        if value and not function.lark and (more := _as_python(each.schema)):
            value = f"({' | '.join([value, *more])})"
        return value and f"{plain(each.name + '=')} {value}"

    items = items_of(function.schema, item)
    return json_arguments(function, rules) if items is None else rules.row(items, f'"," {rules.space()}')


def _as_python(schema: Schema) -> list[str]:
    """Other ways to write values of that schema, as phrases."""
    named = schema.get("type")
    kinds = named if isinstance(named, list) else [named]
    if not schema.keys() <= _SAYS_NO_MORE:
        return []
    found = [plain(word) for kind, words in _PYTHON_WORDS.items() if kind in kinds for word in words]
    return [*found, _PYTHON_TEXT] if "string" in kinds else found


_PYTHON_WORDS = {"boolean": ("True", "False"), "null": ("None",)}
_PYTHON_TEXT = pattern(r"'([^'\\\n]|\\['\\n])*'")
_SAYS_NO_MORE = frozenset(("type", "description", "title", "default", "examples"))


def items_of(schema: Schema, item: Callable[[Parameter], str | None]) -> list[tuple[str, bool]] | None:
    """Each parameter, and whether it must be there; None where one of them can't be written."""
    found = parameters(schema)
    items = [(item(each), each.required) for each in found or ()]
    written = [(text, required) for text, required in items if text is not None]
    return None if found is None or len(written) < len(items) else written


def json_value(schema: Schema, whole: Schema, rules: Rules) -> str | None:
    """A value, to which the definitions of the whole belong; None where it refers to something else."""
    if not all(target.startswith(("#/$defs/", "#/definitions/")) for target in _references(whole)):
        return None
    return rules.json({**{key: whole[key] for key in DEFINITIONS if key in whole}, **schema})


def _references(value: JSON) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as inner:
                if isinstance(target := inner.get("$ref"), str):
                    yield target
                waiting += inner.values()
            case list() as inner:
                waiting += inner


def tagged_text(schema: Schema, closing: str, ends: Sequence[str], rules: Rules, cdata: bool = False) -> str | None:
    """A text as it is, and what ends it."""
    forbidden = [end for end in ends if rules.is_text(end)]
    chosen = choices(schema)
    if chosen is not None:
        texts = [text for text in chosen if isinstance(text, str)]
        if len(texts) < len(chosen) or any(end in text for text in texts for end in (*forbidden, _CDATA)):
            return None
        return f"({' | '.join(map(plain, texts))}) {rules.phrase(closing)}"
    body = text_of(schema)
    if body is None:
        return None
    free = without(forbidden, body)
    text = rules.until(closing, f"{free} & ~{pattern(_CDATA_REGEX)}")
    return f"({text} | {plain(_CDATA)} {rules.until(']]>' + closing, free)})" if cdata else text


_CDATA, _CDATA_REGEX = "<![CDATA[", r"<!\[CDATA\[.*"
"""With that, some families begin a text that may have ends in it."""


def choices(schema: Schema) -> list[JSON] | None:
    """What it may be, where the schema has a list of that; nothing else may be said of it then."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) and not schema.keys() & HELD - {"type", "enum", "const"} else None


def text_of(schema: Schema) -> str | None:
    """A terminal for a text; None where more than its length is held."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if schema.keys() & HELD - {"type", "minLength", "maxLength"}:
        return None
    if not isinstance(least, int) or not isinstance(most, int | None) or max(least, most or 0) > _LONGEST:
        return None
    return pattern(f".{{{least},{'' if most is None else most}}}")


def gemma_arguments(function: Function, rules: Rules) -> str:
    """`{key:<|"|>text<|"|>,other:3}`"""
    if function.lark:
        return json_arguments(function, rules)
    return _Gemma(function.schema, rules).object(function.schema) or json_arguments(function, rules)


class _Gemma:
    """Values in a notation of its own, one function's."""

    def __init__(self, whole: Schema, rules: Rules) -> None:
        self._whole = whole
        self._rules = rules
        self._quote = rules.literal(QUOTE)
        self._found: dict[str, str | None] = {}
        """By what refers to them; None too while one is looked at."""

    def object(self, schema: Schema) -> str | None:
        """Its parameters in the order of their names, as the template has them."""
        items = items_of(schema, self._item)
        return None if items is None else f'"{{" {self._rules.row(sorted(items, key=_folded), _COMMA)} "}}"'

    def _item(self, each: Parameter) -> str | None:
        value = self._value(each.schema)
        return value and f"{plain(each.name + ':')} {value}"

    def _value(self, schema: JSON) -> str | None:
        if not isinstance(schema, dict):
            return None
        if isinstance(target := schema.get("$ref"), str):
            return self._reference(target) if not schema.keys() & HELD - {"$ref"} else None
        if isinstance(ways := schema.get("anyOf"), list):
            return self._one_of([self._value(way) for way in ways]) if not schema.keys() & HELD - {"anyOf"} else None
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return self._one_of([self._kind(kind, schema) for kind in kinds])
        return self._kind(kinds, schema)

    def _reference(self, target: str) -> str | None:
        if target not in self._found:
            self._found[target] = None
            place, _, name = target.removeprefix("#/").partition("/")
            definitions = self._whole.get(place) if place in DEFINITIONS else None
            value = self._value(definitions.get(name)) if isinstance(definitions, dict) else None
            self._found[target] = value and self._rules.rule(value)
        return self._found[target]

    def _one_of(self, ways: Sequence[str | None]) -> str | None:
        found = [way for way in ways if way is not None]
        return self._rules.rule(" | ".join(found)) if found and len(found) == len(ways) else None

    def _kind(self, kind: JSON, schema: Schema) -> str | None:
        if (chosen := choices(schema)) is not None:
            return self._one_of([self._constant(value) for value in chosen if kind in (None, *_kinds(value))])
        held = schema.keys() & HELD - {"type"}
        match kind:
            case "string":
                text = text_of(schema)
                return text and f"{self._quote} {self._rules.until(QUOTE, text)}"
            case "number" | "integer":
                return (
                    self._rules.json({key: schema[key] for key in held} | {"type": kind}) if held <= _NUMBERS else None
                )
            case "boolean":
                return '("true" | "false")' if not held else None
            case "null":
                return '"null"' if not held else None
            case "array":
                return self._list(schema)
            case "object":
                return self.object(schema)
        return None

    def _constant(self, value: JSON) -> str | None:
        match value:
            case str():
                return f"{self._quote} {plain(value)} {self._quote}" if QUOTE not in value else None
            case dict() | list():
                return None
        return plain(json.dumps(value))

    def _list(self, schema: Schema) -> str | None:
        bounds = bounds_of(schema)
        value = self._value(schema.get("items"))
        if value is None or bounds is None:
            return None
        least, most = bounds
        if most == 0:
            return '"[]"'
        row = f'{value} ("," {value}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {row} "]"' if least else f'"[" ({row})? "]"'


def bounds_of(schema: Schema) -> tuple[int, int | None] | None:
    """How many items a list has, at least and at most; None where more than that, and what they are, is held."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    alone = not schema.keys() & HELD - {"type", "items", "minItems", "maxItems"}
    return (least, most) if alone and isinstance(least, int) and isinstance(most, int | None) else None


_COMMA = '","'


def _folded(item: tuple[str, bool]) -> str:
    return item[0].lower()


_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"))


def _kinds(value: JSON) -> tuple[str, ...]:
    match value:
        case bool():
            return ("boolean",)
        case int():
            return ("integer", "number")
        case float():
            return ("number",)
        case str():
            return ("string",)
        case None:
            return ("null",)
        case list():
            return ("array",)
    return ("object",)
