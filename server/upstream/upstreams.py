"""Connect to the upstream servers of `--upstream` before the start: their key, their model, their clients."""

import os

import trio
from msgspec import Struct

from server.config import Config, credential, read_secret
from server.upstream.chat_model import UpstreamModel
from server.upstream.discovery import DiscoveredModel, find_models, upstream_model
from server.upstream.generator import UpstreamGenerator
from server.upstream.replicas import Replica
from server.upstream.transport import Address, ClientTimeouts, UpstreamClient

KEY_CREDENTIAL = "upstream-key"
"""Name of systemd's credential with the key for the upstreams."""


class NoUpstream(Exception):
    """No upstream can be used now; a later start may find one."""


class Upstreams(Struct, frozen=True):
    """The upstreams and their model."""

    model: UpstreamModel
    clients: tuple[UpstreamClient, ...]

    def generator(self) -> UpstreamGenerator:
        return UpstreamGenerator([Replica(client) for client in self.clients], self.model.n_slots)


def upstream_key(config: Config) -> str:
    """Return the key for the upstreams; empty if there is none. Raises ConfigError."""
    if config.upstream_key_file is not None:
        return read_secret(config.upstream_key_file)
    path = credential(os.environ, KEY_CREDENTIAL)
    return "" if path is None else read_secret(path, shared=True)


def connect(config: Config) -> Upstreams:
    """Ask the upstreams for their model. Raises ConfigError, NoUpstream."""
    found = ask(config, probes=True)
    return Upstreams(upstream_model(found, config.context, config.upstream_slots), _clients(config))


def ask(config: Config, probes: bool = False) -> list[DiscoveredModel]:
    """Return the answer of each upstream. `probes`: see `find_models`. Raises ConfigError, NoUpstream."""
    found = trio.run(find_models, _clients(config), config.upstream_model, probes)
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
