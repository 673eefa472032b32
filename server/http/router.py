"""Which handler a path has. Pure."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from server.protocol.errors import MethodNotAllowed, NotFound

Handler: TypeAlias = Callable[..., Awaitable[None]]
"""Takes the exchange, and what stands in the path for its parameters."""
Handlers: TypeAlias = Mapping[str, Handler]
"""By method."""


class Route(Struct, frozen=True):
    pattern: re.Pattern[str]
    handlers: Handlers


class Router:
    def __init__(self, table: Mapping[str, Handlers]) -> None:
        """Paths -> handlers; the first that fits counts. `{name}` stands for one segment, `{name...}` for any rest."""
        self._routes = [Route(_pattern(path), handlers) for path, handlers in table.items()]

    def find(self, method: str, path: str) -> tuple[Handler | None, tuple[str, ...], str]:
        """The handler, its parameters, and the methods that are allowed. OPTIONS has no handler.

        Raises NotFound, MethodNotAllowed.
        """
        for route in self._routes:
            if (match := route.pattern.fullmatch(path)) is not None:
                break
        else:
            raise NotFound(f"There is nothing at {path}{self._meant(path)}.")
        allow = ", ".join([*route.handlers, "OPTIONS"])
        handler = route.handlers.get(method)
        if handler is None and method != "OPTIONS":
            raise MethodNotAllowed(f"{method} is not for {path}; use {allow}.", allow=allow)
        return handler, match.groups(), allow

    def _meant(self, path: str) -> str:
        """The path that is there without a slash at the end, or with `/v1` before it."""
        bare = "/" + path.strip("/")
        for meant in (bare, f"/v1{bare}", bare.removeprefix("/v1")):
            if meant != path and any(route.pattern.fullmatch(meant) for route in self._routes):
                return f"; {meant} is there"
        return ""


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("".join(map(_group, re.split(r"(\{[^}]*\})", path))), re.DOTALL)


def _group(piece: str) -> str:
    if not piece.startswith("{"):
        return re.escape(piece)
    return "(.*)" if piece.endswith("...}") else "([^/]+)"
