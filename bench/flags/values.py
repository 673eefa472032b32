"""Values of flags: each function parses one kind, or raises argparse's error."""

import argparse
import json
from pathlib import Path
from typing import Any

from load import Length
from measures import Objectives, read_floor


def count(text: str) -> int:
    """Parse a number of at least 1."""
    if (number := _whole(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def count_or_0(text: str) -> int:
    """Parse a number of at least 0."""
    if (number := _whole(text)) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def field(text: str) -> tuple[str, Any]:
    """Parse a field of a request: JSON, or a text without quotes."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def number_above_0(text: str) -> float:
    """Parse a number above 0, such as of seconds."""
    if not (number := _number(text)) > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def share(text: str) -> float:
    """Parse a share."""
    if not 0 < (number := _number(text)) <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return number


def levels(text: str) -> tuple[str, list[float]]:
    """Parse the kind and the levels of a sweep."""
    kind, separator, rest = text.partition("=")
    if kind not in ("concurrency", "rate"):
        raise argparse.ArgumentTypeError(f"{text!r} is not concurrency or rate, such as concurrency=1,2,4")
    return kind, sorted(
        (count if kind == "concurrency" else number_above_0)(each) for each in rest.split(",") if separator
    )


def length(text: str) -> Length:
    """Parse a distribution of lengths."""
    try:
        return Length.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def floor(text: str) -> dict[str, Any]:
    """Parse the output of bench/floor.py."""
    try:
        return read_floor(Path(text))
    except OSError as error:
        message = f"{text} cannot be read: {error.strerror}; `python bench/floor.py --model FILE > {text}` writes it"
        raise argparse.ArgumentTypeError(message) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def objectives(text: str) -> Objectives:
    """Parse objectives."""
    try:
        return Objectives.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number without a unit") from error
