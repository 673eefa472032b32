"""Write grammars for arguments that stand between tags, or as in a programming language. Pure.

`parameters` reads these arguments, and the result must be valid. If that cannot be guaranteed, all arguments are
written as JSON in the same place: for example if a text between tags must match a `pattern`, or if a parameter's name
contains a bracket.
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
"""Keywords of objects whose parameters can be written one by one."""
_MAX_LENGTH = 4096
"""Characters of a text whose length is enforced."""


class Parameter(Struct, frozen=True):
    name: str
    schema: Schema
    required: bool


def parameters(schema: Schema) -> list[Parameter] | None:
    """Return the parameters in the order of the schema; None if the schema has keywords beyond its parameters."""
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
    """Return a writer of arguments between tags: texts verbatim, or as XML `CDATA` if `cdata` is set; others as JSON.

    `parameter` is a template with `$key` and `$value`. `$type` is the JavaScript type, `$text` is "true" for a text.
    """
    head, _, closing = parameter.partition("$value")
    ends = (tags.value_ends, tags.key, *tags.end)
    shows_kind = "$type" in head or "$text" in head
    """True if the type of a value is written before it."""

    def write(function: Function, rules: Rules) -> str:
        def item(each: Parameter) -> str | None:
            declared = ArgumentSchema(each.schema, function.schema)
            if function.lark:
                return element(each, declared.kind, f"{rules.lark(function.lark)} {rules.expand(closing)}")
            if declared.kind == "string":
                return element(each, "string", tagged_text(declared.resolved.schema, closing, ends, rules, cdata))
            optional = declared.optional
            bare = optional and tagged_text(optional.schema, closing, ends, rules, cdata, optional=not shows_kind)
            if optional is None or not bare:
                return element(each, declared.kind, quoted(each.schema))
            null = rules.until(closing, string_literal("null")) if declared.may_be_null else None
            if shows_kind:
                return one_of(element(each, "string", bare), element(each, "null", null))
            return element(each, "", one_of(bare, quoted(optional.schema), null))

        def quoted(schema: Schema) -> str | None:
            value = json_value(schema, function.schema, rules)
            return value and f"{value} {rules.expand(closing)}"

        def element(each: Parameter, kind: str, value: str | None) -> str | None:
            word = {"integer": "number", "": "object"}.get(kind, kind)
            parts = {
                "key": string_literal(each.name),
                "type": string_literal(word),
                "text": string_literal(str(kind == "string").lower()),
            }
            return value and f"{rules.expand(head, parts)} {value}"

        items = items_of(function.schema, item)
        return f'"\\n" {json_arguments(function, rules)}' if items is None else rules.in_any_order(items, rules.space())

    return write


def one_of(*alternatives: str | None) -> str | None:
    """Return an expression for the alternatives that are not None; None if there are none."""
    found = [each for each in alternatives if each is not None]
    return f"({' | '.join(found)})" if found else None


def pythonic_arguments(function: Function, rules: Rules) -> str:
    """Write `key="text", other=3`: values in JSON, or in Python if a whole parameter is a simple value."""

    def item(each: Parameter) -> str | None:
        value = json_text(function, rules) if function.lark else json_value(each.schema, function.schema, rules)
        if value and not function.lark and (more := _as_python(each.schema)):
            value = f"({' | '.join([value, *more])})"
        return value and f"{string_literal(each.name + '=')} {value}"

    items = items_of(function.schema, item)
    return json_arguments(function, rules) if items is None else rules.in_any_order(items, f'"," {rules.space()}')


def _as_python(schema: Schema) -> list[str]:
    """Return the Python spellings of a schema's values."""
    named = schema.get("type")
    kinds = named if isinstance(named, list) else [named]
    if not schema.keys() <= _PLAIN_KEYWORDS:
        return []
    found = [string_literal(word) for kind, words in _PYTHON_WORDS.items() if kind in kinds for word in words]
    return [*found, _PYTHON_TEXT] if "string" in kinds else found


