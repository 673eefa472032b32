"""First stages of a request for a response: read its body, load its past, resolve references, prepare it."""

from collections.abc import Sequence
from functools import partial

from msgspec import Raw
from msgspec.structs import replace

from server.config import LiveConfig
from server.http import Exchange
from server.mcp import McpSessions
from server.preprocessing.body_reader import BodyReader, DecodedBody
from server.preprocessing.configuration_updates import configured
from server.preprocessing.entry_limits import EntryLimits
from server.preprocessing.history import History
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.preprocessing.references import References
from server.prompt import McpServers, Past, PreparedRequest, compaction, options, prepare
from server.prompt.items import stored_items
from server.protocol import request as wire
from server.protocol.fields import skipped_fields
from server.protocol.request import Request
from server.work_thread import WorkThread, size_of

MESSAGE_FIELDS = frozenset({"type", "stream_id", "generate"})
"""Fields of a message of a WebSocket that a body does not have."""


class RequestReader:
    def __init__(
        self,
        config: LiveConfig,
        bodies: BodyReader,
        history: History,
        references: References,
        seal: ReasoningSeal,
        mcp: McpSessions,
        work: WorkThread,
    ) -> None:
        self._config = config
        self._bodies = bodies
        self._history = history
        self._references = references
        self._seal = seal
        self._mcp = mcp
        self._work = work

    async def read_body(self, exchange: Exchange) -> DecodedBody[Request]:
        """Return the request of an exchange, before anything else is read. Raises ApiError."""
        return self._checked(await self._bodies.read(exchange, _decode))

    async def load_and_prepare(
        self, exchange: Exchange, body: DecodedBody[Request], executes: bool = True
    ) -> PreparedRequest:
        """Return the prepared request of an exchange, and note what has no effect. See `prepare`."""
        prepared = await self.prepare(body, await self.load_past(body.request), executes)
        exchange.skipped = prepared.skipped
        return prepared

    async def decode_message(self, message: bytes) -> DecodedBody[Request]:
        """Return the request of a message of a WebSocket. Raises ApiError."""
        return self._checked(await self._bodies.decode(message, _decode_message))

    async def load_past(self, request: Request) -> Past:
        """Return the stored items before the request. Raises ApiError, StoreError."""
        return await self._history.before(request)

    async def prepare(self, body: DecodedBody[Request], past: Past, executes: bool = True) -> PreparedRequest:
        """Return the prepared request, whose conversation begins with `past`. Raises ApiError, StoreError.

        `executes`: False if no response follows, so MCP servers list their tools here, and approved calls are not
        executed.
        """
        request = await self._references.resolve(body.request, past.items)
        request = await self._seal.opened(request)
        items = request.input if isinstance(request.input, list) else ()
        size = body.size + size_of(past.items) + size_of(items)  # a small body may refer to large items
        session = await self._work.run(size, self._mcp.open, request.tools or (), past.items, items)
        if session is None:
            prepared = await self._work.run(size, _prepare, request, past, body.unknown)
        else:
            if compaction.is_triggered(request):
                session = session.without_lists()
            elif not executes:
                session = await session.with_all_lists()
            if not executes or request.prewarms:
                session = replace(session, approved=())
            prepared = await self._work.run(size, _prepare_with_mcp, request, past, body.unknown, session)
        EntryLimits.of(self._config.now).check_all_tools(prepared.toolbox.echo)
        return prepared

    def _checked(self, body: DecodedBody[Request]) -> DecodedBody[Request]:
        """Return the body. Raise InvalidRequest for a request with too many items or tools."""
        limits = EntryLimits.of(self._config.now)
        limits.check_items(body.request.input, "input")
        limits.check_tools(body.request.tools)
        return body


def _prepare(request: Request, past: Past, unknown: list[str]) -> PreparedRequest:
    request, schema_field = configured(request, past.items, options.past_field(request))
    return replace(prepare(request, past, unknown), schema_field=schema_field)


def _prepare_with_mcp(
    request: Request, past: Past, unknown: list[str], session: McpServers, more: Sequence[Raw] = ()
) -> PreparedRequest:
    """Return the prepared request, with the items `more` after its input.

    The store gets its input as it is; the prompt has the calls of MCP tools instead of lists and approvals.
    """
    given = request.input
    items = given if isinstance(given, list) else [stored_items.user_message(given)] if given else []
    earlier = replace(past, items=session.shown(past.items))
    rewritten = replace(
        request, tools=list(session.tools), parallel_tool_calls=False, input=session.shown([*items, *more])
    )
    prepared = _prepare(rewritten, earlier, unknown)
    original = replace(prepared.request, input=request.input)
    continued = partial(_prepare_with_mcp, request, past, unknown)
    return replace(prepared, request=original, mcp=session, continued=continued)


def _decode(body: bytes) -> tuple[Request, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return wire.decode(body), sorted(skipped_fields(body, wire.KNOWN, wire.MEMBERS))


def _decode_message(message: bytes) -> tuple[Request, list[str]]:
    """Return the request of a message, and the names of its unknown fields."""
    return wire.decode(message), sorted(skipped_fields(message, wire.KNOWN | MESSAGE_FIELDS, wire.MEMBERS))
