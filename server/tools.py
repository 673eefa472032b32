"""`tools` and `tool_choice`: what the model is told of them, what the response echoes, and the way back. Pure.

To the model all of them are functions. A namespace's are called `namespace__name` there, and one that takes a text has
a single parameter, `input`; what comes back is what the client has named. What can't be served is skipped, never a
4xx: Codex always sends `web_search`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from engine import Tool
from server.cues import Calling
from server.errors import InvalidRequest
from server.reading import flat
from server.schema import NULL, Typed, absent, part
from server.toolset import NULL as NO_FORMAT
from server.toolset import (
    AllowedTools,
    CustomChoice,
    CustomTool,
    FunctionTool,
    NamedChoice,
    NamespaceTool,
    ToolChoice,
    ToolEcho,
)

MOST_TOOLS = 512
NO_PARAMETERS = '{"type":"object","properties":{}}'
TEXT_INPUT = '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}'


ToolName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]


class FunctionParam(Struct, frozen=True):
    """`function`, of `tools`. Its `strict` is not read: see `_function`."""

    name: ToolName
    description: str | None = None
    parameters: Raw = NULL


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


class Offer(Struct, frozen=True):
    """One function that the model may call."""

    tool: Tool
    calling: Calling
    """As the client knows it."""


class Toolbox(Struct, frozen=True):
    echo: tuple[ToolEcho, ...] = ()
    choice: ToolChoice = "auto"
    offers: tuple[Offer, ...] = ()
    """Those that may be called by this choice."""
    skipped: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(offer.tool for offer in self.offers)

    @property
    def calls(self) -> dict[str, Calling]:
        """By the model's names. One that leaves a namespace out is understood where that is plain."""
        bare: dict[str, list[Calling]] = {}
        for offer in self.offers:
            bare.setdefault(offer.calling.name, []).append(offer.calling)
        plain = {name: calls[0] for name, calls in bare.items() if len(calls) == 1}
        return plain | {offer.tool.name: offer.calling for offer in self.offers}

    @property
    def offered(self) -> dict[str, frozenset[str]]:
        """The functions, and which of their parameters are texts."""
        texts = {offer.tool.name: _texts(offer.tool.parameters) for offer in self.offers}
        return {name: texts.get(name, frozenset()) for name in (*self.calls, *texts)}


NO_TOOLS = Toolbox()


def toolbox(raws: Sequence[Raw], choice: Raw = NULL, parallel: bool = True) -> Toolbox:
    """Raises InvalidRequest."""
    if len(raws) > MOST_TOOLS:
        raise InvalidRequest(f"`tools` has {len(raws)} entries; at most {MOST_TOOLS} are read.", param="tools")
    skipped: list[str] = []
    echo = [tool for index, raw in enumerate(raws) for tool in _read(raw, f"tools[{index}]", skipped)]
    offers = tuple(offer for tool in echo for offer in _offers(tool))
    chosen, allowed = _chosen(choice, offers)
    return Toolbox(tuple(echo), chosen, allowed, tuple(skipped), parallel)


def _read(raw: Raw, place: str, skipped: list[str]) -> Iterator[ToolEcho]:
    match part(raw, Typed, place).type:
        case "function":
            yield _function(part(raw, FunctionParam, place), place)
        case "custom":
            tool = part(raw, CustomParam, place)
            yield CustomTool(tool.name, tool.description, NO_FORMAT if absent(tool.format) else tool.format)
        case "namespace":
            space = part(raw, NamespaceParam, place)
            inner = [
                tool
                for index, raw in enumerate(space.tools)
                for tool in _read(raw, f"{place}.tools[{index}]", skipped)
                if not isinstance(tool, NamespaceTool)
            ]
            yield NamespaceTool(space.name, space.description or "", tuple(inner))
        case kind:
            skipped.append(f"tool {kind or 'without type'}")


def _function(tool: FunctionParam, place: str) -> FunctionTool:
    """Echoed with `strict: false`: nothing holds a model to a schema yet."""
    if absent(tool.parameters):
        return FunctionTool(tool.name, tool.description, strict=False)
    part(tool.parameters, _Parameters, f"{place}.parameters")
    return FunctionTool(tool.name, tool.description, tool.parameters, False)


