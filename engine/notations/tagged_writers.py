"""Write grammars for arguments that stand between tags, which `tagged_calls` reads. Pure.

The arguments must be valid. If that cannot be guaranteed, all are written as JSON in the same place: for example if a
text between tags must match a `pattern`, or if a parameter's name contains a bracket.
"""

import re
from collections.abc import Sequence

from engine.grammar import Rules, excluding, pattern, string_literal
from engine.json_schema import JSON, Schema, listed_values
from engine.notations.argument_schema import ArgumentSchema, Parameter, choices
from engine.notations.call_format import Function, Write, json_arguments
from engine.notations.python_calls import python_value
from engine.notations.tagged_calls import Tags
from engine.notations.value_writers import items_of, json_value, one_of, text_of


def tagged_arguments(tags: Tags, parameter: str, cdata: bool = False, python: bool = False) -> Write:
    """Return a writer of arguments between tags: texts verbatim, or as XML `CDATA` if `cdata` is set; others as JSON,
    or as in Python too if `python` is set.

    `parameter` is a template with `$key` and `$value`. `$type` is the JavaScript type, `$text` is "true" for a text.
    """
    head, _, closing = parameter.partition("$value")

    def write(function: Function, rules: Rules) -> str:
        writer = _TaggedArguments(function, rules, tags, head, closing, cdata, python)
        items = items_of(function.schema, writer.item)
        return f'"\\n" {json_arguments(function, rules)}' if items is None else rules.in_any_order(items, rules.space())

    return write


class _TaggedArguments:
    """Writes the arguments of one function."""

    def __init__(
        self, function: Function, rules: Rules, tags: Tags, head: str, closing: str, cdata: bool, python: bool
    ) -> None:
        self._function = function
        self._rules = rules
        self._ends = tags.ends
        self._head, self._closing = head, closing
        """Templates of the text before a value and after it."""
        self._cdata = cdata
        self._python = python
        self._shows_type = "$type" in head or "$text" in head
        """True if the type of a value is written before it."""

    def item(self, each: Parameter) -> str | None:
        """Return an expression for an argument; None if it can't be written."""
        declared = ArgumentSchema(each.schema, self._function.schema)
        if self._function.lark:
            value = f"{self._rules.lark(self._function.lark)} {self._rules.expand(self._closing)}"
            return self._element(each, declared.type, value)
        if declared.type == "string":
            return self._element(each, "string", self._bare(declared.resolved.schema))
        text = declared.text
        bare = text and self._bare(text.schema, "" if self._shows_type else texts_of_other_types(declared))
        if text is None or not bare:
            return self._element(each, declared.type, self._quoted(each.schema))
        if self._shows_type:
            return one_of(self._element(each, "string", bare), self._other_element(each, declared))
        other = self._quoted(text.schema if declared.optional is not None else each.schema)
        return self._element(each, "", one_of(bare, other, word_of(declared, self._closing, self._rules)))

    def _other_element(self, each: Parameter, declared: ArgumentSchema) -> str | None:
        """Return an element for a value that may be a text, but is none."""
        if declared.optional is None:
            return self._element(each, "", self._quoted(each.schema))
        null = self._rules.until(self._closing, '"null"') if declared.may_be_null else None
        return self._element(each, "null", null)

    def _bare(self, schema: Schema, no_text: str = "") -> str | None:
        """Return a verbatim text; see `tagged_text`."""
        return tagged_text(schema, self._closing, self._ends, self._rules, self._cdata, no_text)

    def _quoted(self, schema: Schema) -> str | None:
        """Return a value in JSON, or in Python if the family reads both."""
        rules, whole = self._rules, self._function.schema
        value = json_value(schema, whole, rules)
        forbidden = [end for end in self._ends if rules.is_text(end)]
        if value and self._python and (more := python_value(schema, whole, rules, forbidden)):
            value = f"({value} | {more})"
        return value and f"{value} {rules.expand(self._closing)}"

    def _element(self, each: Parameter, type_: str, value: str | None) -> str | None:
        word = {"integer": "number", "": "object"}.get(type_, type_)
        parts = {
            "key": string_literal(each.name),
            "type": string_literal(word),
            "text": string_literal(str(type_ == "string").lower()),
        }
        return value and f"{self._rules.expand(self._head, parts)} {value}"


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
    types, listed = declared.types, listed_values(declared.resolved.schema)
    words = [
        word
        for name, values in _WORDS.items()
        for word, value in values.items()
        if (types is None or name in types) and (listed is None or any(each is value for each in listed))
    ]
    return rules.until(closing, pattern(f"{_SPACES}({'|'.join(words)}){_SPACES}")) if words else None


def texts_of_other_types(declared: ArgumentSchema) -> str:
    """Return a regex of contents that are not a bare text, since they read as another type that is permitted, or as a
    quoted text."""
    types = declared.types or frozenset((*_WORDS, *_CONTENTS))
    found = ['".*'] if declared.optional is not None else [r"[\"'(].*"]
    found += dict.fromkeys(regex for name, regex in _CONTENTS.items() if name in types)
    found += [word for name, words in _WORDS.items() if name in types for word in words]
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
