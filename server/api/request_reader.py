"""First stages of a request: read and decode the body, load its past, resolve references, prepare it for the model."""

from server.api.history import History
from server.api.references import References
from server.http import Bodies, Exchange
from server.prompt import PreparedRequest, prepare
from server.protocol import request as wire
from server.protocol.fields import check_strict, skipped_fields
from server.served_model import ServedModel


class RequestReader:
    def __init__(
        self, bodies: Bodies, model: ServedModel, history: History, references: References, strict_fields: bool
    ) -> None:
        self._bodies = bodies
        self._model = model
        self._history = history
        self._references = references
        self._strict_fields = strict_fields

    async def read(self, exchange: Exchange) -> PreparedRequest:
        """Return the prepared request of an exchange. Raises ApiError, StoreError."""
        body = await self._bodies.read(exchange)
        request = wire.decode(body)
        unknown = sorted(skipped_fields(body, wire.KNOWN))
        check_strict(unknown, self._strict_fields)
        self._model.resolve(request.model)
        past = await self._history.before(request)
        request = await self._references.resolve(request, past.items)
        prepared = prepare(request, past, unknown)
        exchange.skipped = prepared.skipped
        return prepared
