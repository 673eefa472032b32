"""First stages of a request for a response: read its body, load its past, resolve references, prepare it."""

from collections.abc import Sequence
from contextlib import nullcontext

from server.config import Config
from server.http import ITEM_BYTES, Exchange, WorkThread
from server.preprocessing.body_reader import BodyReader
from server.preprocessing.history import History
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.preprocessing.references import References
from server.prompt import PreparedRequest, prepare
from server.protocol import request as wire
from server.protocol.errors import InvalidRequest
from server.protocol.fields import skipped_fields
from server.protocol.request import Request


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
        self._config = config
        self._bodies = bodies
        self._history = history
        self._references = references
        self._seal = seal
        self._work = work

    async def read(self, exchange: Exchange) -> PreparedRequest:
        """Return the prepared request of an exchange. Raises ApiError, StoreError."""
        body = await self._bodies.read(exchange, _decode)
        request = body.request
        _check_count(request.input, self._config.max_items, "input", "--max-items")
        _check_count(request.tools, self._config.max_tools, "tools", "--max-tools")
        with nullcontext() if request.background else exchange.while_connected():
            past = await self._history.before(request)
            request = await self._seal.opened(await self._references.resolve(request, past.items))
            size = body.size + len(past.items) * ITEM_BYTES
            prepared = await self._work.run(size, prepare, request, past, body.unknown)
        _check_count(prepared.toolbox.echo, self._config.max_tools, "tools", "--max-tools")
        exchange.skipped = prepared.skipped
        return prepared


def _decode(body: bytes) -> tuple[Request, list[str]]:
    """Return the request, and the names of its unknown fields."""
    return wire.decode(body), sorted(skipped_fields(body, wire.KNOWN))


def _check_count(values: Sequence[object] | str | None, limit: int, param: str, flag: str) -> None:
    """Raise InvalidRequest if a list of the request is too long. A text is no list."""
    if isinstance(values, list | tuple) and len(values) > limit:
        message = f"`{param}` has {len(values)} entries; this server accepts {limit} (raise it by {flag})."
        raise InvalidRequest(message, param=param)
