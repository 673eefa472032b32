"""`tools` and `tool_choice`: what may be called, what the response echoes, and the way back. Pure."""

from collections.abc import Container, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from engine.chat_template import Tool
from engine.dialects import MOST_CALLS
from engine.notations import ArgumentSchema, argument_schema
from server.protocol.errors import InvalidRequest
from server.protocol.request import NULL, part
from server.protocol.tools import (
    AllowedTools,
    CustomChoice,
    CustomTool,
    FunctionTool,
    NamedChoice,
    NamespaceTool,
    ToolChoice,
    ToolEcho,
)
from server.stream import ToolCallStarted
from server.tools.tool_reader import ToolReader, ToolSpec, by_name, qualified_name

MOST_TOOLS = 512


class Toolbox(Struct, frozen=True):
    echo: tuple[ToolEcho, ...] = ()
    choice: ToolChoice = "auto"
    all_tools: tuple[ToolSpec, ...] = ()
    specs: tuple[ToolSpec, ...] = ()
    """Those that may be called by this choice."""
    skipped: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def max_calls(self) -> int:
        """Calls in one answer that has to be calls."""
        named = isinstance(self.choice, NamedChoice | CustomChoice)
        return MOST_CALLS if self.parallel and not named else 1

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be calls."""
        match self.choice:
            case "auto" | "none" | AllowedTools("auto"):
                return False
            case _:
                return True

    def in_effect(self, loose: Container[str]) -> "Toolbox":
        """As it is echoed, where those functions (by the model's names) are not held to their schemas."""
        return replace(self, echo=tuple(_in_effect(tool, loose) for tool in self.echo))

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(offer.tool for offer in self.specs)

    @property
    def calls(self) -> dict[str, ToolCallStarted]:
        """By the model's names."""
        return {name: offer.calling for name, offer in by_name(self.specs).items()}

    @property
    def offered(self) -> dict[str, ArgumentSchema]:
        """The functions, by all names under which they are called, and what their arguments are declared to be."""
        offers = by_name(self.specs).items()
        return {name: argument_schema(msgspec.json.decode(offer.tool.parameters)) for name, offer in offers}


NO_TOOLS = Toolbox()


def toolbox(raws: Sequence[Raw], choice: Raw = NULL, parallel: bool = True, nested: bool = False) -> Toolbox:
    """`nested`: whether they stood a level deeper, as Chat Completions has them. Raises InvalidRequest."""
    if len(raws) > MOST_TOOLS:
        raise InvalidRequest(f"`tools` has {len(raws)} entries; at most {MOST_TOOLS} are read.", param="tools")
    reader = ToolReader(nested)
    echo = tuple(reader.all(raws))
    known = tuple(reader.offers)
    chosen, offers = _chosen(choice, known, nested)
    return Toolbox(echo, chosen, known, offers, tuple(reader.skipped), parallel)


T = TypeVar("T", bound=FunctionTool | CustomTool)


def _in_effect(tool: ToolEcho, loose: Container[str]) -> ToolEcho:
    if isinstance(tool, NamespaceTool):
        return replace(tool, tools=tuple(_strict(inner, loose, tool.name) for inner in tool.tools))
    return _strict(tool, loose)


def _strict(tool: T, loose: Container[str], namespace: str | None = None) -> T:
    held = qualified_name(tool.name, namespace) not in loose
    return replace(tool, strict=held) if isinstance(tool, FunctionTool) else tool


class _Choice(Struct):
    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[Raw] = []


Allowed: TypeAlias = tuple[ToolChoice, tuple[ToolSpec, ...]]


def _chosen(raw: Raw, offers: tuple[ToolSpec, ...], nested: bool) -> Allowed:
    """What is echoed as the choice, and what may be called by it. Raises InvalidRequest."""
    if bytes(raw).startswith(b"{"):
        return _object_chosen(raw, offers, nested)
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


def _object_chosen(raw: Raw, offers: tuple[ToolSpec, ...], nested: bool) -> Allowed:
    choice = part(raw, _Choice, "tool_choice")
    match choice.type:
        case "function" | "custom":
            named = _named(choice, offers, "tool_choice")
            kind = NamedChoice if choice.type == "function" else CustomChoice
            return _demanded(kind(choice.name or "", choice.namespace or UNSET), named)
        case "allowed_tools":
            return _allowed(choice, offers, "tool_choice.allowed_tools" if nested else "tool_choice")
        case None:
            raise _missing("type", "tool_choice")
        case kind:
            raise InvalidRequest(f"`tool_choice.type` is {kind!r}, which is not served here.", param="tool_choice.type")


def _allowed(choice: _Choice, offers: tuple[ToolSpec, ...], place: str) -> Allowed:
    """By `allowed_tools`. Hosted ones are skipped here too."""
    if choice.mode not in (None, "auto", "required"):
        raise InvalidRequest(f"`{place}.mode` is {choice.mode!r}; it must be auto or required.", param=f"{place}.mode")
    echo: list[Raw] = []
    wished: list[ToolSpec] = []
    for index, raw in enumerate(choice.tools):
        inside = f"{place}.tools[{index}]"
        wish = part(raw, _Choice, inside)
        if wish.type is None:
            raise _missing("type", inside)
        if wish.type in ("function", "custom", "namespace"):
            wished += _named(wish, offers, inside)
            echo.append(raw)
    allowed = tuple(offer for offer in offers if offer in wished)
    if choice.mode == "required":
        return _demanded(AllowedTools("required", tuple(echo)), allowed)
    return AllowedTools("auto", tuple(echo)), allowed


def _named(wish: _Choice, offers: tuple[ToolSpec, ...], place: str) -> tuple[ToolSpec, ...]:
    """Those that a choice names; a namespace is all that is in it. Raises InvalidRequest where there is none."""
    if wish.name is None:
        raise _missing("name", place)
    if wish.type == "namespace":
        found = tuple(offer for offer in offers if offer.calling.namespace == wish.name)
    else:
        found = tuple(
            offer
            for offer in offers
            if offer.calling.name == wish.name and wish.namespace in (None, offer.calling.namespace)
        )
    if not found:
        inside = f" in the namespace {wish.namespace!r}" if wish.namespace else ""
        raise InvalidRequest(f"`{place}` names {wish.name!r}, which is not in `tools`{inside}.", param=place)
    right = tuple(offer for offer in found if wish.type in ("namespace", offer.kind))
    if not right:
        kind = "function" if found[0].kind == "function" else "custom tool"
        raise InvalidRequest(f"`{place}.type` is {wish.type!r}, but {wish.name!r} is a {kind}.", param=f"{place}.type")
    return right


def _missing(field: str, place: str) -> InvalidRequest:
    return InvalidRequest(f"`{field}` is missing in `{place}`.", param=place)


def _demanded(choice: ToolChoice, offers: tuple[ToolSpec, ...]) -> Allowed:
    if not offers:
        raise InvalidRequest("`tool_choice` demands a call, and there is no function to call.", param="tool_choice")
    return choice, offers
