"""First stage of a request that generates: read the body, decode it, check its fields and its model."""

from collections.abc import Callable
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from server.config import LiveConfig
from server.http import Bodies, Exchange
from server.protocol.fields import check_strict
from server.protocol.request import RequestBody
from server.served_model import AnsweringModel
from server.work_thread import WorkThread

T = TypeVar("T", bound=RequestBody)


class DecodedBody(Struct, Generic[T], frozen=True):
    request: T
    unknown: list[str]
    """Names of fields that have no effect."""
    size: int
    """Bytes of the body."""


class BodyReader:
    def __init__(self, config: LiveConfig, bodies: Bodies, model: AnsweringModel, work: WorkThread) -> None:
        self._bodies = bodies
        self._model = model
        self._work = work
        self._config = config

    async def read(self, exchange: Exchange, decode: Callable[[bytes], tuple[T, list[str]]]) -> DecodedBody[T]:
        """Return the body of an exchange. `decode` returns the request and the names of its unknown fields.

        Raises ApiError.
        """
        return await self.decode(await self._bodies.read(exchange), decode)

    async def decode(self, body: bytes, decode: Callable[[bytes], tuple[T, list[str]]]) -> DecodedBody[T]:
        """Return a body that is cleaned already. Raises ApiError."""
        request, unknown = await self._work.run(len(body), decode, body)
        if request.return_token_times and not self._config.now.token_times:
            request, unknown = replace(request, return_token_times=None), [*unknown, "return_token_times"]
        check_strict(unknown, self._config.now.strict_fields)
        self._model.check_name(request.model)
        return DecodedBody(request, unknown, len(body))
