"""Limits of the entries of a request: items, tools, and sizes of schemas. Pure."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from server.config import Config
from server.prompt import PreparedRequest
from server.protocol.errors import InvalidRequest
from server.protocol.formats import SchemaFormat
from server.protocol.tools import NamespaceTool, ToolEcho


class EntryLimits(Struct, frozen=True):
    max_items: int
    max_tools: int
    max_schema_bytes: int

    @classmethod
    def of(cls, config: Config) -> "EntryLimits":
        return cls(config.max_items, config.max_tools, config.max_schema_kilobytes * 1000)

    def check_items(self, items: Sequence[object] | str | None, field: str) -> None:
        """Raise InvalidRequest for too many items. A text does not count as a list."""
        _check_count(items, self.max_items, field, "--max-items")

    def check_tools(self, tools: Sequence[object] | None) -> None:
        """Raise InvalidRequest for too many entries in `tools`."""
        _check_count(tools, self.max_tools, "tools", "--max-tools")

    def check_all_tools(self, tools: Iterable[ToolEcho]) -> None:
        """Raise InvalidRequest for too many tools, with those in namespaces and those that items offer."""
        count = sum(len(tool.tools) if isinstance(tool, NamespaceTool) else 1 for tool in tools)
        if count > self.max_tools:
            message = f"The request has {count} tools; this server accepts {self.max_tools} (raise it by --max-tools)."
            raise InvalidRequest(message, param="tools")

    def check_schemas(self, prepared: PreparedRequest) -> None:
        """Raise InvalidRequest for a schema of the answer or of a tool that is too large."""
        format_ = prepared.request.format
        if isinstance(format_, SchemaFormat):
            self._check_size(len(bytes(format_.schema)), "The schema", prepared.schema_field)
        for tool in prepared.toolbox.tools:
            self._check_size(len(tool.parameters.encode()), f"The schema of {tool.name!r}", "tools")

    def _check_size(self, size: int, name: str, param: str) -> None:
        if size > self.max_schema_bytes:
            message = (
                f"{name} has {size} bytes; this server accepts {self.max_schema_bytes} "
                "(raise it with --max-schema-kilobytes)."
            )
            raise InvalidRequest(message, param=param)


def _check_count(values: Sequence[object] | str | None, limit: int, param: str, flag: str) -> None:
    """Raise InvalidRequest if a list of the request is too long."""
    if isinstance(values, list | tuple) and len(values) > limit:
        message = f"`{param}` has {len(values)} entries; this server accepts {limit} (raise it by {flag})."
        raise InvalidRequest(message, param=param)
