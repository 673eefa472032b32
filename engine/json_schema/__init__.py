"""JSON schemas, checked and rewritten for the grammar compiler. Imports the root only."""

from engine.json_schema.check import CheckedSchema
from engine.json_schema.faults import skeleton
from engine.json_schema.values import (
    ENFORCED,
    JSON,
    SUPPORTED,
    TYPES,
    TYPES_OF_KEYWORDS,
    Schema,
    bounds,
    depth,
    listed_values,
    type_of,
    types_of,
)

__all__ = [
    "ENFORCED",
    "JSON",
    "SUPPORTED",
    "TYPES",
    "TYPES_OF_KEYWORDS",
    "CheckedSchema",
    "Schema",
    "bounds",
    "depth",
    "listed_values",
    "skeleton",
    "type_of",
    "types_of",
]
