"""Read calls whose arguments are nested elements (MiniMax M3). Pure.

    <invoke name="move"><place><north>3</north><names><item>a</item><item>b</item></names></place></invoke>

A mark precedes each tag. Types are not written: an element with an `item` is a list and an empty element is a text,
unless the schema declares another type.
"""

from engine.notations.argument_schema import UNDECLARED, ArgumentSchema
from engine.notations.json_objects import Offered, Read
from engine.notations.json_values import ListEmitter, ObjectEmitter, discard, emit_arguments, emit_value
from engine.notations.parsed import ToolCallEnd, ToolCallStart
from engine.notations.scanner import ReaderSteps, Scanner
from engine.notations.tagged_calls import MAX_NESTING, Tags, tagged_value

CALL, ITEM = "invoke", "item"
_EMPTY = {"object": "{}", "array": "[]"}


def elements(mark: str) -> Read:
    """Return a reader of calls whose arguments are nested elements. `mark` precedes each tag."""
    begin, end = f'{mark}<{CALL} name="', f"{mark}</{CALL}>"

    def read(scanner: Scanner, offered: Offered) -> ReaderSteps[None]:
        while True:
            yield from scanner.skip_space()
            if not (yield from scanner.skip_literal(begin)):
                return
            head, marker = yield from scanner.collect((">", mark))
            if scanner.is_cut_before(marker):
                return
            if marker == mark:
                scanner.unread(marker)
            if not (name := head.split('"')[0].strip()):
                return
            scanner.output.append(ToolCallStart(name))
            yield from scanner.skip_space()
            if (yield from scanner.peek()) == "{":
                yield from emit_value(scanner, emit_arguments(scanner))
                yield from scanner.until((end,), discard)
            else:
                yield from _Elements(scanner, mark).children(CALL, offered.get(name, UNDECLARED), False, 0)
            scanner.output.append(ToolCallEnd())

    return read


class _Elements:
    """Reads the elements of one call."""

    def __init__(self, scanner: Scanner, mark: str) -> None:
        self._scanner = scanner
        self._mark = mark
        self._end, self._another = f"{mark}</{CALL}>", f'{mark}<{CALL} name="'
        self._emit = emit_arguments(scanner)

    def children(self, tag: str, declared: ArgumentSchema, is_list: bool, depth: int) -> ReaderSteps[None]:
        """Read the children of an element and its end tag. The end of the call, or the start of another call, ends the
        element too and is not consumed."""
        scanner = self._scanner
        begin, end = f"{self._mark}<", f"{self._mark}</{tag}>"
        children = ListEmitter(self._emit) if is_list else ObjectEmitter(self._emit)
        ends = (end, self._end, self._another)
        while (marker := (yield from scanner.until((begin, *ends), discard))) == begin:
            inner, marker = yield from scanner.collect((">",))
            if scanner.is_cut_before(marker):
                return
            if inner.startswith("/"):  # an end tag without a start tag
                continue
            if children.begin(inner):
                yield from self._value(inner, declared.item if is_list else declared.parameter(inner), depth)
            else:
                yield from scanner.until((f"{self._mark}</{inner}>", *ends), discard)
        if scanner.is_cut_before(marker):
            return
        if marker != end:
            scanner.unread(marker)
        children.end()

    def _value(self, tag: str, declared: ArgumentSchema, depth: int) -> ReaderSteps[None]:
        scanner, type_ = self._scanner, declared.type
        is_text = type_ == "string" or declared.optional is not None
        first = "" if is_text or depth == MAX_NESTING else (yield from self._peek_tag())
        if first == f"/{tag}" and type_ in _EMPTY:
            yield from scanner.until((f"{self._mark}<{first}>",), discard)
            self._emit(_EMPTY[type_])
        elif first and not first.startswith("/"):
            yield from self.children(tag, declared, _is_list(type_, first), depth + 1)
        else:
            tags = Tags("", (), (self._end,), "", "", "", f"{self._mark}</{tag}>")
            yield from tagged_value(scanner, tags, self._emit, declared)

    def _peek_tag(self) -> ReaderSteps[str]:
        """Return the name of the next tag without consuming it; empty if no tag follows."""
        scanner, first = self._scanner, ""
        place = scanner.mark()
        yield from scanner.skip_space()
        if (yield from scanner.skip_literal(f"{self._mark}<")):
            first, _ = yield from scanner.collect((">",))
        scanner.rewind(place)
        return first


def _is_list(type_: str, first: str) -> bool:
    """True if an element is a list, by its declared type or the tag of its first child."""
    return type_ == "array" or (type_ != "object" and first == ITEM)
