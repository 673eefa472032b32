"""Fields that the upstreams of `fronts` lack: stated there, found here."""

import pytest
import trio

from server.upstream.upstreams import ask
from tests.server.api.test_reasoning import THINKS, thinker
from tests.server.upstream.fronts import CHAT_LACKS, TOKENS_LACK, fronting, token_fronting
from tests.server.upstream.tokens.forms import FORMS

pytestmark = pytest.mark.slow


async def test_probe_of_chat_finds_what_fronts_state() -> None:
    async with fronting(thinker(), template=THINKS) as front:
        found = await trio.to_thread.run_sync(ask, front.config)
    assert [each.missing_fields for each in found] == [CHAT_LACKS, CHAT_LACKS]


@pytest.mark.parametrize("kind", FORMS)
async def test_probe_of_tokens_finds_what_fronts_state(kind: str) -> None:
    async with token_fronting(kind=kind) as front:
        found = await trio.to_thread.run_sync(ask, front.config)
    assert [each.missing_fields for each in found] == [TOKENS_LACK[kind], TOKENS_LACK[kind]]
