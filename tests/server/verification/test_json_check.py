"""The check of JSON while it streams."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.verification import JsonCheck, Mismatch, VerifiedSchema
from tests.server.verification.test_schema import SCHEMAS, VALUES

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Rome", "Oslo"]},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "at": {"$ref": "#/$defs/place"},
        "name": {"type": "string", "maxLength": 3},
        "kind": {"const": "a"},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number"}}, "additionalProperties": False}},
}


def accepted(text: str, schema: Any) -> str:
    """Return the part of a text that is accepted, by single characters; `whole` if it is complete too."""
    check = JsonCheck(VerifiedSchema(schema))
    for place, character in enumerate(text):
        try:
            check.feed(character)
        except Mismatch:
            return text[:place]
    try:
        check.finish()
    except Mismatch:
        return text
    return "whole"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"city":"Rome"}', "whole"),
        (' {\n "days" : [ 1, 2 ] ,\t"city":"\\u0052ome" } \r\n', "whole"),
        ('{"city":"Rome","at":{"x":-1.5e3}}', "whole"),
        ('Sure: {"city":"Rome"}', ""),
        ("```json", ""),
        ('["Rome"]', ""),
        ('{"town":1}', '{"'),
        ('{"cities":1}', '{"cit'),
        ('{"cit":1}', '{"cit'),
        ('{"\\u0063it":1}', '{"\\u0063it'),
        ('{"city":1}', '{"city":'),
        ('{"city":"Bonn"}', '{"city":"'),
        ('{"city":"Rom"}', '{"city":"Rom'),
        ('{"city":"\\u0052oma"}', '{"city":"\\u0052om'),
        ('{"city":"Rome","name":"abcd"}', '{"city":"Rome","name":"abc'),
        ('{"city":"Rome","name":"\\u0061bcd"}', '{"city":"Rome","name":"\\u0061bc'),
        ('{"city":"Rome","kind":"b"}', '{"city":"Rome","kind":"'),
        ('{"city":"Rome","days":[1,0]}', '{"city":"Rome","days":[1,0'),
        ('{"city":"Rome","days":[1,"2"]}', '{"city":"Rome","days":[1,'),
        ('{"city":"Rome","at":{"y":1}}', '{"city":"Rome","at":{"'),
        ('{"days":[1]}', '{"days":[1]'),
        ('{"city":"Rome","city":"Oslo"}', '{"city":"Rome","city'),
        ('{"city":"Rome"} Done.', '{"city":"Rome"} '),
        ('{"city":"Rome"', '{"city":"Rome"'),
        ('{"city":"Rome",}', '{"city":"Rome",'),
        ('{,"city":"Rome"}', "{"),
        ('{"city" "Rome"}', '{"city" '),
        ('{"city":"Rome"]', '{"city":"Rome"'),
        ('{"city":"R\nome"}', '{"city":"R'),
        ('{"city":"Rome","name":"\n"}', '{"city":"Rome","name":"'),
        ('{"city":"Rome","name":"\\x"}', '{"city":"Rome","name":"\\'),
        ('{"city":"Rome","days":[01]}', '{"city":"Rome","days":[01'),
        ('{"city":nul', '{"city":'),
    ],
)
def test_text_is_accepted_up_to_the_part_that_breaks_the_schema(text: str, expected: str) -> None:
    assert accepted(text, CITY) == expected


@pytest.mark.parametrize(("text", "expected"), [("12", "whole"), ("1.5.2", "1.5.2"), ("", ""), ("tru", "tru")])
def test_scalar_ends_with_the_text(text: str, expected: str) -> None:
    assert accepted(text, True) == expected


@pytest.mark.slow
@given(SCHEMAS, VALUES, st.booleans(), st.integers(1, 7))
def test_check_accepts_exactly_the_values_that_match(schema: Any, value: Any, spaced: bool, size: int) -> None:
    root = {"allOf": [schema], "$defs": {"a": {"type": "object"}}}
    verified = VerifiedSchema(schema if isinstance(schema, dict) and "$ref" not in json.dumps(schema) else root)
    check, text = JsonCheck(verified), json.dumps(value, indent=2 if spaced else None)
    try:
        for start in range(0, len(text), size):
            check.feed(text[start : start + size])
        check.finish()
        accepts = True
    except Mismatch:
        accepts = False
    assert accepts == (verified.fault(value, verified.root) is None)


@given(VALUES, st.integers(1, 7))
def test_any_json_matches_the_empty_schema(value: Any, size: int) -> None:
    check, text = JsonCheck(VerifiedSchema({})), json.dumps(value)
    for start in range(0, len(text), size):
        check.feed(text[start : start + size])
    check.finish()


@given(st.text(alphabet='{}[]",:\\u0 1ntrue.-', max_size=30))
def test_text_is_accepted_exactly_if_it_is_json(text: str) -> None:
    def constant(name: str) -> None:
        raise ValueError(name)

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(found)) < len(found):
            raise ValueError("twice")
        return dict(found)

    try:
        json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except ValueError:
        assert accepted(text, True) != "whole"
    else:
        assert accepted(text, True) == "whole"
