"""Routes: path and method -> handler. Pure."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from msgspec import Struct

from server.protocol.errors import MethodNotAllowed, NotFound

Handler: TypeAlias = Callable[..., Awaitable[None]]
"""Endpoint, called with the exchange and the parameters of the path."""
Handlers: TypeAlias = Mapping[str, Handler]
"""HTTP method -> handler."""


class Route(Struct, frozen=True):
    path: str
    pattern: re.Pattern[str]
    handlers: Handlers


class Router:
    def __init__(self, table: Mapping[str, Handlers]) -> None:
        """Route by the first path that matches. `{name}` matches one segment, `{name...}` the rest of the path."""
        self._routes = [Route(path, _pattern(path), handlers) for path, handlers in table.items()]

    def find(self, method: str, path: str) -> tuple[Handler | None, tuple[str, ...], str, str]:
        """Return the handler, its parameters, the allowed methods, and the path of the table; OPTIONS has no handler.

        Raises NotFound, MethodNotAllowed.
        """
        for route in self._routes:
            if (match := route.pattern.fullmatch(path)) is not None:
                break
        else:
            raise NotFound(f"There is no endpoint {path}{self._suggestion(path)}.")
        allow = ", ".join([*route.handlers, "OPTIONS"])
        handler = route.handlers.get(method)
        if handler is None and method != "OPTIONS":
            raise MethodNotAllowed(f"Method {method} is not allowed for {path}; allowed: {allow}.", allow=allow)
        return handler, match.groups(), allow, route.path

    def _suggestion(self, path: str) -> str:
        """Return the end of the error message: an endpoint with another slash or `/v1`, if there is one."""
        bare = "/" + path.strip("/")
        for similar in (bare, f"/v1{bare}", bare.removeprefix("/v1")):
            if similar != path and any(route.pattern.fullmatch(similar) for route in self._routes):
                return f"; use {similar}"
        return ""


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("".join(map(_group, re.split(r"(\{[^}]*\})", path))), re.DOTALL)


def _group(piece: str) -> str:
    if not piece.startswith("{"):
        return re.escape(piece)
    return "(.*)" if piece.endswith("...}") else "([^/]+)"
