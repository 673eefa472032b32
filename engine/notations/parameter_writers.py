"""Write grammars for arguments that stand between tags, or as in a programming language. Pure.

`parameters` reads these arguments, and the result must be valid. If that cannot be guaranteed, all arguments are
written as JSON in the same place: for example if a text between tags must match a `pattern`, or if a parameter's name
contains a bracket.
"""

import re
from collections.abc import Iterator, Sequence

from engine.grammar import Rules, excluding, pattern, string_literal
from engine.json_schema import JSON
from engine.notations.argument_schema import DEFINITIONS, ArgumentSchema, Parameter, Schema, choices
from engine.notations.call_format import Function, Write, json_arguments, json_text
from engine.notations.parameters import Tags
from engine.notations.value_writers import items_of, python_value, text_of


def tagged_arguments(tags: Tags, parameter: str, cdata: bool = False, python: bool = False) -> Write:
    """Return a writer of arguments between tags: texts verbatim, or as XML `CDATA` if `cdata` is set; others as JSON,
    or as in Python too if `python` is set.

    `parameter` is a template with `$key` and `$value`. `$type` is the JavaScript type, `$text` is "true" for a text.
    """
    head, _, closing = parameter.partition("$value")
    shows_kind = "$type" in head or "$text" in head
    """True if the type of a value is written before it."""

    def write(function: Function, rules: Rules) -> str:
        forbidden = [end for end in tags.ends if rules.is_text(end)]

        def item(each: Parameter) -> str | None:
            declared = ArgumentSchema(each.schema, function.schema)
            if function.lark:
                return element(each, declared.kind, f"{rules.lark(function.lark)} {rules.expand(closing)}")
            if declared.kind == "string":
                return element(each, "string", tagged_text(declared.resolved.schema, closing, tags.ends, rules, cdata))
            text = declared.text
            no_text = "" if shows_kind else texts_of_other_kinds(declared)
            bare = text and tagged_text(text.schema, closing, tags.ends, rules, cdata, no_text)
            if text is None or not bare:
                return element(each, declared.kind, quoted(each.schema))
            if shows_kind and declared.optional is not None:
                null = rules.until(closing, '"null"') if declared.may_be_null else None
                return one_of(element(each, "string", bare), element(each, "null", null))
            if shows_kind:
                return one_of(element(each, "string", bare), element(each, "", quoted(each.schema)))
            other = quoted(text.schema if declared.optional is not None else each.schema)
            return element(each, "", one_of(bare, other, word_of(declared, closing, rules)))

        def quoted(schema: Schema) -> str | None:
            value = json_value(schema, function.schema, rules)
            if value and python and (more := python_value(schema, function.schema, rules, forbidden)):
                value = f"({value} | {more})"
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
    """Write `key="text", other=3`: each value in JSON or in Python."""

    def item(each: Parameter) -> str | None:
        value = json_text(function, rules) if function.lark else json_value(each.schema, function.schema, rules)
        if value and not function.lark:
            value = one_of(value, python_value(each.schema, function.schema, rules, texts=True))
        return value and f"{string_literal(each.name + '=')} {value}"

    items = items_of(function.schema, item)
    return json_arguments(function, rules) if items is None else rules.in_any_order(items, f'"," {rules.space()}')


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
    schema: Schema, closing: str, ends: Sequence[str], rules: Rules, cdata: bool = False, no_text: str = ""
) -> str | None:
    """Return an expression for a verbatim text and its closing tag. `no_text` is a regex of contents that are none."""
    forbidden = [end for end in ends if rules.is_text(end)]
    if (chosen := choices(schema)) is not None:
        texts = _verbatim_texts(chosen, forbidden, no_text)
        return f"({' | '.join(map(string_literal, texts))}) {rules.expand(closing)}" if texts else None
    body = text_of(schema)
    if body is None:
        return None
    free = excluding(forbidden, body)
    bare = f"{free} & ~{pattern(no_text)}" if no_text else free
    text = rules.until(closing, f"{bare} & ~{pattern(_CDATA_REGEX)}")
    return f"({text} | {string_literal(_CDATA)} {rules.until(']]>' + closing, free)})" if cdata else text


def _verbatim_texts(chosen: Sequence[JSON], forbidden: Sequence[str], no_text: str) -> list[str]:
    """Return the texts of an enum that can be written verbatim; none if one of its values cannot be written at all."""
    texts = [text for text in chosen if isinstance(text, str)]
    if len(texts) < len(chosen) or any(end in text for text in texts for end in (*forbidden, _CDATA)):
        return []
    return [text for text in texts if not (no_text and re.fullmatch(no_text, text, re.DOTALL))]


def word_of(declared: ArgumentSchema, closing: str, rules: Rules) -> str | None:
    """Return an expression for a permitted `true`, `false` or `null` and its closing tag; None if none is permitted.

    It is one terminal, as a bare text with its closing tag is: the lexer takes the longest.
    """
    kinds, schema = declared.kinds, declared.resolved.schema
    chosen = [schema["const"]] if "const" in schema else schema.get("enum")
    words = [
        word
        for kind, values in _WORDS.items()
        for word, value in values.items()
        if (kinds is None or kind in kinds) and (not isinstance(chosen, list) or any(each is value for each in chosen))
    ]
    return rules.until(closing, pattern(f"{_SPACES}({'|'.join(words)}){_SPACES}")) if words else None


def texts_of_other_kinds(declared: ArgumentSchema) -> str:
    """Return a regex of contents that are no bare text, since they read as another type that is permitted, or as a
    quoted text."""
    kinds = declared.kinds or frozenset((*_WORDS, *_CONTENTS))
    found = ['".*'] if declared.optional is not None else [r"[\"'(].*"]
    found += dict.fromkeys(regex for kind, regex in _CONTENTS.items() if kind in kinds)
    found += [word for kind, words in _WORDS.items() if kind in kinds for word in words]
    return rf"{_SPACES}({'|'.join(found)}){_SPACES}"


_SPACES = r"[\s\x1c-\x1f]*"
_NUMBER = r"[+\-.0-9].*"
_CONTENTS = {"integer": _NUMBER, "number": _NUMBER, "object": r"\{.*", "array": rf"\[.*|{_NUMBER}"}
"""Type -> regex that contains all contents that `infer_value` reads as it."""
_WORDS: dict[str, dict[str, bool | None]] = {
    "boolean": {"true": True, "True": True, "false": False, "False": False},
    "null": {"null": None, "None": None},
}
_CDATA, _CDATA_REGEX = "<![CDATA[", r"<!\[CDATA\[.*"
"""Opening of a text that may contain closing tags, in some families."""
