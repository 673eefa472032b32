"""Prompts of deleted responses leave the prefix cache: DELETE finds the affinity group that a response got."""

from pathlib import Path
from typing import Any

import pytest

from engine.job import Job
from tests.support.helpers import Running, delete, exchange, post, served

KEY = {"prompt_cache_key": "main"}
CONTINUATION = {"background_options": {"continuation_id": "job7"}}
NAMED: dict[str, dict[str, Any]] = {
    "plain": {},
    "unknown name": {"prompt_cache_key": "", "background_options": {"continuation_id": ""}},
    "background": {"background": True, "background_options": {"completion_window": "8h"}},
    "client": {"user": "ada", "safety_identifier": "a"},
    "key": KEY,
    "continuation": CONTINUATION,
    "key and continuation": {**KEY, **CONTINUATION},
}
TURNS: dict[str, tuple[str | None, ...]] = {
    # The field by which each turn names the past. The last turn is deleted.
    "alone": (None,),
    "chain": (None, "previous_response_id", "previous_response_id"),
    "conversation": ("conversation", "conversation"),
    "chain after a conversation": ("conversation", "previous_response_id"),
}


class Groups:
    """Records the affinity groups of an engine's jobs, and those whose cached prompts it drops."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chosen: list[str] = []
        self.dropped: list[str | None] = []
        generate, drop = running.engine.generate, running.engine.drop_cached

        def recorded(job: Job, *rest: Any, **options: Any) -> Any:
            self.chosen.append(job.affinity)
            return generate(job, *rest, **options)

        async def dropping(group: str | None = None) -> None:
            self.dropped.append(group)
            await drop(group)

        monkeypatch.setattr(running.engine, "generate", recorded)
        monkeypatch.setattr(running.engine, "drop_cached", dropping)


@pytest.mark.slow
@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("settings", NAMED.values(), ids=NAMED)
async def test_delete_drops_the_affinity_group_that_a_response_got(
    settings: dict[str, Any], turns: tuple[str | None, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does not show groups that clients name: for these, everything is dropped."""
    async with served(state=tmp_path) as running:
        groups = Groups(running, monkeypatch)
        conversation = (await exchange(running, "POST", "/v1/conversations", b"{}")).json["id"]
        ids: list[str] = []
        for field in turns:
            past = {} if field is None else {field: conversation if field == "conversation" else ids[-1]}
            ids.append((await post(running, input="Hi", **past, **settings)).json["id"])
            await finished(running, ids[-1])
        assert (await delete(running, f"/v1/responses/{ids[-1]}")).status == 200
    chosen = groups.chosen[-1]
    by_client = turns == (None,) and settings in (KEY, CONTINUATION, {**KEY, **CONTINUATION})
    assert chosen == (conversation if turns[-1] == "conversation" else ids[0]) or by_client
    assert chosen.startswith("127.0.0.1 ") is by_client
    assert groups.dropped == [None if by_client else chosen]


async def finished(running: Running, response_id: str) -> None:
    """Wait for the end of a response."""
    answer = await exchange(running, "GET", f"/v1/responses/{response_id}?stream=true", None)
    assert answer.events[-1]["type"] == "response.completed"


@pytest.mark.slow
async def test_deleted_prompt_of_a_continuation_id_is_not_cached(tmp_path: Path) -> None:
    first = "The code word is cobalt. " * 3
    async with served(state=tmp_path) as running:
        made = (await post(running, input=first, **CONTINUATION)).json["id"]
        for letter in "abcd":  # take all slots
            await post(running, input=letter * 90, store=False)
        assert (await delete(running, f"/v1/responses/{made}")).status == 200
        usage = (await post(running, input=first, store=False)).json["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] < 20
