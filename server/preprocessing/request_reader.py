"""First stages of a request for a response: read its body, load its past, resolve references, prepare it."""

from contextlib import nullcontext

from msgspec.structs import replace

from server.config import Config
from server.http import ITEM_BYTES, Exchange, WorkThread
from server.preprocessing.body_reader import BodyReader, DecodedBody
from server.preprocessing.configuration_updates import configured
from server.preprocessing.entry_limits import EntryLimits
from server.preprocessing.history import History
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.preprocessing.references import References
from server.prompt import Past, PreparedRequest, builder, prepare
from server.protocol import request as wire
from server.protocol.fields import skipped_fields
from server.protocol.request import Request

MESSAGE_FIELDS = frozenset({"type", "stream_id", "generate"})
"""Fields of a message of a WebSocket that a body does not have."""


class RequestReader:
    def __init__(
        self,
        config: Config,
        bodies: BodyReader,
        history: History,
        references: References,
        seal: ReasoningSeal,
        work: WorkThread,
    ) -> None:
        self._limits = EntryLimits.of(config)
        self._bodies = bodies
        self._history = history
        self._references = references
        self._seal = seal
        self._work = work

    async def read(self, exchange: Exchange) -> PreparedRequest:
        """Return the prepared request of an exchange. Raises ApiError, StoreError."""
        body = self._checked(await self._bodies.read(exchange, _decode))
        with nullcontext() if body.request.background else exchange.while_connected():
            prepared = await self.prepare(body, await self.past(body.request))
        exchange.skipped = prepared.skipped
        return prepared

    async def decode(self, message: bytes) -> DecodedBody[Request]:
        """Return the request of a message of a WebSocket. Raises ApiError."""
        return self._checked(await self._bodies.decode(message, _decode_message))

    async def past(self, request: Request) -> Past:
        """Return the stored items before the request. Raises ApiError, StoreError."""
        return await self._history.before(request)

    async def prepare(self, body: DecodedBody[Request], past: Past) -> PreparedRequest:
        """Return the prepared request, whose conversation begins with `past`. Raises ApiError, StoreError."""
        request = await self._seal.opened(await self._references.resolve(body.request, past.items))
        size = body.size + len(past.items) * ITEM_BYTES
        prepared = await self._work.run(size, _prepare, request, past, body.unknown)
        self._limits.check_tools(prepared.toolbox.echo)
        return prepared

    def _checked(self, body: DecodedBody[Request]) -> DecodedBody[Request]:
        """Raise InvalidRequest for a request with too many items or tools."""
        self._limits.check_items(body.request.input, "input")
        self._limits.check_tools(body.request.tools)
        return body


def _prepare(request: Request, past: Past, unknown: list[str]) -> PreparedRequest:
    request, schema_field = configured(request, past.items, builder.past_field(request))
    return replace(prepare(request, past, unknown), schema_field=schema_field)


def _decode(body: bytes) -> tuple[Request, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return wire.decode(body), sorted(skipped_fields(body, wire.KNOWN))


def _decode_message(message: bytes) -> tuple[Request, list[str]]:
    """Return the request of a message, and the names of its unknown fields."""
    return wire.decode(message), sorted(skipped_fields(message, wire.KNOWN | MESSAGE_FIELDS))
