"""Stages of `POST /v1/responses` for requests of a connection."""

from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from server.access import Header, reads_open_names
from server.generation import Generation, Generations, GenerationSpec
from server.http import Bodies
from server.postprocessing import SummaryProcessor
from server.preprocessing import DecodedBody, RequestReader, SpecBuilder, lane_of
from server.prompt import Past
from server.prompt.items import stored_items
from server.protocol import sse
from server.protocol.errors import InvalidRequest
from server.protocol.events import Event
from server.protocol.prompt_cache import ResponseCacheOptions
from server.protocol.request import Request
from server.session.client_events import Create
from server.session.memory import Remembered, ResponseMemory
from server.session.steering import check_outputs
from server.session.turn import SessionTurn
from server.work_thread import WorkThread, size_of


class Order(Struct, frozen=True):
    """A response to create."""

    body: DecodedBody[Request]
    generate: bool = True

    @property
    def request(self) -> Request:
        return self.body.request

    def with_request(self, request: Request) -> "Order":
        return Order(replace(self.body, request=request), self.generate)

    def after(self, items: Sequence[Raw]) -> "Order":
        """Return the order with items before its input."""
        if not items:
            return self
        input_ = self.request.input or []
        if isinstance(input_, str):
            input_ = [stored_items.user_message(input_)]
        return self.with_request(replace(self.request, input=[*items, *input_]))


class Specified(Struct, frozen=True):
    """A generation to start."""

    spec: GenerationSpec
    request: Request
    """Request with its references replaced by the items that they name."""
    past: Past
    """Conversation before the request."""

    @property
    def steerable(self) -> bool:
        """True if the output may be cut: an answer outside a conversation of the store, without a summary."""
        summarizes = self.spec.follow is not None or isinstance(self.spec.processor, SummaryProcessor)
        return not (summarizes or self.request.prewarms or self.request.conversation_id)


class Responder:
    def __init__(
        self,
        bodies: Bodies,
        reader: RequestReader,
        specs: SpecBuilder,
        generations: Generations,
        memory: ResponseMemory,
        work: WorkThread,
        reasoning_events: str,
    ) -> None:
        """`reasoning_events`: the setting."""
        self.bodies = bodies
        self.generations = generations
        self.memory = memory
        self._reader = reader
        self._specs = specs
        self._work = work
        self._reasoning_events = reasoning_events

    def encoder(self, header: Header) -> Callable[[Iterable[Event]], list[bytes]]:
        """Return the function of events that returns each as a message. `header`: of the handshake."""
        return sse.messages(reads_open_names(self._reasoning_events, header))

    async def order(self, create: Create) -> Order:
        """Read the request of a client event. Raises ApiError."""
        order = Order(await self._reader.decode_message(create.body), create.generate)
        if order.request.background:
            raise InvalidRequest("A WebSocket has no background responses: use POST.", param="background")
        return order.with_request(replace(order.request, stream=None))  # every event is a message anyway

    async def specify(self, turn: SessionTurn, order: Order, connection: object) -> Specified:
        """Return the specification of the order's generation. Raises ApiError, StoreError."""
        request = order.request
        if not order.generate:
            options = replace(request.prompt_cache_options or ResponseCacheOptions(), prewarm=True)
            request = replace(request, prompt_cache_options=options)
        past = None if request.conversation_id else self.memory.find(connection, request.previous_response_id)
        if past is None:
            past = await self._reader.load_past(request)
        if request.previous_response_id is not None:
            size = size_of(past.items) + (size_of(request.input) if isinstance(request.input, list) else 0)
            await self._work.run(size, check_outputs, past.items, request.input)
        self.generations.check_admission(turn.caller, lane_of(request, turn.caller))
        prepared = await self._reader.prepare(replace(order.body, request=request), past)
        turn.skipped = prepared.skipped
        return Specified(await self._specs.specify(prepared, turn), prepared.request, past)

    async def remember(
        self, connection: object, lane: str | None, specified: Specified, generation: Generation
    ) -> None:
        """Remember the conversation up to the response, which has ended."""
        response, request, past = generation.response, specified.request, specified.past
        if request.conversation_id is not None:
            return  # the store has it
        if response.status == "failed":
            self.evict(connection, lane, request.previous_response_id)
            return
        input_ = request.input or ()
        size = len(input_) if isinstance(input_, str) else size_of(input_)
        items = await self._work.run(size, stored_items.encode_input_items, input_, response.id)
        new = await self._work.run(len(items), stored_items.conversation_items, items, msgspec.json.encode(response))
        self.memory.remember(connection, lane, Remembered.of(response.id, [*past.items, *new], past.root))

    def evict(self, connection: object, lane: str | None, response_id: str | None) -> None:
        """Forget a response whose continuation on its own lane failed (Open Responses, "WebSocket Continuation")."""
        self.memory.evict(connection, lane, response_id)
