"""`tools`, read: what each of them is to the model, and what the response echoes. Pure.

To the model all of them are functions. A namespace's are called `namespace__name` there, and one that takes a text has
a single parameter, `input`. What can't be served is skipped, never a 4xx: Codex always sends `web_search`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Raw, Struct

from engine.chat_template import Tool
from server.protocol.errors import InvalidRequest
from server.protocol.fields import absent
from server.protocol.request import NULL, Typed, part
from server.protocol.tools import NULL as NO_FORMAT
from server.protocol.tools import CustomTool, FunctionTool, NamespaceTool, ToolEcho
from server.stream import ToolCallStarted

NO_PARAMETERS = '{"type":"object","properties":{}}'
TEXT_INPUT = '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}'

ToolName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]


def qualified_name(name: str, namespace: str | None) -> str:
    """A function's name for the model."""
    return f"{namespace}__{name}" if namespace else name


class FunctionParam(Struct, frozen=True):
    """`function`, of `tools`."""

    name: ToolName
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class CustomParam(Struct, frozen=True):
    """`custom`: a tool that takes a text."""

    name: ToolName
    description: str | None = None
    format: Raw = NULL


class NamespaceParam(Struct, frozen=True):
    """`namespace`: tools under one name (Codex, MCP)."""

    name: ToolName
    description: str | None = None
    tools: list[Raw] = []


class PlainInput(Struct, frozen=True, tag="text"):
    """Of a custom tool: any text."""


class GrammarInput(Struct, frozen=True, tag="grammar"):
    syntax: str
    """`lark` or `regex`."""
    definition: str


Input: TypeAlias = PlainInput | GrammarInput


class ToolSpec(Struct, frozen=True):
    """One function that the model may call."""

    tool: Tool
    calling: ToolCallStarted
    """As the client knows it."""
    place: str
    """In the request, what it has to be held to."""
    strict: bool = False
    """Whether it has to be held to its schema."""
    input: Input | None = None
    """Of a custom tool."""

    @property
    def kind(self) -> Literal["function", "custom"]:
        return "custom" if self.calling.custom else "function"


def by_name(offers: Sequence[ToolSpec]) -> dict[str, ToolSpec]:
    """By the names that the model may call them: one that leaves a namespace out is understood where that is plain."""
    known = Counter(offer.calling.name for offer in offers)
    short = {offer.calling.name: offer for offer in offers if known[offer.calling.name] == 1}
    return short | {offer.tool.name: offer for offer in offers}


class ToolReader:
    """Reads tools; `offers` gathers what can be called, `skipped` what is not known."""

    def __init__(self, nested: bool) -> None:
        self._nested = nested
        self._names: set[str] = set()
        self.offers: list[ToolSpec] = []
        self.skipped: list[str] = []

    def all(self, raws: Sequence[Raw]) -> Iterator[ToolEcho]:
        for index, raw in enumerate(raws):
            place = f"tools[{index}]"
            if part(raw, Typed, place).type == "namespace":
                space = part(raw, NamespaceParam, place)
                inner = (self._tool(each, f"{place}.tools[{n}]", space.name) for n, each in enumerate(space.tools))
                yield NamespaceTool(space.name, space.description or "", tuple(filter(None, inner)))
            elif (tool := self._tool(raw, place)) is not None:
                yield tool

    def _tool(self, raw: Raw, place: str, namespace: str | None = None) -> FunctionTool | CustomTool | None:
        kind = part(raw, Typed, place).type
        if self._nested:
            place = f"{place}.{kind}"
        match kind:
            case "function":
                return self._function(part(raw, FunctionParam, place), place, namespace)
            case "custom":
                return self._custom(part(raw, CustomParam, place), place, namespace)
        self.skipped.append(f"tool {kind or 'without type'}")
        return None

    def _function(self, tool: FunctionParam, place: str, namespace: str | None) -> FunctionTool:
        name = self._name(tool, place, namespace)
        place = f"{place}.parameters"
        schema = NO_PARAMETERS
        if not absent(tool.parameters):
            part(tool.parameters, _Object, place)
            schema = bytes(tool.parameters).decode()
        told = Tool(name, tool.description or "", schema)
        self.offers.append(ToolSpec(told, ToolCallStarted(tool.name, namespace), place, bool(tool.strict)))
        return FunctionTool(tool.name, tool.description, tool.parameters, False)

    def _custom(self, tool: CustomParam, place: str, namespace: str | None) -> CustomTool:
        name = self._name(tool, place, namespace)
        place = f"{place}.format"
        form = PlainInput() if absent(tool.format) else _form(tool.format, place)
        told = Tool(name, "\n".join(filter(None, [tool.description, _told(form)])), TEXT_INPUT)
        calling = ToolCallStarted(tool.name, namespace, custom=True, streams=True)
        self.offers.append(ToolSpec(told, calling, place, True, form))
        return CustomTool(tool.name, tool.description, NO_FORMAT if absent(tool.format) else tool.format)

    def _name(self, tool: FunctionParam | CustomParam, place: str, namespace: str | None) -> str:
        """For the model. Of two tools of one name, nobody knows which is called."""
        name = qualified_name(tool.name, namespace)
        if name in self._names:
            raise InvalidRequest(f"`{place}.name`: there is a tool {name!r} before it.", param=f"{place}.name")
        self._names.add(name)
        return name


_INPUT: Any = Input


class _Object(Struct):
    properties: dict[str, Raw] | None = None


def _form(raw: Raw, place: str) -> Input:
    form: Input = part(raw, _INPUT, place)
    if isinstance(form, GrammarInput) and form.syntax not in ("lark", "regex"):
        raise InvalidRequest(f"`{place}.syntax` is {form.syntax!r}; it must be lark or regex.", param=f"{place}.syntax")
    return form


def _told(form: Input) -> str:
    """What is said of a text that must be of a form."""
    if isinstance(form, PlainInput) or not form.definition:
        return ""
    return f"The input must be of this form ({form.syntax}):\n{form.definition}"