_PYTHON_WORDS = {"boolean": ("True", "False"), "null": ("None",)}
_PYTHON_TEXT = pattern(r"'([^'\\]|\\['\\n])*'")
_PLAIN_KEYWORDS = frozenset(("type", "description", "title", "default", "examples"))


def items_of(schema: Schema, item: Callable[[Parameter], str | None]) -> list[tuple[str, bool]] | None:
    """Return pairs of a parameter's expression and "is required"; None if a parameter can't be written."""
    found = parameters(schema)
    items = [(item(each), each.required) for each in found or ()]
    written = [(text, required) for text, required in items if text is not None]
    return None if found is None or len(written) < len(items) else written


def json_value(schema: Schema, whole: Schema, rules: Rules) -> str | None:
    """Return a rule for a JSON value with the definitions of `whole`; None if a reference leads elsewhere."""
    if not all(target.startswith(("#/$defs/", "#/definitions/")) for target in _references(whole)):
        return None
    return rules.json({**{key: whole[key] for key in DEFINITIONS if key in whole}, **schema})


def _references(value: JSON) -> Iterator[str]:
    pending = [value]
    while pending:
        match pending.pop():
            case dict() as inner:
                if isinstance(target := inner.get("$ref"), str):
                    yield target
                pending += inner.values()
            case list() as inner:
                pending += inner


def tagged_text(
    schema: Schema, closing: str, ends: Sequence[str], rules: Rules, cdata: bool = False, optional: bool = False
) -> str | None:
    """Return an expression for a verbatim text and its closing tag. An `optional` text must not look like null or
    JSON."""
    forbidden = [end for end in ends if rules.is_text(end)]
    if (chosen := choices(schema)) is not None:
        texts = _verbatim_texts(chosen, forbidden, optional)
        return f"({' | '.join(map(string_literal, texts))}) {rules.expand(closing)}" if texts else None
    body = text_of(schema)
    if body is None:
        return None
    free = excluding(forbidden, body)
    bare = f"{free} & ~{pattern(_NO_TEXT)}" if optional else free
    text = rules.until(closing, f"{bare} & ~{pattern(_CDATA_REGEX)}")
    return f"({text} | {string_literal(_CDATA)} {rules.until(']]>' + closing, free)})" if cdata else text


def _verbatim_texts(chosen: Sequence[JSON], forbidden: Sequence[str], optional: bool) -> list[str]:
    """Return the texts of an enum that can be written verbatim; none if one of its values cannot be written at all."""
    texts = [text for text in chosen if isinstance(text, str)]
    if len(texts) < len(chosen) or any(end in text for text in texts for end in (*forbidden, _CDATA)):
        return []
    return [text for text in texts if not (optional and re.fullmatch(_NO_TEXT, text, re.DOTALL))]


_NO_TEXT = rf"[\s\x1c-\x1f]*({'|'.join(NULLS)}|\".*)[\s\x1c-\x1f]*"
"""Regex of contents that are no bare text by the rule of `ArgumentSchema.optional`."""
_CDATA, _CDATA_REGEX = "<![CDATA[", r"<!\[CDATA\[.*"
"""Opening of a text that may contain closing tags, in some families."""


def choices(schema: Schema) -> list[JSON] | None:
    """Return the values of `const` or `enum`; None if the schema has neither, or further keywords."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) and not schema.keys() & ENFORCED - {"type", "enum", "const"} else None


def text_of(schema: Schema) -> str | None:
    """Return a terminal for a text; None if the schema constrains more than its length."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if schema.keys() & ENFORCED - {"type", "minLength", "maxLength"}:
        return None
    if not isinstance(least, int) or not isinstance(most, int | None) or max(least, most or 0) > _MAX_LENGTH:
        return None
    return pattern(f".{{{least},{'' if most is None else most}}}")


def bounds_of(schema: Schema) -> tuple[int, int | None] | None:
    """Return the bounds of a list's length; None if the schema constrains more than that and the items."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    alone = not schema.keys() & ENFORCED - {"type", "items", "minItems", "maxItems"}
    return (least, most) if alone and isinstance(least, int) and isinstance(most, int | None) else None