def _offers(tool: ToolEcho, namespace: str | None = None) -> Iterator[Offer]:
    match tool:
        case FunctionTool(name, description, parameters):
            schema = NO_PARAMETERS if absent(parameters) else bytes(parameters).decode()
            yield Offer(Tool(flat(name, namespace), description or "", schema), Calling(name, namespace))
        case CustomTool(name, description, format_):
            told = "\n".join(filter(None, [description, _grammar(format_)]))
            yield Offer(Tool(flat(name, namespace), told, TEXT_INPUT), Calling(name, namespace, custom=True))
        case NamespaceTool(name, description, tools):
            for inner in tools:
                yield from _offers(inner, name)


class _Format(Struct):
    syntax: str = ""
    definition: str = ""


def _grammar(format_: Raw) -> str:
    """What is said of a text that must be of a form."""
    if absent(format_):
        return ""
    read = part(format_, _Format, "tools.format")
    return f"The input must be of this form ({read.syntax}):\n{read.definition}" if read.definition else ""


class _Choice(Struct):
    type: str = ""
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[Raw] = []


Allowed: TypeAlias = tuple[ToolChoice, tuple[Offer, ...]]


def _chosen(raw: Raw, offers: tuple[Offer, ...]) -> Allowed:
    """What is echoed as the choice, and what may be called by it. Raises InvalidRequest."""
    if bytes(raw).startswith(b"{"):
        return _object_chosen(raw, offers)
    match part(raw, _WORD, "tool_choice"):
        case None | "auto":
            return "auto", offers
        case "none":
            return "none", ()
        case "required":
            return _demanded("required", offers)
        case word:
            raise InvalidRequest(
                f"`tool_choice` is {word!r}; it must be auto, none, required or an object.", param="tool_choice"
            )


_WORD: Any = str | None


def _object_chosen(raw: Raw, offers: tuple[Offer, ...]) -> Allowed:
    choice = part(raw, _Choice, "tool_choice")
    match choice.type:
        case "function" | "custom":
            named = _of(choice, offers)
            kind = NamedChoice if choice.type == "function" else CustomChoice
            if not named:
                raise InvalidRequest(
                    f"`tool_choice` names {choice.name!r}, which is not in `tools`.", param="tool_choice"
                )
            return _demanded(kind(choice.name or ""), named)
        case "allowed_tools":
            wishes = [part(each, _Choice, "tool_choice.tools") for each in choice.tools]
            allowed = tuple(offer for offer in offers if any(offer in _of(wish, offers) for wish in wishes))
            if choice.mode == "required":
                return _demanded(AllowedTools("required", tuple(choice.tools)), allowed)
            return AllowedTools("auto", tuple(choice.tools)), allowed
        case kind:
            raise InvalidRequest(f"`tool_choice.type` is {kind!r}, which is not served here.", param="tool_choice.type")


def _of(wish: _Choice, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
    """Those that a choice names; a namespace is all that is in it."""
    if wish.type == "namespace":
        return tuple(offer for offer in offers if offer.calling.namespace == wish.name)
    return tuple(
        offer
        for offer in offers
        if offer.calling.name == wish.name and wish.namespace in (None, offer.calling.namespace)
    )


def _demanded(choice: ToolChoice, offers: tuple[Offer, ...]) -> Allowed:
    """A call that must be made. This is where one that is held by a grammar would go on with `choice, offers`."""
    raise InvalidRequest(
        "`tool_choice` demands a call, and this server can't hold a model to one yet: use auto or none.",
        param="tool_choice",
    )


class _Parameters(Struct):
    properties: dict[str, Raw] = {}


class _Property(Struct):
    type: Raw = NULL


def _texts(parameters: str) -> frozenset[str]:
    """The parameters that are declared as texts and nothing else."""
    properties: Mapping[str, Raw] = msgspec.json.decode(parameters, type=_Parameters).properties
    return frozenset(name for name, schema in properties.items() if _is_text(schema))


def _is_text(schema: Raw) -> bool:
    try:
        return bytes(msgspec.json.decode(schema, type=_Property).type) == b'"string"'
    except msgspec.DecodeError:
        return False
