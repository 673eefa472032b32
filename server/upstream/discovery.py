"""Facts about the model of each upstream: its name, its context, its version, and the fields that it lacks."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import TypeAlias

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from server.upstream.chat import Probe, UpstreamModel
from server.upstream.transport import MissingFields, UpstreamClient, UpstreamFault, faults

MAX_BYTES = 4 << 20
"""Bytes of an answer at most."""
LIST_SECONDS = 5.0
"""Seconds for the list of models."""
MAX_NAME = 100
"""Characters of a model's name in a message."""
MAX_CONTEXT = 1 << 31
"""More tokens than any context has."""
DEFAULT_CONTEXT = 8192
"""Tokens of context if no upstream names its own."""

NO_LIST = ("http_404", "http_405")
"""Answers of a server without a list of models."""

log = logging.getLogger("responsed.upstream")


def _first_context(*counts: int | None) -> int:
    """Return the first number of tokens that a context can have; 0 if there is none."""
    return next((each for each in counts if each and 0 < each <= MAX_CONTEXT), 0)


class _Meta(Struct):
    n_ctx: int | None = None
    n_params: int | None = None
    size: int | None = None


class _Model(Struct):
    id: str
    created: int | None = None
    owned_by: str | None = None
    """`llamacpp`, `vllm`, `sglang`."""
    max_model_len: int | None = None
    """vLLM and SGLang."""
    context_length: int | None = None
    """LiteLLM and OpenRouter."""
    meta: _Meta | None = None
    """llama.cpp and responsed."""

    @property
    def context(self) -> int:
        """Tokens of the context; 0 if the list does not name them."""
        own = None if self.meta is None else self.meta.n_ctx
        return _first_context(self.max_model_len, self.context_length, own)


class _Models(Struct):
    data: list[_Model]


class _Settings(Struct):
    n_ctx: int | None = None


class _Properties(Struct):
    """llama.cpp's `/props` and vLLM's `/version`."""

    default_generation_settings: _Settings | None = None
    build_info: str = ""
    model_path: str = ""
    chat_template: str = ""
    version: str = ""

    @property
    def n_ctx(self) -> int:
        return 0 if self.default_generation_settings is None else _first_context(self.default_generation_settings.n_ctx)


VERSIONS = {"llamacpp": "/props", "vllm": "/version"}
"""Path of a server's own version by the kind of the server."""


class _ServerInfo(Struct):
    """SGLang's settings."""

    enable_deterministic_inference: bool = False


class DiscoveredModel(Struct, frozen=True):
    """Answer of one upstream."""

    url: str
    model: str = ""
    created: int = 0
    owned_by: str = ""
    """Kind of the server, by its list of models."""
    n_ctx: int = 0
    """0 if the upstream does not name it."""
    unsafe: frozenset[str] = frozenset()
    """Fields that end the upstream's process."""
    error: str = ""
    """Why the upstream cannot be used."""
    away: bool = False
    """True if it may work later without a change of the settings."""
    version: str = ""
    """Everything that identifies the model and the server; another one is probed again."""
    missing_fields: MissingFields = MissingFields()


ProbeUpstream: TypeAlias = Callable[[UpstreamClient, DiscoveredModel], Awaitable[MissingFields]]
"""Finds out which fields an upstream lacks. Raises UpstreamFault if it cannot be used."""


