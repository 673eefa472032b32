"""Validation by a schema, with the package jsonschema as the oracle."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.verification import VerifiedSchema
from server.verification.patterns import compiled
from tests.support.schemas import REAL_SCHEMAS

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.5, 1.0, -2.0])
    | st.sampled_from(["", "a", "bb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
SIZES = st.integers(0, 3)
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
        | st.just(["string", "null"]),
        "const": VALUES,
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": SIZES,
        "maxLength": SIZES,
        "pattern": st.sampled_from(["^a", "b$", "a|b"]),
        "minItems": SIZES,
        "maxItems": SIZES,
        "uniqueItems": st.booleans(),
        "minProperties": SIZES,
        "required": st.lists(NAMES, unique=True, max_size=2),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=2), max_size=2),
    },
)
REFERENCES = st.sampled_from([{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a", "type": "object"}])


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array"]),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": inner,
            "items": inner,
            "prefixItems": lists,
            "contains": inner,
            "minContains": SIZES,
            "allOf": lists,
            "anyOf": lists,
            "oneOf": lists,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
        },
    )


SCHEMAS = st.recursive(LEAVES | st.booleans() | REFERENCES, _larger, max_leaves=6)


@pytest.mark.slow
@given(SCHEMAS, LEAVES, VALUES)
def test_schema_accepts_exactly_the_values_that_jsonschema_accepts(schema: Any, part: Any, value: Any) -> None:
    root = {"allOf": [schema], "$defs": {"a": part}}
    expected = jsonschema.Draft202012Validator(root).is_valid(value)
    assert (VerifiedSchema(root).fault(value, root) is None) == expected


FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**400), 10**400)


@given(FINITE, FINITE, FINITE)
@example(1e300, 1e-300, 0)
@example(10**400, 0.5, 0)
def test_number_of_any_size_has_a_verdict(value: float, step: float, limit: float) -> None:
    for name, number in (("multipleOf", step), ("minimum", limit), ("const", limit), ("enum", [step, limit])):
        schema = {"type": ["integer", "number"], name: number}
        assert isinstance(VerifiedSchema(schema).fault(value, schema), str | None)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_SCHEMAS.exists(), reason="the data set is missing")
def test_most_real_schemas_are_verified_in_full() -> None:
    schemas = [json.loads(line) for line in REAL_SCHEMAS.read_text().splitlines()]
    whole = sum(not VerifiedSchema(each.get("schema", each)).unverified() for each in schemas)
    assert whole > 0.95 * len(schemas)


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ({"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}}, ["properties.a.pattern"]),
        ({"patternProperties": {"(": {}}}, ["patternProperties.("]),
        ({"unevaluatedProperties": False}, ["unevaluatedProperties"]),
        ({"items": {"$ref": "https://example.org/other"}}, ["items.$ref"]),
        ({"anyOf": [{"$ref": "#/$defs/no"}]}, ["anyOf.0.$ref"]),
        ({"anyOf": [{"$ref": "#/anyOf/²"}]}, ["anyOf.0.$ref"]),
        ({"properties": {"a": {"type": "text"}}, "required": "a"}, ["properties.a.type", "required"]),
        ({"items": [{"minLength": "1"}], "anyOf": 7}, ["items.0.minLength", "anyOf"]),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}, []),
    ],
)
def test_keywords_that_cannot_be_verified_are_named(schema: Any, paths: list[str]) -> None:
    assert VerifiedSchema(schema).unverified() == paths


@pytest.mark.parametrize(
    ("pattern", "linear"),
    [
        ("^[a-z]+(-[a-z]+)?$", True),
        (r"^\d{4}-\d{2}-\d{2}$", True),
        ("^(ab|cd)$", True),
        ("[(]+a*", True),
        (r"\(a+\)+", True),
        ("(a+)+", False),
        ("(a|aa)+$", False),
        ("((a)*)*", False),
        ("(a{2,}){3}", False),
        ("a*a*a*a*b", False),
        ("(", False),
    ],
)
def test_only_patterns_of_bounded_time_are_used(pattern: str, linear: bool) -> None:
    assert (compiled(pattern) is not None) == linear
