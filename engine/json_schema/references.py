"""References within a schema: JSON pointers (RFC 6901) and anchors. Pure."""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from urllib.parse import unquote

from engine.json_schema.values import JSON, Schema

MAX_REF_CHAIN = 16
"""References that are followed one after the other."""

MAX_STEPS = 3_000
"""Schemas that are rewritten or negated in one document, besides its own: 0.3 s."""

_IN_PLACE = ("anyOf", "oneOf", "allOf")


def pointer_of(root: JSON, target: str) -> str:
    """Return the JSON pointer of a reference within the document `root`. Return other references unchanged."""
    document = root if isinstance(root, dict) else {}
    target = unquote(_without_base(document, target))
    if target in ("#", "#/"):
        return "#"
    if target.startswith("#") and not target.startswith("#/"):
        return next((pointer for pointer, name in _anchors(document) if name == target[1:]), target)
    return target


def _without_base(root: Schema, target: str) -> str:
    """Return the reference without the document's own identifier."""
    for base in (root.get("$id"), root.get("id")):
        if isinstance(base, str) and base and target.startswith(base.rstrip("#")):
            target = "#" + target.removeprefix(base.rstrip("#")).lstrip("#")
    return target


def _anchors(root: JSON) -> Iterator[tuple[str, str]]:
    """Yield pointer and name of each anchor."""
    pending = [("#", root)]
    while pending:
        pointer, value = pending.pop()
        if isinstance(value, dict):
            for key in ("$anchor", "$dynamicAnchor", "$id", "id"):
                if isinstance(name := value.get(key), str):
                    yield pointer, name.removeprefix("#")
            pending += [(_step(pointer, name), each) for name, each in value.items()]
        elif isinstance(value, list):
            pending += [(f"{pointer}/{n}", each) for n, each in enumerate(value)]


def resolved(root: JSON, pointer: str) -> JSON:
    """Return the schema that a JSON pointer refers to. Raises LookupError."""
    if pointer == "#":
        return root
    if not pointer.startswith("#/"):
        raise LookupError(pointer)
    found = root
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found[step]
        elif isinstance(found, list) and step.isdecimal():
            found = found[int(step)]
        else:
            raise LookupError(pointer)
    return found


class Document:
    """A whole schema, in which references are followed."""

    def __init__(self, root: JSON, has_alternatives: bool = True) -> None:
        """Set `has_alternatives` to False to leave keywords that become alternatives as they are."""
        self.has_alternatives = has_alternatives
        self._root = root
        self._steps = MAX_STEPS + _n_objects(root)

    def follow(self, schema: JSON) -> Schema:
        """Return the schema at the end of a chain of references; an empty one if they do not resolve."""
        for _ in range(MAX_REF_CHAIN):
            if not isinstance(schema, dict) or not isinstance(target := schema.get("$ref"), str):
                break
            try:
                schema = resolved(self._root, pointer_of(self._root, target))
            except LookupError:
                return {}
        return schema if isinstance(schema, dict) else {}

    def take_step(self) -> bool:
        """Count a step of rewriting; False if there were too many, since nested alternatives multiply."""
        self._steps -= 1
        return self._steps >= 0


def _n_objects(root: JSON) -> int:
    found, pending = 0, [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            found += 1
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return found


def cycle_of(root: JSON, definitions: Mapping[str, JSON]) -> list[str]:
    """Return references that form a cycle without consuming any input; none if there is no cycle."""
    graph = {"#": list(_in_place_references(root))}
    graph |= {f"#/$defs/{name}": list(_in_place_references(schema)) for name, schema in definitions.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _in_place_references(schema: JSON) -> Iterator[str]:
    """Yield the references that apply to the value itself, not to a part of it."""
    if not isinstance(schema, dict):
        return
    if isinstance(target := schema.get("$ref"), str):
        yield target
    for key in _IN_PLACE:
        if isinstance(schemas := schema.get(key), list):
            for each in schemas:
                yield from _in_place_references(each)


def _step(pointer: str, name: str) -> str:
    """Return the JSON pointer (RFC 6901) to a member."""
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def place_of(pointer: str) -> str:
    """Return the place of a JSON pointer, as errors name it."""
    return ".".join(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
