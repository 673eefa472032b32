"""Facts about each upstream by its last answer, and the model that they have in common.

An upstream that was away is asked and probed once a health check reaches it, and again if it comes back with another
model or version.
"""

import logging
from collections.abc import Sequence
from typing import Any

import trio

from server.config import Config
from server.upstream.discovery import DiscoveredModel, ProbeUpstream, find_model, find_models, upstream_model
from server.upstream.forms import Source, UpstreamForm
from server.upstream.replicas import Replica
from server.upstream.transport import Ask, Attempt, MissingFields, UpstreamClient, faults

log = logging.getLogger("responsed.upstream")


class UpstreamRegistry:
    def __init__(
        self,
        config: Config,
        clients: Sequence[UpstreamClient],
        form: UpstreamForm,
        lacking: MissingFields | None = None,
    ) -> None:
        """`lacking`: fields that each upstream is known to lack; None to find them by a probe."""
        self.config = config
        self.replicas = [Replica(client) for client in clients]
        self.source: Source | None = None
        """The model; None until an upstream has answered."""
        self._form = form
        self._probe = form.probe if lacking is None else _stated(lacking)
        self._ask: Ask | None = None
        self._found: dict[str, DiscoveredModel] = {}

    @property
    def name(self) -> str:
        """Name of the model; empty if it is not known yet."""
        return (self.config.upstream_model or "") if self.source is None else self.source.name

    @property
    def n_slots(self) -> int:
        return self.config.upstream_slots * len(self.replicas)

    @property
    def found(self) -> list[DiscoveredModel]:
        return [self._found[each.url] for each in self.replicas]

    def start(self) -> list[DiscoveredModel]:
        """Ask all upstreams, before the server runs, and return their answers."""
        clients = [each.client for each in self.replicas]
        answers = trio.run(find_models, clients, self.config.upstream_model, self._probe)
        self._found = {each.url: each for each in answers}
        for replica, found in zip(self.replicas, answers, strict=True):
            replica.healthy = not found.error
        self._update()
        return answers

    async def check(self, replica: Replica) -> bool:
        """Return whether an upstream answers, and note the facts about it if they have changed."""
        known = self._found[replica.url]
        found = await find_model(replica.client, self.config.upstream_model, self._probe, known)
        if found.away and not known.error:
            return False  # it may come back as it was
        if found != known:
            self._found[replica.url] = found
            self._update()
            self.log_facts([found])
        return not found.error

    async def ask(self, client: UpstreamClient, job: Any, attempt: Attempt) -> None:
        if self._ask is None:
            raise faults.none_usable(self.causes)
        await self._ask(client, job, attempt)

    @property
    def causes(self) -> list[str]:
        """Reasons for which no upstream can be used."""
        return [each.error for each in self.found]

    def _update(self) -> None:
        """Take over what is known about the upstreams. The model of before stays if none is left."""
        for replica, found in zip(self.replicas, self.found, strict=True):
            replica.barred = bool(found.error) and not found.away
            replica.error, replica.lacking = found.error, tuple(sorted(found.missing_fields.all))
        if all(each.error for each in self.found):
            return
        config = self.config
        front = self.replicas[0].client.front
        model = upstream_model(self.found, config.context, config.upstream_slots, self.name, front)
        if not config.context and not any(each.n_ctx for each in self.found):
            log.warning("no upstream names its context: %d tokens are assumed (--context)", model.n_ctx)
        source, self._ask = self._form.open(model, self.found)
        if source != self.source:  # otherwise `LiveModel` goes on with the model that it has opened
            self.source = source

    def log_facts(self, found: Sequence[DiscoveredModel]) -> None:
        for each in found:
            self._log(each)

    def _log(self, found: DiscoveredModel) -> None:
        if found.error:
            log.warning("%s", found.error)
            return
        log.info("upstream %s %s", found.url, str(found.missing_fields) or "has all fields that were probed")
        if found.model != self.name:
            log.warning("upstream %s has the model %r, and gets requests for %r", found.url, found.model, self.name)


def _stated(lacking: MissingFields) -> ProbeUpstream:
    async def probe(client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
        return lacking

    return probe
