"""Description of an HTTP API by OpenAPI 3.1, generated from the Structs of its bodies.

Imports `protocol`, `session` and `stream`.
"""

from server.openapi.document import document
from server.openapi.operation import Operation
from server.openapi.schemas import EVENT, ITEM, ITEM_LIST

__all__ = [
    "EVENT",
    "ITEM",
    "ITEM_LIST",
    "Operation",
    "document",
]
