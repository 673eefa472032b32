"""Connect to the upstream servers of `--upstream` before the start: their key, their model, their clients."""

import logging
import os

import trio
from msgspec import Struct

from engine.chat_template import ChatTemplate
from engine.loader import read_tokenizer
from engine.tokenizer import Vocabulary
from server.config import Config, credential, read_secret
from server.upstream import chat_answer
from server.upstream.chat_model import UpstreamModel
from server.upstream.discovery import DiscoveredModel, ProbeUpstream, find_models, probe_chat, upstream_model
from server.upstream.generator import UpstreamGenerator
from server.upstream.replicas import Replica
from server.upstream.tokens import TokenModelSource, TokenProbe, TokenUpstreams, kind_of
from server.upstream.transport import Address, Ask, ClientTimeouts, MissingFields, UpstreamClient

KEY_CREDENTIAL = "upstream-key"
"""Name of systemd's credential with the key for the upstreams."""

log = logging.getLogger("responsed.upstream")


class NoUpstream(Exception):
    """No upstream can be used now; a later start may find one."""


class Upstreams(Struct, frozen=True):
    """The upstreams, their model, and the form of the API in which they are asked."""

    model: UpstreamModel | TokenModelSource
    clients: tuple[UpstreamClient, ...]
    ask: Ask
    n_slots: int

    def generator(self) -> UpstreamGenerator:
        return UpstreamGenerator([Replica(client) for client in self.clients], self.n_slots, self.ask)


def upstream_key(config: Config) -> str:
    """Return the key for the upstreams; empty if there is none. Raises ConfigError."""
    if config.upstream_key_file is not None:
        return read_secret(config.upstream_key_file)
    path = credential(os.environ, KEY_CREDENTIAL)
    return "" if path is None else read_secret(path, shared=True)


def connect(config: Config, lacking: MissingFields | None = None) -> Upstreams:
    """Ask the upstreams for their model. Raises ConfigError, NoUpstream, and what `tokenizer` raises.

    `lacking`: fields that the upstreams are known to lack; None to find them by a probe.
    """
    if config.upstream_api == "completions":
        return _connect_tokens(config, lacking)
    found = ask(config, probes=True, probe=probe_chat if lacking is None else _stated(lacking))
    model = upstream_model(found, config.context, config.upstream_slots)
    return Upstreams(model, _clients(config), chat_answer.ask, model.n_slots)


def _stated(lacking: MissingFields) -> ProbeUpstream:
    async def probe(client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
        return lacking

    return probe


def _connect_tokens(config: Config, lacking: MissingFields | None) -> Upstreams:
    vocabulary, template = tokenizer(config)

    async def probe(client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
        return await TokenProbe(client, kind_of(found.owned_by, vocabulary), found.model, vocabulary).run()

    found = ask(config, probes=True, probe=probe if lacking is None else _stated(lacking))
    model = upstream_model(found, config.context, config.upstream_slots)
    usable = next(each for each in found if not each.error)
    kinds = {each.url: kind_of(each.owned_by or usable.owned_by, vocabulary) for each in found}
    log.info("tokens: %s", ", ".join(f"{url} is asked as {kind.name}" for url, kind in kinds.items()))
    upstreams = TokenUpstreams(
        model=model.name,
        n_vocab=len(vocabulary),
        ends=vocabulary.end_tokens,
        servers=kinds,
        refused=model.refused,
        has_grammars="grammar" not in model.refused | model.ignored,
        chooses=all(kind.choice not in model.refused | model.ignored for kind in kinds.values()),
    )
    source = TokenModelSource(
        name=model.name,
        created=model.created,
        n_ctx=model.n_ctx,
        n_slots=model.n_slots,
        vocabulary=vocabulary,
        template=template,
        lacking=model.refused | model.ignored,
    )
    return Upstreams(source, _clients(config), upstreams.ask, model.n_slots)


def tokenizer(config: Config) -> tuple[Vocabulary, ChatTemplate]:
    """Return the vocabulary and the template for tokens. Raises GGUFError, TemplateError, ModelError, OSError."""
    assert config.tokenizer is not None, "`check_upstream_settings` requires it"
    try:
        return read_tokenizer(config.tokenizer, config.chat_template or "")
    except OSError as error:
        if error.filename is None:  # of the chat template, with a message of its own
            raise
        remedy = "name the GGUF file or the tokenizer.json of the upstreams' model"
        raise OSError(f"--tokenizer {config.tokenizer} cannot be read ({error.strerror}): {remedy}") from error


def ask(config: Config, probes: bool = False, probe: ProbeUpstream = probe_chat) -> list[DiscoveredModel]:
    """Return the answer of each upstream. `probes`, `probe`: see `find_models`. Raises ConfigError, NoUpstream."""
    found = trio.run(find_models, _clients(config), config.upstream_model, probes, probe)
    if all(each.error for each in found):
        reasons = " ".join(each.error for each in found)
        raise NoUpstream(f"no upstream can be used: start one, or correct --upstream. {reasons}")
    return found


def _clients(config: Config) -> tuple[UpstreamClient, ...]:
    timeouts = ClientTimeouts(
        config.upstream_connect_timeout_seconds,
        config.upstream_first_byte_timeout_seconds,
        config.upstream_idle_timeout_seconds,
    )
    key = upstream_key(config)
    return tuple(UpstreamClient(Address.of(url), timeouts, key) for url in dict.fromkeys(config.upstreams))
