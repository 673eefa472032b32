"""Tools and tool choice in the echo of a response. Data only."""

from typing import Literal, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

NULL = Raw(b"null")


class FunctionTool(Struct, frozen=True, tag="function"):
    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class CustomTool(Struct, frozen=True, tag="custom", omit_defaults=True):
    name: str
    description: str | None = None
    format: Raw = NULL


class NamespaceTool(Struct, frozen=True, tag="namespace"):
    name: str
    description: str
    tools: tuple[FunctionTool | CustomTool, ...]


ToolEcho: TypeAlias = FunctionTool | CustomTool | NamespaceTool


class NamedChoice(Struct, frozen=True, tag="function"):
    name: str
    namespace: str | UnsetType = UNSET
    """Namespace if the request names one."""


class CustomChoice(Struct, frozen=True, tag="custom"):
    name: str
    namespace: str | UnsetType = UNSET


class AllowedTools(Struct, frozen=True, tag="allowed_tools"):
    mode: Literal["auto", "required"]
    tools: tuple[Raw, ...]


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedChoice | CustomChoice | AllowedTools
