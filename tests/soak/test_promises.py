"""Short forms of the soaks: each fails when its promise is broken."""

from pathlib import Path

import pytest

from tests.soak import mutated_bytes, slots, streams
from tests.soak.bounds import Bounds
from tests.support.helpers import served


@pytest.mark.slow
async def test_each_stream_ends_with_one_terminal_event(tmp_path: Path) -> None:
    assert (await streams.run(Bounds(200), tmp_path)).startswith("200 streams")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2], ids=["drafts", "one row"])
async def test_hang_up_frees_its_slot_within_one_decode_step(seed: int, tmp_path: Path) -> None:
    assert (await slots.run(Bounds(60), tmp_path, seed)).startswith("60 hang-ups, 1 decode step at most")


@pytest.mark.slow
async def test_mutated_bytes_take_nothing_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served(
        state=tmp_path, max_output_tokens=mutated_bytes.MAX_TOKENS, queue=mutated_bytes.CLIENTS, metrics=True
    ) as running:
        statuses = await mutated_bytes.attack(running, Bounds(500))
    assert {200, 400, 404} <= statuses.keys()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
