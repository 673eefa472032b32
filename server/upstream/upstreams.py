"""Connect to the upstream servers of `--upstream` before the start: their key, their model, their clients."""

import logging
import os
import secrets

from msgspec import Struct

from engine.chat_template import ChatTemplate
from engine.loader import read_tokenizer
from engine.tokenizer import Vocabulary
from server.config import Config, ConfigError, LiveConfig, credential, read_secret
from server.store import AsyncStore
from server.upstream.discovery import DiscoveredModel
from server.upstream.forms import ChatForm, TokenForm, UpstreamForm
from server.upstream.generator import INTERVALS, CheckIntervals, UpstreamGenerator
from server.upstream.live_model import LiveModel
from server.upstream.registry import UpstreamRegistry
from server.upstream.transport import Address, ClientTimeouts, MissingFields, UpstreamClient, faults
from server.work_thread import WorkThread

KEY_CREDENTIAL = "upstream-key"
"""Name of systemd's credential with the key for the upstreams."""

log = logging.getLogger("responsed.upstream")


class NoUpstream(Exception):
    """No upstream can be used, and a wait does not help."""


class Upstreams(Struct, frozen=True):
    """The upstreams, as the rest of the server uses them."""

    registry: UpstreamRegistry

    def reload(self, config: Config) -> None:
        """Read the key again. Raises ConfigError, and then changes nothing."""
        key = upstream_key(config)
        for replica in self.registry.replicas:
            replica.client.key = key

    def open(self, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> LiveModel:
        return LiveModel(self.registry, config, store, work)

    def generator(self, intervals: CheckIntervals = INTERVALS) -> UpstreamGenerator:
        registry = self.registry
        return UpstreamGenerator(registry.replicas, registry.n_slots, registry.ask, registry.check, intervals)


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
    registry = _started(config, lacking)
    registry.log_facts(registry.found)
    if registry.source is None:
        log.warning("no upstream answers now: requests get status 503 until one does")
    return Upstreams(registry)


def ask(config: Config) -> list[DiscoveredModel]:
    """Return the answer of each upstream. Raises as `connect` does."""
    return _started(config).found


def _started(config: Config, lacking: MissingFields | None = None) -> UpstreamRegistry:
    registry = UpstreamRegistry(config, _clients(config), _form(config), lacking)
    found = registry.start()
    if not any(each.away or not each.error for each in found):
        raise NoUpstream(
            f"no upstream can be used: correct --upstream, or the upstreams. {faults.sentences(registry.causes)}"
        )
    return registry


def _form(config: Config) -> UpstreamForm:
    return TokenForm(*tokenizer(config)) if config.upstream_api == "completions" else ChatForm()


def tokenizer(config: Config) -> tuple[Vocabulary, ChatTemplate]:
    """Return the vocabulary and the template for tokens. Raises GGUFError, TemplateError, ModelError,
    TemplateFileError, ConfigError."""
    assert config.tokenizer is not None, "`check_upstream_settings` requires it"
    try:
        return read_tokenizer(config.tokenizer, config.chat_template or "")
    except OSError as error:
        remedy = "name the GGUF file or the tokenizer.json of the upstreams' model"
        raise ConfigError(f"--tokenizer {config.tokenizer} cannot be read ({error.strerror}): {remedy}") from error


def _clients(config: Config) -> tuple[UpstreamClient, ...]:
    timeouts = ClientTimeouts(
        config.upstream_connect_timeout_seconds,
        config.upstream_first_byte_timeout_seconds,
        config.upstream_idle_timeout_seconds,
    )
    key = upstream_key(config)
    addresses: dict[object, Address] = {}
    for address in map(Address.of, config.upstreams):
        addresses.setdefault(address.place, address)
    front = secrets.token_hex(8)
    return tuple(UpstreamClient(address, timeouts, key, front) for address in addresses.values())
