"""Verification of JSON that another server has generated: while it streams, and in full at the end. Pure.

The embedded engine cannot write what a schema forbids. An upstream can, so its output is checked: by a form of the
schema that tolerates any white space, order of keys and escape, since servers differ in these.
"""

from server.verification.json_check import JsonCheck, Mismatch
from server.verification.schema import VerifiedSchema

__all__ = [
    "JsonCheck",
    "Mismatch",
    "VerifiedSchema",
]
