"""Write patterns for all spellings of numbers in `const` and `enum`: JSON Schema compares numbers by value. Pure.

The spellings of 1 include 1.0 and 1e0, but not 10e-1.
https://json-schema.org/draft/2020-12/json-schema-core#section-4.2.2
"""

import math
from collections.abc import Iterable
from decimal import Decimal
from typing import TypeGuard

from engine.json_schema import JSON

MAX_ZEROS = 16
"""Zeros that may follow a number. Models write few; without a bound, an output could be endless."""
_MAX_DIGITS = 20
_EXPONENT = "(?:[eE][+-]?0{1,2})?"


def is_plain_number(value: JSON) -> TypeGuard[int | float]:
    """True if a value is a finite number of moderate size, whose digits the pattern writes out."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, float) and not math.isfinite(value):
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
    patterns = [rf"(?:{'|'.join(whole)})(?:\.{zeros})?", *broken] if whole else broken
    return f"(?:{'|'.join(patterns)}){_EXPONENT}"
