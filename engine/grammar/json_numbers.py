"""Numbers that a schema lists, as patterns of all their spellings: JSON Schema compares numbers by value. Pure.

1 is also 1.0 and 1e0, though not 10e-1. https://json-schema.org/draft/2020-12/json-schema-core#section-4.2.2
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeGuard

from engine.json_schema import JSON

MAX_ZEROS = 16
"""Zeros that may follow a number: models write few, but never without end."""
_MAX_DIGITS = 20
_EXPONENT = "(?:[eE][+-]?0{1,2})?"


def is_plain_number(value: JSON) -> TypeGuard[int | float]:
    """True if a value is a number whose digits are written out."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return abs(Decimal(str(value)).adjusted()) <= _MAX_DIGITS


def spellings(values: Iterable[int | float]) -> str:
    """Return the regex that matches each of the values in any spelling, and nothing else."""
    zeros = f"0{{1,{MAX_ZEROS}}}"
    whole, broken = [], []
    for value in values:
        integer, _, fraction = f"{Decimal(str(value)):f}".partition(".")
        integer = "-?0" if integer in ("0", "-0") and not fraction.strip("0") else integer
        if fraction := fraction.rstrip("0"):
            broken.append(rf"{integer}\.{fraction}0{{0,{MAX_ZEROS}}}")
        else:
            whole.append(integer)
    ways = [rf"(?:{'|'.join(whole)})(?:\.{zeros})?", *broken] if whole else broken
    return f"(?:{'|'.join(ways)}){_EXPONENT}"
