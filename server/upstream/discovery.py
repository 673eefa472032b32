"""Facts about the model of each upstream: its name, its context, its version, and the fields that it lacks."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import TypeAlias

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from server.upstream.chat import UpstreamModel
from server.upstream.model_list import VERSIONS, ListedModel, ListedModels, ServerProperties, SglangSettings
from server.upstream.transport import MissingFields, UpstreamClient, UpstreamFault, faults, lacking_anywhere, shallow

MAX_BYTES = 4 << 20
"""Bytes of an answer at most."""
LIST_SECONDS = 5.0
"""Seconds for the list of models, and for what the server has beside it."""
DEFAULT_CONTEXT = 8192
"""Tokens of context if no upstream names its own."""

NO_LIST = ("http_404", "http_405")
"""Answers of a server without a list of models."""

log = logging.getLogger("responsed.upstream")


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
    grammar_backend: str = ""
    """SGLang's reader of grammars; empty if it is unknown."""
    error: str = ""
    """Why the upstream cannot be used."""
    away: bool = False
    """True if it may work later without a change of the settings."""
    version: str = ""
    """Everything that identifies the model and the server; another one is probed again."""
    missing_fields: MissingFields = MissingFields()


ProbeUpstream: TypeAlias = Callable[[UpstreamClient, DiscoveredModel], Awaitable[MissingFields]]
"""Finds out which fields an upstream lacks. Raises UpstreamFault if it cannot be used."""


async def find_models(
    clients: Sequence[UpstreamClient], model: str | None, probe: ProbeUpstream
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
    client: UpstreamClient, model: str | None, probe: ProbeUpstream, known: DiscoveredModel | None = None
) -> DiscoveredModel:
    """Ask an upstream for its model, and probe it unless it is the `known` one."""
    url = client.address.url
    try:
        with trio.fail_after(LIST_SECONDS):
            found = await _found(client, model)
        if found.error:
            return found
        if known is not None and not known.error and known.version == found.version:
            return known
        return replace(found, missing_fields=await probe(client, found))
    except trio.TooSlowError:
        return DiscoveredModel(
            url, error=str(faults.too_slow(url, "has not described its model", LIST_SECONDS)), away=True
        )
    except UpstreamFault as fault:
        hint = " If it speaks TLS, use an https URL." if fault.kind == "cut" and not client.address.tls else ""
        return DiscoveredModel(url, error=f"{fault}{hint}", away=fault.away)


def upstream_model(
    found: Sequence[DiscoveredModel], context: int, slots: int, name: str = "", front: str = ""
) -> UpstreamModel:
    """Return the model that the usable upstreams have in common; there is at least one.

    `context`: tokens, if the upstreams do not name them; 0 for the default. `name`: name of the model so far, which
    stays while an upstream has it. `front`: name of this server in a chain of fronts.
    """
    usable = [each for each in found if not each.error]
    first = next((each for each in usable if each.model == name), usable[0])
    named = [each.n_ctx for each in usable if each.n_ctx]
    missing = lacking_anywhere([each.missing_fields for each in usable])
    return UpstreamModel(
        name=first.model,
        created=first.created,
        n_ctx=context or min(named, default=DEFAULT_CONTEXT),
        n_slots=slots * len(found),
        front=front,
        refused=missing.refused,
        ignored=missing.ignored,
    )


async def _found(client: UpstreamClient, model: str | None) -> DiscoveredModel:
    """Return the facts about the model in the list of an upstream. Raises UpstreamFault."""
    url = client.address.url
    try:
        body = await _get(client, client.address.path + "/models")
        models = msgspec.json.decode(body, type=ListedModels).data
    except UpstreamFault as fault:
        if model is not None and fault.kind in NO_LIST:
            return DiscoveredModel(url, model)
        raise
    except faults.DECODING_ERRORS:
        return DiscoveredModel(
            url, error=f"The upstream {url} does not list its models as OpenAI's API does: check the URL."
        )
    listed = next((each for each in models if each.is_named(model)), None)
    return DiscoveredModel(url, error=_no_model(url, model, models)) if listed is None else await _known(client, listed)


def _no_model(url: str, model: str | None, listed: Sequence[ListedModel]) -> str:
    if model is None:
        return f"The upstream {url} has no model."
    names = ", ".join(faults.one_line(each.id) for each in listed[:10]) or "none"
    return f"The upstream {url} has no model {model!r}; it has {names}."


async def _known(client: UpstreamClient, listed: ListedModel) -> DiscoveredModel:
    """Return the facts about a listed model, with those that its server has beside the list. Raises UpstreamFault."""
    own = await _properties(client, listed)
    info = await _sglang_settings(client) if listed.owned_by == "sglang" else SglangSettings()
    unsafe, backend = info.unsafe, info.grammar_backend or ""
    facts = (listed.id, listed.owned_by, listed.context, listed.meta, own, sorted(unsafe), backend)
    return DiscoveredModel(
        client.address.url,
        listed.id,
        listed.created or 0,
        listed.owned_by or "",
        listed.context or own.n_ctx,
        unsafe,
        backend,
        version=blake2b(msgspec.json.encode(facts), digest_size=16).hexdigest(),
    )


async def _properties(client: UpstreamClient, model: ListedModel) -> ServerProperties:
    """Return the facts that an upstream has beside its list of models. Raises UpstreamFault if it is away."""
    path = VERSIONS.get(model.owned_by or "") or (None if model.context else "/props")
    if path is None:
        return ServerProperties()
    try:
        return msgspec.json.decode(await _get(client, client.address.root + path), type=ServerProperties)
    except UpstreamFault as fault:
        if fault.away:
            raise
    except faults.DECODING_ERRORS:
        pass
    return ServerProperties()


async def _sglang_settings(client: UpstreamClient) -> SglangSettings:
    """Return SGLang's settings. Raises UpstreamFault if it is away."""
    for name in ("/server_info", "/get_server_info"):  # the second one is that of older versions
        try:
            return msgspec.json.decode(await _get(client, client.address.root + name), type=SglangSettings)
        except UpstreamFault as fault:
            if fault.away:
                raise
        except faults.DECODING_ERRORS:
            pass
    return SglangSettings(is_known=False)


async def _get(client: UpstreamClient, target: str) -> bytes:
    async with client.request("GET", target) as answer:
        return shallow(await answer.read(MAX_BYTES))
