"""Facts about the model of the upstreams, asked before the server starts."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from server.upstream.chat_model import UpstreamModel
from server.upstream.probe import Probe
from server.upstream.transport import MissingFields, UpstreamClient, UpstreamFault

MAX_BYTES = 4 << 20
"""Bytes of an answer at most."""
DEFAULT_CONTEXT = 8192
"""Tokens of context if no upstream names its own."""

log = logging.getLogger("responsed.upstream")


class _Meta(Struct):
    n_ctx: int | None = None


class _Model(Struct):
    id: str
    created: int = 0
    owned_by: str = ""
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
        return self.max_model_len or self.context_length or own or 0


class _Models(Struct):
    data: list[_Model]


class _Settings(Struct):
    n_ctx: int | None = None


class _Properties(Struct):
    default_generation_settings: _Settings | None = None


class DiscoveredModel(Struct, frozen=True):
    """Answer of one upstream."""

    url: str
    model: str = ""
    created: int = 0
    owned_by: str = ""
    """Kind of the server, by its list of models."""
    n_ctx: int = 0
    """0 if the upstream does not name it."""
    error: str = ""
    """Why the upstream cannot be used."""
    missing_fields: MissingFields = MissingFields()


ProbeUpstream: TypeAlias = Callable[[UpstreamClient, DiscoveredModel], Awaitable[MissingFields]]
"""Finds out which fields an upstream lacks. Raises UpstreamFault if it cannot be used."""


async def probe_chat(client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
    return await Probe(client, found.model).run()


async def find_models(
    clients: Sequence[UpstreamClient], model: str | None, probes: bool, probe: ProbeUpstream = probe_chat
) -> list[DiscoveredModel]:
    """Ask all upstreams for their model at once. `model`: name that they must have; None for the first one.

    `probes`: True to find out which fields they lack, by `probe`.
    """
    found: dict[str, DiscoveredModel] = {}

    async def ask(client: UpstreamClient) -> None:
        each = await _found(client, model)
        found[client.address.url] = await _probed(client, each, probe) if probes and not each.error else each
        await client.close_idle()

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(ask, client)
    return [found[client.address.url] for client in clients]


def upstream_model(found: Sequence[DiscoveredModel], context: int, slots: int) -> UpstreamModel:
    """Return the model that the upstreams have in common. Upstreams that do not answer are logged.

    `context`: tokens, if the upstreams do not name them; 0 for the default.
    """
    usable = [each for each in found if not each.error]
    first = usable[0]
    for each in found:
        _log(each, first.model)
    missing = [each.missing_fields for each in usable]
    return UpstreamModel(
        name=first.model,
        created=first.created,
        n_ctx=context or _smallest_context(usable),
        n_slots=slots * len(found),
        refused=frozenset().union(*(fields.refused for fields in missing)),
        ignored=frozenset().union(*(fields.ignored for fields in missing)),
    )


def _smallest_context(found: Sequence[DiscoveredModel]) -> int:
    """Return the tokens that fit every upstream, or the default if none names its context."""
    known = [each.n_ctx for each in found if each.n_ctx]
    if not known:
        log.warning("no upstream names its context: %d tokens are assumed (--context)", DEFAULT_CONTEXT)
    return min(known, default=DEFAULT_CONTEXT)


def _log(found: DiscoveredModel, model: str) -> None:
    """Log an upstream that may get requests for `model`."""
    if found.error:
        log.warning("%s", found.error)
        return
    log.info("upstream %s %s", found.url, str(found.missing_fields) or "has all fields that were probed")
    if found.model != model:
        log.warning("upstream %s has the model %r, and gets requests for %r", found.url, found.model, model)


async def _found(client: UpstreamClient, model: str | None) -> DiscoveredModel:
    url = client.address.url
    try:
        models = msgspec.json.decode(await _get(client, client.address.path + "/models"), type=_Models).data
    except UpstreamFault as fault:
        return DiscoveredModel(url, error=str(fault))
    except msgspec.MsgspecError:
        return DiscoveredModel(
            url, error=f"The upstream {url} does not list its models as OpenAI's API does: check the URL."
        )
    known = [each for each in models if model in (None, each.id)]
    if not known:
        names = ", ".join(each.id for each in models[:10]) or "none"
        return DiscoveredModel(url, error=f"The upstream {url} has no model {model!r}; it has {names}.")
    first = known[0]
    n_ctx = first.context or await _llamacpp_context(client)
    return DiscoveredModel(url, first.id, first.created, first.owned_by, n_ctx)


async def _probed(client: UpstreamClient, found: DiscoveredModel, probe: ProbeUpstream) -> DiscoveredModel:
    try:
        return replace(found, missing_fields=await probe(client, found))
    except UpstreamFault as fault:
        return replace(found, error=str(fault))


async def _llamacpp_context(client: UpstreamClient) -> int:
    """Return the tokens of a slot of llama.cpp's server; 0 for other servers."""
    try:
        body = await _get(client, client.address.root + "/props")
        settings = msgspec.json.decode(body, type=_Properties).default_generation_settings
    except (UpstreamFault, msgspec.MsgspecError):
        return 0
    return (settings and settings.n_ctx) or 0


async def _get(client: UpstreamClient, target: str) -> bytes:
    async with client.request("GET", target) as answer:
        return await answer.read(MAX_BYTES)
