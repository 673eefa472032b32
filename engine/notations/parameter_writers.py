"""Arguments that are no JSON, as grammars: each parameter by itself. The other direction of `parameters`. Pure.

What is read back must be valid. Where that wouldn't be sure, all of them are written as JSON in the same place: where a
text between tags must match a `pattern`, say, or a parameter's name has a bracket in it.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from engine.grammar import Rules, excluding, pattern, string_literal
from engine.json_schema import JSON
from engine.notations.argument_schema import DEFINITIONS, ENFORCED, ArgumentSchema, Schema
from engine.notations.call_format import Function, Write, is_plain, json_arguments, json_text
from engine.notations.parameters import NULLS, Tags

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
    if not isinstance(properties, dict) or not isinstance(required, list) or schema.keys() & ENFORCED - _WHOLE:
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
    shows_kind = "$type" in head or "$text" in head
    """True if the kind of a value is written before it."""

    def write(function: Function, rules: Rules) -> str:
        def item(each: Parameter) -> str | None:
            declared = ArgumentSchema(each.schema, function.schema)
            if function.lark:
                return way(each, declared.kind, f"{rules.lark(function.lark)} {rules.phrase(closing)}")
            if declared.kind == "string":
                return way(each, "string", tagged_text(declared.resolved.schema, closing, ends, rules, cdata))
            optional = declared.optional
            bare = optional and tagged_text(optional.schema, closing, ends, rules, cdata, optional=not shows_kind)
            if optional is None or not bare:
                return way(each, declared.kind, quoted(each.schema))
            null = rules.until(closing, string_literal("null")) if declared.may_be_null else None
            if shows_kind:
                return one_of(way(each, "string", bare), way(each, "null", null))
            return way(each, "", one_of(bare, quoted(optional.schema), null))

        def quoted(schema: Schema) -> str | None:
            value = json_value(schema, function.schema, rules)
            return value and f"{value} {rules.phrase(closing)}"

        def way(each: Parameter, kind: str, value: str | None) -> str | None:
            word = {"integer": "number", "": "object"}.get(kind, kind)
            parts = {
                "key": string_literal(each.name),
                "type": string_literal(word),
                "text": string_literal(str(kind == "string").lower()),
            }
            return value and f"{rules.phrase(head, parts)} {value}"

        items = items_of(function.schema, item)
        return f'"\\n" {json_arguments(function, rules)}' if items is None else rules.unordered(items, rules.space())

    return write


def one_of(*ways: str | None) -> str | None:
    """Ways to write a value, some of which may be missing."""
    found = [way for way in ways if way is not None]
    return f"({' | '.join(found)})" if found else None


def pythonic_arguments(function: Function, rules: Rules) -> str:
    """`key="text", other=3`: values as JSON has them, or, where a whole parameter is one, as Python does."""

    def item(each: Parameter) -> str | None:
        value = json_text(function, rules) if function.lark else json_value(each.schema, function.schema, rules)
        if value and not function.lark and (more := _as_python(each.schema)):
            value = f"({' | '.join([value, *more])})"
        return value and f"{string_literal(each.name + '=')} {value}"

    items = items_of(function.schema, item)
    return json_arguments(function, rules) if items is None else rules.unordered(items, f'"," {rules.space()}')


def _as_python(schema: Schema) -> list[str]:
    """Other ways to write values of that schema, as phrases."""
    named = schema.get("type")
    kinds = named if isinstance(named, list) else [named]
    if not schema.keys() <= _SAYS_NO_MORE:
        return []
    found = [string_literal(word) for kind, words in _PYTHON_WORDS.items() if kind in kinds for word in words]
    return [*found, _PYTHON_TEXT] if "string" in kinds else found


_PYTHON_WORDS = {"boolean": ("True", "False"), "null": ("None",)}
_PYTHON_TEXT = pattern(r"'([^'\\]|\\['\\n])*'")
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


def tagged_text(
    schema: Schema, closing: str, ends: Sequence[str], rules: Rules, cdata: bool = False, optional: bool = False
) -> str | None:
    """A text as it is, and what ends it. `optional`: True if it may not look like null or like JSON."""
    forbidden = [end for end in ends if rules.is_text(end)]
    chosen = choices(schema)
    if chosen is not None:
        texts = [text for text in chosen if isinstance(text, str)]
        if len(texts) < len(chosen) or any(end in text for text in texts for end in (*forbidden, _CDATA)):
            return None
        if optional:
            texts = [text for text in texts if re.fullmatch(_NO_TEXT, text, re.DOTALL) is None]
        return f"({' | '.join(map(string_literal, texts))}) {rules.phrase(closing)}" if texts else None
    body = text_of(schema)
    if body is None:
        return None
    free = excluding(forbidden, body)
    bare = f"{free} & ~{pattern(_NO_TEXT)}" if optional else free
    text = rules.until(closing, f"{bare} & ~{pattern(_CDATA_REGEX)}")
    return f"({text} | {string_literal(_CDATA)} {rules.until(']]>' + closing, free)})" if cdata else text


_NO_TEXT = rf"[\s\x1c-\x1f]*({'|'.join(NULLS)}|\".*)[\s\x1c-\x1f]*"
"""By the rule of `ArgumentSchema.optional`, something else than a bare text."""
_CDATA, _CDATA_REGEX = "<![CDATA[", r"<!\[CDATA\[.*"
"""With that, some families begin a text that may have ends in it."""


def choices(schema: Schema) -> list[JSON] | None:
    """What it may be, where the schema has a list of that; nothing else may be said of it then."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) and not schema.keys() & ENFORCED - {"type", "enum", "const"} else None


def text_of(schema: Schema) -> str | None:
    """A terminal for a text; None where more than its length is held."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if schema.keys() & ENFORCED - {"type", "minLength", "maxLength"}:
        return None
    if not isinstance(least, int) or not isinstance(most, int | None) or max(least, most or 0) > _LONGEST:
        return None
    return pattern(f".{{{least},{'' if most is None else most}}}")


def bounds_of(schema: Schema) -> tuple[int, int | None] | None:
    """How many items a list has, at least and at most; None where more than that, and what they are, is held."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    alone = not schema.keys() & ENFORCED - {"type", "items", "minItems", "maxItems"}
    return (least, most) if alone and isinstance(least, int) and isinstance(most, int | None) else None
