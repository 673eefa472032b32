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
    handlers: Handlers
    allow: str


class Router:
    def __init__(self, table: Mapping[str, Handlers]) -> None:
        """Route by a path without parameters, or by the first pattern that matches.

        `{name}` matches one segment, `{name...}` the rest of the path.
        """
        routes = [Route(path, handlers, ", ".join([*handlers, "OPTIONS"])) for path, handlers in table.items()]
        self._plain = {route.path: route for route in routes if "{" not in route.path}
        self._patterns = [(_pattern(route.path), route) for route in routes if "{" in route.path]

    def find(self, method: str, path: str) -> tuple[Handler | None, tuple[str, ...], str, str]:
        """Return the handler, its parameters, the allowed methods, and the path of the table; OPTIONS has no handler.

        Raises NotFound, MethodNotAllowed.
        """
        if (found := self._match(path)) is None:
            raise NotFound(f"There is no endpoint {path}{self._suggestion(path)}.")
        route, parameters = found
        handler, allow = route.handlers.get(method), route.allow
        if handler is None and method != "OPTIONS":
            raise MethodNotAllowed(f"Method {method} is not allowed for {path}; allowed: {allow}.", allow=allow)
        return handler, parameters, allow, route.path

    def _match(self, path: str) -> tuple[Route, tuple[str, ...]] | None:
        """Return the route of a path and its parameters; None if it has none."""
        if (plain := self._plain.get(path)) is not None:
            return plain, ()
        for pattern, route in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return route, match.groups()
        return None

    def _suggestion(self, path: str) -> str:
        """Return the end of the error message: an endpoint with another slash or `/v1`, if there is one."""
        bare = "/" + path.strip("/")
        for similar in (bare, f"/v1{bare}", bare.removeprefix("/v1")):
            if similar != path and self._match(similar) is not None:
                return f"; use {similar}"
        return ""


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("".join(map(_group, re.split(r"(\{[^}]*\})", path))), re.DOTALL)


def _group(piece: str) -> str:
    if not piece.startswith("{"):
        return re.escape(piece)
    return "(.*)" if piece.endswith("...}") else "([^/]+)"
