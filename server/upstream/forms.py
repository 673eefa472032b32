"""Forms of the API in which upstreams are asked: chat completions, or tokens to continue."""

import logging
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from engine.chat_template import ChatTemplate
from engine.tokenizer import Vocabulary
from server.upstream import chat
from server.upstream.chat import Probe, UpstreamModel
from server.upstream.discovery import DiscoveredModel
from server.upstream.tokens import TokenModelSource, TokenProbe, TokenUpstreams, kind_of
from server.upstream.transport import Ask, MissingFields, UpstreamClient

Source: TypeAlias = UpstreamModel | TokenModelSource

log = logging.getLogger("responsed.upstream")


class UpstreamForm(Protocol):
    async def probe(self, client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
        """Find out which fields an upstream lacks. Raises UpstreamFault if it cannot be used."""
        ...

    def open(self, model: UpstreamModel, found: Sequence[DiscoveredModel]) -> tuple[Source, Ask]:
        """Return the model for requests, and the way to ask for answers; at least one upstream is usable."""
        ...


class ChatForm:
    async def probe(self, client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
        return await Probe(client, found.model, found.unsafe).run()

    def open(self, model: UpstreamModel, found: Sequence[DiscoveredModel]) -> tuple[Source, Ask]:
        return model, chat.ask


class TokenForm:
    def __init__(self, vocabulary: Vocabulary, template: ChatTemplate) -> None:
        self._vocabulary = vocabulary
        self._template = template

    async def probe(self, client: UpstreamClient, found: DiscoveredModel) -> MissingFields:
        kind = kind_of(found.owned_by, self._vocabulary, found.grammar_backend)
        return await TokenProbe(client, kind, found.model, self._vocabulary, found.unsafe).run()

    def open(self, model: UpstreamModel, found: Sequence[DiscoveredModel]) -> tuple[Source, Ask]:
        vocabulary, lacking = self._vocabulary, model.refused | model.ignored
        usable = next(each for each in found if not each.error)
        kinds = {
            each.url: kind_of(known.owned_by, vocabulary, known.grammar_backend)
            for each in found
            for known in (each if each.owned_by else usable,)
        }
        log.info("tokens: %s", ", ".join(f"{url} is asked as {kind.name}" for url, kind in kinds.items()))
        upstreams = TokenUpstreams(
            model=model.name,
            n_vocab=len(vocabulary),
            ends=vocabulary.end_tokens,
            servers=kinds,
            refused=model.refused,
            has_grammars="grammar" not in lacking,
            chooses=all(kind.choice not in lacking for kind in kinds.values()),
        )
        source = TokenModelSource(
            name=model.name,
            created=model.created,
            n_ctx=model.n_ctx,
            n_slots=model.n_slots,
            vocabulary=vocabulary,
            template=self._template,
            lacking=lacking,
        )
        return source, upstreams.ask