async def probe_chat(client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
    return await Probe(client, found.model, found.unsafe).run()


async def find_models(
    clients: Sequence[UpstreamClient], model: str | None, probe: ProbeUpstream = probe_chat
) -> list[DiscoveredModel]:
    """Ask all upstreams for their model at once. `model`: name that they must have; None for the first one."""
    found: dict[str, DiscoveredModel] = {}

    async def ask(client: UpstreamClient) -> None:
        found[client.address.url] = await find_model(client, model, probe)
        await client.close_idle()

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(ask, client)
    return [found[client.address.url] for client in clients]


async def find_model(
    client: UpstreamClient, model: str | None, probe: ProbeUpstream = probe_chat, known: DiscoveredModel | None = None
) -> DiscoveredModel:
    """Ask an upstream for its model, and probe it unless it is the `known` one."""
    url = client.address.url
    try:
        found = await _found(client, model)
        if found.error:
            return found
        if known is not None and not known.error and known.version == found.version:
            return known
        return replace(found, missing_fields=await probe(client, found))
    except UpstreamFault as fault:
        return DiscoveredModel(url, error=str(fault), away=fault.away)


def upstream_model(found: Sequence[DiscoveredModel], context: int, slots: int, name: str = "") -> UpstreamModel:
    """Return the model that the usable upstreams have in common; there is at least one.

    `context`: tokens, if the upstreams do not name them; 0 for the default. `name`: name of the model so far, which
    stays while an upstream has it.
    """
    usable = [each for each in found if not each.error]
    first = next((each for each in usable if each.model == name), usable[0])
    missing = [each.missing_fields for each in usable]
    return UpstreamModel(
        name=first.model,
        created=first.created,
        n_ctx=context or min((each.n_ctx for each in usable if each.n_ctx), default=DEFAULT_CONTEXT),
        n_slots=slots * len(found),
        refused=frozenset().union(*(fields.refused for fields in missing)),
        ignored=frozenset().union(*(fields.ignored for fields in missing)),
    )


async def _found(client: UpstreamClient, model: str | None) -> DiscoveredModel:
    """Return the facts about the model in the list of an upstream. Raises UpstreamFault."""
    url = client.address.url
    try:
        with trio.fail_after(LIST_SECONDS):
            body = await _get(client, client.address.path + "/models")
        models = msgspec.json.decode(body, type=_Models).data
    except trio.TooSlowError as error:
        raise faults.too_slow(url, "has not listed its models", LIST_SECONDS) from error
    except UpstreamFault as fault:
        if model is not None and fault.kind in NO_LIST:
            return DiscoveredModel(url, model)
        raise
    except faults.DECODING_ERRORS:
        return DiscoveredModel(
            url, error=f"The upstream {url} does not list its models as OpenAI's API does: check the URL."
        )
    known = [each for each in models if each.id and model in (None, each.id)]
    if not known:
        wanted = "no model" if model is None else f"no model {model!r}; it has {_names(models)}"
        return DiscoveredModel(url, error=f"The upstream {url} has {wanted}.")
    first = known[0]
    own = await _properties(client, first)
    unsafe = await _unsafe_sglang(client) if first.owned_by == "sglang" else frozenset[str]()
    facts = (first.id, first.owned_by, first.context, first.meta, own, sorted(unsafe))
    version = blake2b(msgspec.json.encode(facts), digest_size=16).hexdigest()
    n_ctx = first.context or own.n_ctx
    created, owned_by = first.created or 0, first.owned_by or ""
    return DiscoveredModel(url, first.id, created, owned_by, n_ctx, unsafe, version=version)


def _names(models: Sequence[_Model]) -> str:
    return ", ".join(each.id[:MAX_NAME] for each in models[:10]) or "none"


async def _properties(client: UpstreamClient, model: _Model) -> _Properties:
    """Return the facts that an upstream has beside its list of models. Raises UpstreamFault if it is away."""
    path = VERSIONS.get(model.owned_by or "") or (None if model.context else "/props")
    if path is None:
        return _Properties()
    try:
        return msgspec.json.decode(await _get(client, client.address.root + path), type=_Properties)
    except UpstreamFault as fault:
        if fault.away:
            raise
    except faults.DECODING_ERRORS:
        pass
    return _Properties()


async def _unsafe_sglang(client: UpstreamClient) -> frozenset[str]:
    """Return the fields that end SGLang's process: `min_p` with deterministic inference, known or not.

    Raises UpstreamFault if it is away.
    """
    for name in ("/server_info", "/get_server_info"):  # the second one is that of older versions
        try:
            info = msgspec.json.decode(await _get(client, client.address.root + name), type=_ServerInfo)
            return frozenset({"min_p"} if info.enable_deterministic_inference else ())
        except UpstreamFault as fault:
            if fault.away:
                raise
        except faults.DECODING_ERRORS:
            pass
    return frozenset({"min_p"})


async def _get(client: UpstreamClient, target: str) -> bytes:
    async with client.request("GET", target) as answer:
        return await answer.read(MAX_BYTES)
