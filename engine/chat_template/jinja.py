"""Functions and methods of Jinja2, as transformers configures it, that minijinja lacks or defines differently. Pure.

A template is untrusted: no function here reads an attribute of a Python object by a name that the template chooses,
and none builds a text much longer than its arguments.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MAX_WIDTH = 1000
"""Characters up to which `ljust` and similar methods pad a text."""

HELPER_ERRORS = (AttributeError, TypeError, ValueError, LookupError, OverflowError, RecursionError)
"""Exceptions of the functions below, and of methods of mappings and lists, when a template passes them wrong values."""


def tojson(
    value: Any,  # a template's value: anything JSON has
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Render JSON as transformers does: letters and angle brackets unescaped, unlike Jinja's own filter for HTML.

    Raises one of HELPER_ERRORS.
    """
    pair = None if separators is None else (separators[0], separators[1])
    if (isinstance(indent, int) and indent > MAX_WIDTH) or (isinstance(indent, str) and len(indent) > MAX_WIDTH):
        raise ValueError(f"tojson indents by at most {MAX_WIDTH} characters")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys, default=_plain
    )


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) else str(value)


def sort(
    value: Iterable[Any], reverse: bool = False, case_sensitive: bool = False, attribute: str | int | None = None
) -> list[Any]:
    """Sort by attributes, without regard to case unless `case_sensitive`."""
    return sorted(value, key=_key(case_sensitive, attribute), reverse=bool(reverse))


def dictsort(
    value: Mapping[Any, Any], case_sensitive: bool = False, by: str = "key", reverse: bool = False
) -> list[tuple[Any, Any]]:
    """Return the items of a mapping, sorted by key or by value. Raises one of HELPER_ERRORS."""
    if by not in ("key", "value"):
        raise ValueError('dictsort takes "key" or "value" for `by`')
    return sorted(value.items(), key=_key(case_sensitive, int(by == "value")), reverse=bool(reverse))


def unique(value: Iterable[Any], case_sensitive: bool = False, attribute: str | int | None = None) -> list[Any]:
    """Return the items whose attributes no earlier item has."""
    key = _key(case_sensitive, attribute)
    found: dict[Any, Any] = {}
    for item in value:
        found.setdefault(tuple(key(item)), item)
    return list(found.values())


def new_dict(value: Any = (), /, **others: Any) -> dict[Any, Any]:
    """Return a new mapping."""
    return dict(value, **others)


def is_iterable(value: object) -> bool:
    """Return False for none, so that `tools is iterable and tools|length > 0` is false without tools."""
    return isinstance(value, Iterable)


def is_sequence(value: object) -> bool:
    """Return True for texts and mappings too, as Jinja does: they have a length and items."""
    return isinstance(value, Sequence | Mapping)


FILTERS: dict[str, Callable[..., Any]] = {"tojson": tojson, "sort": sort, "dictsort": dictsort, "unique": unique}
TESTS: dict[str, Callable[..., bool]] = {"iterable": is_iterable, "sequence": is_sequence}


def _key(case_sensitive: bool, attribute: str | int | None) -> Callable[[Any], list[Any]]:
    """Return a sort key: an item's attributes (`a.b,c`), with texts in lower case unless `case_sensitive`."""
    parts = attribute.split(",") if isinstance(attribute, str) else [attribute]

    def key(item: Any) -> list[Any]:
        found = [_attribute(item, part) for part in parts]
        return [each if case_sensitive or not isinstance(each, str) else each.lower() for each in found]

    return key


def _attribute(item: Any, path: str | int | None) -> Any:
    if isinstance(path, str):
        names: list[str | int] = [int(name) if name.isdecimal() else name for name in path.split(".")]
    else:
        names = [] if path is None else [path]
    for name in names:
        if isinstance(item, Mapping):
            item = item.get(name)
        elif isinstance(item, Sequence) and isinstance(name, int):
            item = item[name]
        else:
            return None
    return item


_TEXT = (
    "casefold center count index isdecimal isidentifier isprintable ljust partition removeprefix removesuffix rindex"
)
"""Methods of texts that minijinja lacks."""
METHODS: dict[type, tuple[str, ...]] = {
    str: (*_TEXT.split(), "rjust", "rpartition", "rsplit", "split", "swapcase", "zfill"),
    list: ("copy", "count", "index"),
    tuple: ("count", "index"),
    dict: ("copy",),
}
"""Methods of Python values that minijinja lacks, or has with other arguments."""
PADDING = ("center", "ljust", "rjust", "zfill")
"""Methods that make a text longer."""
METHOD = "_method"
"""Global function of the environment that `minijinja_source.with_methods` writes calls to."""


def method(value: Any, name: str, *arguments: Any, **named: Any) -> Any:
    """Call a method as Python does. Raises one of HELPER_ERRORS."""
    kind = next((kind for kind in METHODS if isinstance(value, kind)), None)
    if kind is None or name not in METHODS[kind]:
        raise TypeError(f"{type(value).__name__} has no method named {name}")
    if name in PADDING and arguments and arguments[0] > MAX_WIDTH:
        raise ValueError(f"{name} takes at most {MAX_WIDTH} characters")
    return getattr(kind, name)(value, *arguments, **named)
