"""The store: complete entries within the limits, on full, broken and damaged disks and after crashes."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from server.store import async_store, calls, sqlite
from server.store.async_store import AsyncStore
from server.store.calls import LOST_RESULT
from server.store.conversations import Conversation, Page, StoredItem
from server.store.database import Database
from server.store.errors import StoreError
from server.store.eviction import DAY_SECONDS, Limits, Missing
from server.store.locations import Place, open_database
from server.store.postgres import PostgresDatabase
from server.store.postgres_tables import Peer
from server.store.responses import Interrupted, Store, Stored
from tests.server.store.cluster import Cluster
from tests.server.store.entries import AMPLE, NOW, begun, ended, finish, finished, items, put
from tests.support.helpers import get, post, served

NOBODY = 65534


OPENED: list[Store] = []


class Timeless(PostgresDatabase):
    """PostgreSQL whose clock stands still, so that the time of the tests goes on like SQLite's."""

    def clock(self) -> None:  # type: ignore[override]  # the protocol's type
        return None


def database(place: Place) -> Database:
    if isinstance(place, Path):
        return open_database(place)
    return Timeless(place.url, None, Peer(f"srv_{uuid4().hex}", ""))


def store(place: Place, limits: Limits = AMPLE, now: float = NOW, interrupted: Interrupted = ended) -> Store:
    OPENED.append(keeper := Store(database(place), limits, interrupted, now))
    return keeper


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close the stores that a test leaves open, since psycopg warns of connections."""
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "responses.db"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest) -> Place:
    """Return a place for a new store, of each kind."""
    if request.param == "sqlite":
        file: Path = request.getfixturevalue("path")
        return file
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.create()


def stored_ids(keeper: Store) -> list[str]:
    """Return the ids of the entries, the least recently used first."""
    return [each for (each,) in keeper._database.rows("SELECT id FROM entries ORDER BY used, rowid")]


def test_response_is_stored_at_its_begin_and_end(place: Place) -> None:
    keeper = store(place)
    first = begun("resp_1")
    keeper.begin(first, NOW)
    assert keeper.get("resp_1", NOW) == first
    assert keeper.get("resp_2", NOW) is None
    whole = finish(keeper, first)
    assert keeper.get("resp_1", NOW) == whole
    keeper.close()
    assert store(place).get("resp_1", NOW) == whole


def test_response_finished_twice_is_missing(place: Place) -> None:
    keeper = store(place)
    put(keeper, begun("resp_1"))
    for name in ("resp_1", "resp_2"):
        with pytest.raises(Missing, match=f"{name} is not stored"):
            keeper.finish(name, "failed", b"{}", b"[]", [], NOW)


def test_chain_is_read_oldest_first_and_names_a_missing_response(place: Place) -> None:
    keeper = store(place)
    line = [put(keeper, begun(f"r{i}", f"r{i - 1}" if i else None)) for i in range(5)]
    put(keeper, begun("aside", "r1"))
    assert keeper.chain("r4", NOW) == line
    assert keeper.delete("r2")
    assert not keeper.delete("r2")
    with pytest.raises(Missing) as caught:
        keeper.chain("r4", NOW)
    assert caught.value.id == "r2"
    assert keeper.chain("r1", NOW) == line[:2]


def test_unfinished_response_is_failed_after_a_restart(place: Place) -> None:
    keeper = store(place)
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    whole = put(keeper, begun("r1", conversation="conv"))
    half = begun("r2", conversation="conv")
    keeper.begin(half, NOW)
    keeper.close()
    keeper = store(place)
    response, cues = ended(half.first)
    failed = replace(half, status="failed", response=response, inputs=cues)
    assert keeper.chain("r1", NOW) == [whole]
    assert keeper.get("r2", NOW) == failed
    assert keeper.conversations.items("conv", NOW) == Page(items("in_r1", "out_r1"), more=False)


def test_unfinished_response_ends_with_the_inputs_that_were_stored(place: Place) -> None:
    keeper = store(place)
    keeper.begin(begun("r1"), NOW)
    keeper.advance("r1", b'["called"]')
    keeper.close()
    found = store(place).get("r1", NOW)
    assert found is not None
    assert (found.status, found.inputs) == ("failed", b'["called","stopped"]')


def test_call_belongs_to_the_first_response_that_makes_it(place: Place) -> None:
    """Its inputs tell whether it has returned."""
    keeper = store(place)
    keeper.begin(begun("resp_a"), NOW)
    keeper.begin(begun("resp_b"), NOW)
    assert keeper.calls.claim("key", "resp_a") is None
    assert keeper.calls.claim("key", "resp_b") == b"[]"
    keeper.advance("resp_a", b'["called"]')
    assert keeper.calls.claim("key", None) == b'["called"]'
    assert keeper.calls.claim("other", "resp_b") is None


def test_call_of_an_unstored_response_is_remembered_without_its_result(place: Place) -> None:
    keeper = store(place)
    assert keeper.calls.claim("key", None) is None
    keeper.close()
    keeper = store(place)
    keeper.begin(begun("resp_a"), NOW)
    assert [keeper.calls.claim("key", owner) for owner in (None, "resp_a")] == [LOST_RESULT, LOST_RESULT]
    assert keeper.calls.claim("other", None) is None


def test_oldest_calls_of_unstored_responses_are_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_UNSTORED", 2)
    keeper = store(place)
    assert [keeper.calls.claim(key, None) for key in ("a", "b", "c")] == [None] * 3
    assert [keeper.calls.claim(key, None) for key in ("b", "c", "a")] == [LOST_RESULT, LOST_RESULT, None]


def test_call_is_forgotten_with_its_response(place: Place) -> None:
    keeper = store(place)
    keeper.begin(begun("resp_a"), NOW)
    keeper.calls.claim("key", "resp_a")
    assert keeper.delete("resp_a")
    assert keeper.calls.claim("key", None) is None


def test_call_of_a_response_that_is_not_stored_is_an_error(place: Place) -> None:
    keeper = store(place)
    with pytest.raises(StoreError):
        keeper.calls.claim("key", "resp_a")


def test_unfinished_response_that_is_unreadable_is_removed(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def unreadable(first: bytes, inputs: bytes) -> tuple[bytes, bytes]:
        raise ValueError("no such field")

    keeper = store(place)
    keeper.begin(begun("r1"), NOW)
    keeper.close()
    assert stored_ids(store(place, interrupted=unreadable)) == []
    assert caplog.messages == [
        "a process did not shut down: 1 unfinished response failed",
        "removed r1, whose unfinished record cannot be ended: no such field",
    ]


def test_unfinished_response_is_removed_if_its_end_is_too_large(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Its end repeats its beginning, which alone met the limit."""
    limits = replace(AMPLE, megabytes=0.001)
    keeper = store(place, limits)
    put(keeper, begun("r1"))
    keeper.begin(begun("r2", size=600), NOW)
    keeper.close()
    assert stored_ids(store(place, limits)) == ["r1"]
    assert caplog.messages[-1].startswith("removed r2, whose unfinished record cannot be ended: r2 has ")


# Bounds


def test_eviction_removes_the_least_recently_used_first(place: Place) -> None:
    keeper = store(place, replace(AMPLE, count=4))
    for i, previous in enumerate([None, "r0", None, None]):
        put(keeper, begun(f"r{i}", previous), NOW + i)
    keeper.chain("r1", NOW + 10)
    keeper.get("r2", NOW + 11)
    for i in (4, 5, 6):
        put(keeper, begun(f"r{i}"), NOW + 8 + i)
    assert stored_ids(keeper) == ["r2", "r4", "r5", "r6"], "r3 was never used, then r0 and r1 by a chain"


def test_eviction_limits_the_bytes(place: Place) -> None:
    keeper = store(place, replace(AMPLE, megabytes=0.01))
    for i in range(5):
        put(keeper, begun(f"r{i}", size=3000), NOW + i)
    assert stored_ids(keeper) == ["r2", "r3", "r4"]


def test_eviction_removes_unused_responses_after_some_days(place: Place) -> None:
    keeper = store(place, replace(AMPLE, days=2))
    put(keeper, begun("old"), NOW)
    put(keeper, begun("used"), NOW)
    keeper.get("used", NOW + DAY_SECONDS)
    put(keeper, begun("new"), NOW + 2.5 * DAY_SECONDS)
    assert stored_ids(keeper) == ["used", "new"]
    keeper.close()
    assert stored_ids(store(place, replace(AMPLE, days=2), NOW + 4 * DAY_SECONDS)) == ["used", "new"], (
        "no server ran meanwhile"
    )


@pytest.mark.slow
def test_write_of_a_full_store_costs_the_same_at_any_size(tmp_path: Path) -> None:
    """SQLite calls a function at every instruction of its virtual machine."""

    def instructions(entries: int) -> int:
        keeper = store(tmp_path / f"{entries}.db", replace(AMPLE, count=entries))
        for number in range(entries):
            put(keeper, begun(f"r{number}"), NOW + number)
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        assert isinstance(keeper._database, sqlite.SQLiteDatabase)
        keeper._database._connection.set_progress_handler(count, 1)
        put(keeper, begun("last"), NOW + entries)
        assert keeper.usage().entries == entries
        return counted

    assert instructions(400) == pytest.approx(instructions(40), rel=0.1)


def test_evictions_have_one_line_a_minute(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keeper = store(place, replace(AMPLE, count=2))
    for i in range(9):
        put(keeper, begun(f"r{i}"), NOW + 15 * i)
    assert caplog.messages == [
        f"evicted {n} of the stored responses and conversations, the least recently used, down to 2 entries, 64 MB and "
        "30 days"
        for n in (1, 4)
    ]


def foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE photos (name TEXT); INSERT INTO photos VALUES ('cat'); PRAGMA user_version = 1;"
        )


@pytest.mark.parametrize(
    "make",
    [
        foreign_database,
        lambda path: path.write_text("Dear diary,"),
        lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(200)),
        lambda path: path.write_bytes(bytes(4096)),
    ],
    ids=["a database", "a text", "a damaged database", "zeros"],
)
def test_store_at_a_foreign_file_is_refused_and_preserves_it(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "theirs.db"
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is not a file of responsed; choose another file with --store"):
        store(path)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (before, 0o644)
    assert [each.name for each in tmp_path.iterdir()] == ["theirs.db"]


@pytest.mark.parametrize("boot", [0.0, NOW - 200 * DAY_SECONDS, NOW + 3650 * DAY_SECONDS, 5.0])
def test_store_whose_next_server_has_another_clock_loses_nothing(place: Place, boot: float) -> None:
    """CLOCK_MONOTONIC begins anew with each boot, and files of earlier versions have dates in them."""
    keeper = store(place, replace(AMPLE, days=2), NOW)
    for name in ("r1", "r2"):
        put(keeper, begun(name), NOW)
    keeper.close()
    keeper = store(place, replace(AMPLE, days=2), boot)
    put(keeper, begun("r3"), boot + 1)
    assert stored_ids(keeper) == ["r1", "r2", "r3"]
    put(keeper, begun("r4"), boot + 1.5 * DAY_SECONDS)
    put(keeper, begun("r5"), boot + 2.5 * DAY_SECONDS)
    assert stored_ids(keeper) == ["r4", "r5"], "two days of serving"


@pytest.mark.slow
async def test_async_store_ignores_the_wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the store on a machine that booted 200 days ago, with one request in the year 2036."""
    async with served(state=tmp_path, store_days=30) as running:
        ids = []
        for days in (-200, 0, 3650, 0):
            with monkeypatch.context() as context:
                context.setattr("time.time", lambda days=days: NOW + days * DAY_SECONDS)
                ids.append((await post(running, input="Hi")).json["id"])
        for response_id in ids:
            assert (await get(running, f"/v1/responses/{response_id}")).status == 200


def test_unfinished_response_and_its_conversation_are_not_evicted(place: Place) -> None:
    keeper = store(place, replace(AMPLE, count=1, days=1))
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    made = [begun("r1", conversation="conv"), begun("r2"), begun("r3")]
    for each in made:
        keeper.begin(each, NOW + DAY_SECONDS)
    assert stored_ids(keeper) == ["conv", "r1", "r2", "r3"]
    assert finish(keeper, made[0], NOW + 9 * DAY_SECONDS) == keeper.get("r1", NOW + 9 * DAY_SECONDS)
    assert keeper.conversations.items("conv", NOW + 9 * DAY_SECONDS).items == items("in_r1", "out_r1")
    assert stored_ids(keeper) == ["r2", "r3", "conv", "r1"]
    finish(keeper, made[1], NOW + 9 * DAY_SECONDS)
    assert stored_ids(keeper) == ["r3", "r2"]


def test_entry_larger_than_the_limit_is_refused_and_evicts_nothing(place: Place) -> None:
    keeper = store(place, replace(AMPLE, megabytes=0.01))
    put(keeper, begun("r1", size=6000))
    with pytest.raises(
        StoreError, match="r2 has 20040 bytes, more than the limit of the whole store; raise --store-megabytes"
    ):
        keeper.begin(begun("r2", size=20_000), NOW)
    assert stored_ids(keeper) == ["r1"]


# Conversations


def test_conversation_gets_the_items_of_a_turn_together(place: Place) -> None:
    keeper = store(place)
    keeper.conversations.create(Conversation("conv", 7, b'{"a":"b"}'), items("i1"), NOW)
    put(keeper, begun("r1", conversation="conv"))
    keeper.begin(failing := begun("r2", conversation="conv"), NOW)
    finish(keeper, failing, status="failed")
    assert keeper.conversations.items("conv", NOW) == Page(items("i1", "in_r1", "out_r1"), more=False)
    assert keeper.conversations.update("conv", b"{}", NOW)
    assert keeper.conversations.get("conv", NOW) == Conversation("conv", 7, b"{}")
    keeper.begin(late := begun("r3", conversation="conv"), NOW)
    assert keeper.conversations.delete("conv")
    assert finish(keeper, late) == keeper.get("r3", NOW)
    assert keeper._database.rows("SELECT * FROM items") == []


def test_conversation_items_are_read_in_pages(place: Place) -> None:
    keeper = store(place).conversations
    keeper.create(Conversation("conv", 7, b"{}"), [], NOW)
    keeper.add("conv", items("a", "b", "c", "d"), NOW)
    assert keeper.items("conv", NOW, None, 3) == Page(items("a", "b", "c"), more=True)
    assert keeper.items("conv", NOW, "c", 3) == Page(items("d"), more=False)
    assert keeper.items("conv", NOW, None, 2, True) == Page(items("d", "c"), more=True)
    assert keeper.items("conv", NOW, "c", 2, True) == Page(items("b", "a"), more=False)
    assert keeper.item("conv", "b") == items("b")[0]
    assert keeper.delete_item("conv", "b", NOW)
    assert not keeper.delete_item("conv", "b", NOW)
    assert keeper.item("conv", "b") is None
    keeper.add("conv", [StoredItem("a", b"again")], NOW)
    assert keeper.items("conv", NOW).items == [*items("c", "d"), StoredItem("a", b"again")]


def test_missing_entry_is_named_by_the_error(place: Place) -> None:
    keeper = store(place)
    put(keeper, begun("resp"))
    for name in ("conv", "resp"):
        assert keeper.conversations.get(name, NOW) is None
        assert not keeper.conversations.update(name, b"{}", NOW)
        assert not keeper.conversations.delete(name)
        for act in (
            lambda name=name: keeper.conversations.items(name, NOW),
            lambda name=name: keeper.conversations.add(name, items("i"), NOW),
        ):
            with pytest.raises(Missing, match=f"{name} is not stored"):
                act()
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    assert not keeper.delete("conv")
    with pytest.raises(Missing, match="i9 is not stored"):
        keeper.conversations.items("conv", NOW, "i9")
    assert stored_ids(keeper) == ["resp", "conv"]


# The disk


def fill_up(keeper: Store) -> None:
    keeper._database.rows("PRAGMA max_page_count = 1")


def test_full_disk_is_an_error_and_changes_nothing(path: Path) -> None:
    keeper = store(path)
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    whole = put(keeper, begun("r1"))
    half = begun("r2", "r1", "conv")
    keeper.begin(half, NOW)
    fill_up(keeper)
    full = f"^{path}: the disk is full; free some space, or choose another file with --store$"
    with pytest.raises(StoreError, match=full):
        keeper.begin(begun("r3", size=20_000), NOW)
    with pytest.raises(StoreError, match=full):
        keeper.finish("r2", "completed", b"x" * 200, b"[]", [StoredItem("i", b"y" * 20_000)], NOW)
    assert keeper.chain("r2", NOW + 1) == [whole, half]
    assert keeper.conversations.items("conv", NOW).items == []
    keeper._database.rows("PRAGMA max_page_count = 1000000")
    assert finish(keeper, half) == keeper.get("r2", NOW)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder of another user, since root may write anywhere."""
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_unwritable_folder_or_file_is_an_error(folder: Path) -> None:
    path = folder / "responses.db"
    advice = "cannot be written; check the permissions, or choose another file with --store$"
    store(path).close()
    path.chmod(0o400)
    with pytest.raises(StoreError, match=f"^{path} \\(Permission denied\\) {advice}"):
        store(path)
    path.chmod(0o600)
    folder.chmod(0o500)
    with pytest.raises(StoreError, match=f"^{path}: the file or its folder {advice}"):
        store(path)
    with pytest.raises(StoreError, match=rf"^{folder}/new\.db \(Permission denied\) {advice}"):
        store(folder / "new.db")
    with pytest.raises(StoreError, match=rf"^{path}/s\.db \(File exists\) {advice}"):
        store(path / "s.db")


@pytest.mark.parametrize("replaced", [False, True])
def test_file_that_was_deleted_or_replaced_is_not_written(replaced: bool, folder: Path) -> None:
    path, aside = folder / "responses.db", folder / "aside.db"
    keeper = store(path)
    put(keeper, begun("r1"))
    path.rename(aside)
    if replaced:
        path.touch()
    message = f"^{path} was deleted or replaced; restart the server, or put the file back$"
    with pytest.raises(StoreError, match=message):
        put(keeper, begun("r2"))
    with pytest.raises(StoreError, match=message):
        keeper.check_writable()
    assert keeper.get("r1", 0.0), "reading works"
    aside.rename(path)
    keeper.check_writable()
    put(keeper, begun("r2"))
    keeper.close()


def test_damaged_file_that_cannot_be_renamed_is_an_error(folder: Path) -> None:
    path = folder / "responses.db"
    path.write_text("I am a poem. " * 999)
    folder.chmod(0o500)
    with pytest.raises(StoreError, match=f"^{path} \\(Permission denied\\) cannot be written"):
        store(path)


def test_second_server_on_the_same_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.0)
    keeper = store(path)
    put(keeper, begun("r1"))
    with pytest.raises(StoreError, match="another process uses the file; stop it, or choose another file"):
        store(path)
    keeper.close()
    store(path).close()


def test_store_file_is_private_to_its_owner(path: Path) -> None:
    keeper = store(path)
    keeper.close()
    keeper = store(path)
    put(keeper, begun("r1"))
    assert {each.name: oct(each.stat().st_mode & 0o777) for each in path.parent.iterdir()} == {
        "responses.db": "0o600",
        "responses.db-wal": "0o600",
        "responses.db-shm": "0o600",
    }
    keeper.close()
    path.chmod(0o644)
    store(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["text", "hole", "cut"])
def test_damaged_file_is_renamed_and_replaced(damage: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper = store(path)
    for i in range(20):
        put(keeper, begun(f"r{i}", size=2000))
    keeper.close()
    whole = path.read_bytes()
    holed = whole[:8192] + b"\xff" * 16384 + whole[24576:]
    path.write_bytes({"text": b"I am a poem. " * 999, "hole": holed, "cut": whole[:-20_000]}[damage])
    keeper = store(path)
    assert stored_ids(keeper) == []
    assert put(keeper, begun("r1")) == keeper.get("r1", NOW)
    aside = path.with_name("responses.db.damaged")
    assert aside.exists()
    assert caplog.messages == [f"{path} is damaged; renamed it to {aside} and created a new one"]


@pytest.mark.parametrize(
    ("times", "copies"),
    [
        (3, {"damaged": 0, "damaged1": 1, "damaged2": 2}),
        (5, {"damaged2": 2, "damaged3": 3, "damaged4": 4}),
        (12, {"damaged9": 9, "damaged10": 10, "damaged11": 11}),
    ],
)
def test_store_that_is_damaged_again_has_the_latest_three_copies(
    times: int, copies: dict[str, int], path: Path
) -> None:
    theirs = path.with_name("responses.db.damaged-by-me")
    path.parent.mkdir()
    theirs.touch()
    for number in range(times):
        path.write_bytes(b"SQLite format 3\0" + bytes([number]) * 5000)
        store(path).close()
    found = {each.suffix[1:]: each.read_bytes()[-1] for each in path.parent.iterdir() if each not in (path, theirs)}
    assert (found, theirs.exists()) == (copies, True)


WRITER = """
import sys
from pathlib import Path
from server.store.conversations import Conversation
from server.store.locations import open_database
from server.store.responses import Store
from tests.server.store.entries import AMPLE, NOW, begun, ended, put
path, number = Path(sys.argv[1]), int(sys.argv[2])
keeper = Store(open_database(path), AMPLE, ended, NOW)
if not keeper.conversations.get("conv", NOW):
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
previous = sys.argv[3] or None
while True:
    name = f"r{number}"
    put(keeper, begun(name, previous, "conv", size=20_000))
    print(name, flush=True)
    previous, number = name, number + 1
"""


@pytest.mark.slow
def test_killed_process_leaves_complete_responses_only(path: Path) -> None:
    dice = random.Random(4)
    acknowledged: list[str] = []
    number = 0
    for _ in range(8):
        arguments = [sys.executable, "-c", WRITER, str(path), str(number), acknowledged[-1] if acknowledged else ""]
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert child.stdout
        lines = [child.stdout.readline() for _ in range(dice.randrange(1, 40))]
        trio.run(trio.sleep, dice.random() / 500)
        child.send_signal(signal.SIGKILL)
        acknowledged += [line.strip() for line in [*lines, *child.communicate()[0].splitlines()]]

        keeper = store(path)
        there = [row for (row,) in keeper._database.rows("SELECT id FROM responses ORDER BY rowid")]
        kept = {name: keeper.get(name, NOW) for name in there}
        assert set(acknowledged) <= kept.keys()
        spoken = []
        for name, stored in kept.items():
            assert stored is not None
            first = begun(name, stored.previous, "conv", size=20_000)
            response, cues = ended(first.first)
            failed = replace(first, status="failed", response=response, inputs=cues)
            assert stored in (finished(first), failed)
            assert stored == finished(first) or name not in acknowledged
            if stored.status == "completed":
                spoken += items(f"in_{name}", f"out_{name}")
        assert keeper.conversations.items("conv", NOW).items == spoken
        assert [each.id for each in keeper.chain(acknowledged[-1], NOW)] == acknowledged
        assert keeper._database.rows("PRAGMA integrity_check") == [("ok",)]
        keeper.close()
        number = max(int(name[1:]) for name in there) + 1


class StoreModel:
    """Model of a store: simple code, without a disk."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.used: dict[str, float] = {}
        """Return the items in the order of arrival."""
        self.responses: dict[str, Stored] = {}
        self.conversations: dict[str, dict[str, bytes]] = {}

    def size(self, name: str) -> int:
        if name in self.conversations:
            return len(b"{}") + sum(map(len, self.conversations[name].values()))
        each = self.responses[name]
        made = len(each.first) + len(each.items)
        return made if each.status == "in_progress" else made + len(each.response) + len(each.inputs)

    def remove(self, name: str) -> bool:
        self.responses.pop(name, None)
        self.conversations.pop(name, None)
        return self.used.pop(name, None) is not None

    def evict(self, now: float, *spared: str | None) -> None:
        unfinished = [each for each in self.responses.values() if each.status == "in_progress"]
        kept = {*spared, *(each.id for each in unfinished), *(each.conversation for each in unfinished)}
        for name in sorted(self.used, key=lambda name: self.used[name]):
            fits = len(self.used) <= self.limits.count and sum(map(self.size, self.used)) <= self.limits.megabytes * 1e6
            if fits and self.used[name] >= now - self.limits.days * DAY_SECONDS:
                break
            if name not in kept:
                self.remove(name)

    def line(self, name: str) -> list[str]:
        """Return a response and its existing ancestors, and the first missing one."""
        stored = self.responses.get(name)
        return [name] if stored is None or stored.previous is None else [name, *self.line(stored.previous)]


NAMES = st.integers(0, 15)
"""Index of an earlier name, counted from the last one."""


class StoreMachine(RuleBasedStateMachine):
    """Comparison of a store with narrow limits and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.place = self.new_place()
        self.limits = Limits(count=6, megabytes=0.002, days=5)
        self.now = NOW
        self.model = StoreModel(self.limits)
        self.named = ["r0"]
        self.talks = ["c0"]
        self.open()

    def open(self) -> None:
        self.store = store(self.place, self.limits, self.now)

    def new_place(self) -> Place:
        self.folder = tempfile.TemporaryDirectory()
        return Path(self.folder.name, "s.db")

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def pick(self, number: int) -> str:
        return self.named[-1 - number % len(self.named)]

    @rule(hours=st.sampled_from([1, 1, 30]))
    def wait(self, hours: int) -> None:
        self.now += hours * 3600

    @rule(previous=st.none() | NAMES, talks=st.booleans(), size=st.integers(0, 700))
    def begin(self, previous: int | None, talks: bool, size: int) -> None:
        name = f"r{len(self.named)}"
        parent = None if previous is None else self.pick(previous)
        stored = begun(name, parent, self.talks[-1] if talks else None, size)
        self.named.append(name)
        self.store.begin(stored, self.now)
        self.model.used[name], self.model.responses[name] = self.now, stored
        self.model.evict(self.now, name)

    @rule(number=NAMES, status=st.sampled_from(["completed", "failed"]))
    def finish(self, number: int, status: str) -> None:
        name = self.pick(number)
        stored = self.model.responses.get(name)
        if stored is None or stored.status != "in_progress":
            with pytest.raises(Missing):
                finish(self.store, begun(name), self.now, status)
            return
        self.model.responses[name] = finish(self.store, stored, self.now, status)
        self.model.used[name] = self.now
        if stored.conversation in self.model.conversations and status != "failed":
            self.add(stored.conversation, f"in_{name}", f"out_{name}")
        self.model.evict(self.now, name, stored.conversation)

    def add(self, conversation: str, *ids: str) -> None:
        for item in items(*ids):
            self.model.conversations[conversation].pop(item.id, None)
            self.model.conversations[conversation][item.id] = item.json
        self.model.used[conversation] = self.now

    @rule(number=NAMES)
    def get(self, number: int) -> None:
        name = self.pick(number)
        assert self.store.get(name, self.now) == self.model.responses.get(name)
        if name in self.model.used:
            self.model.used[name] = self.now

    @rule(number=NAMES)
    def chain(self, number: int) -> None:
        line = self.model.line(self.pick(number))
        if line[-1] not in self.model.responses:
            with pytest.raises(Missing, match=f"^{line[-1]} is not"):
                self.store.chain(line[0], self.now)
            return
        assert self.store.chain(line[0], self.now) == [self.model.responses[each] for each in reversed(line)]
        self.model.used |= dict.fromkeys(line, self.now)

    @rule(number=NAMES)
    def delete(self, number: int) -> None:
        name = self.pick(number)
        assert self.store.delete(name) == self.model.remove(name)

    @rule(ids=st.lists(st.sampled_from("abc"), max_size=3))
    def talk(self, ids: list[str]) -> None:
        name = f"c{len(self.talks)}"
        self.talks.append(name)
        self.store.conversations.create(Conversation(name, 7, b"{}"), items(*ids), self.now)
        self.model.conversations[name] = {}
        self.add(name, *ids)
        self.model.evict(self.now, name)

    @rule(ids=st.lists(st.sampled_from("abc"), max_size=3))
    def say(self, ids: list[str]) -> None:
        name = self.talks[-1]
        if name not in self.model.conversations:
            with pytest.raises(Missing):
                self.store.conversations.add(name, items(*ids), self.now)
            return
        self.store.conversations.add(name, items(*ids), self.now)
        self.add(name, *ids)
        self.model.evict(self.now, name)

    @rule(which=st.sampled_from("abc"))
    def unsay(self, which: str) -> None:
        name = self.talks[-1]
        there = self.model.conversations.get(name, {}).pop(which, None) is not None
        assert self.store.conversations.delete_item(name, which, self.now) == there
        if name in self.model.used:
            self.model.used[name] = self.now

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.now = max(self.model.used.values(), default=self.now)  # nothing ages while no server runs
        self.open()
        for name, stored in self.model.responses.items():
            if stored.status == "in_progress":
                response, cues = ended(stored.first)
                self.model.responses[name] = replace(stored, status="failed", response=response, inputs=cues)
                self.model.used[name] = self.now
        self.model.evict(self.now)

    @invariant()
    def both_are_the_same(self) -> None:
        rows = self.store._database.rows("SELECT id, used, bytes FROM entries ORDER BY rowid")
        assert rows == [(name, used, self.model.size(name)) for name, used in self.model.used.items()]
        sizes = [self.model.size(name) for name in self.model.used]
        assert (self.store.usage().entries, self.store.usage().bytes) == (len(sizes), sum(sizes))
        kept = [row for (row,) in self.store._database.rows("SELECT id FROM responses")]
        assert {name: self.store._read(name) for name in kept} == self.model.responses
        texts: dict[str, dict[str, bytes]] = {name: {} for name in self.model.conversations}
        for name, item, text in self.store._database.rows("SELECT conversation, id, json FROM items ORDER BY place"):
            texts[name][item] = text
        assert {name: list(each.items()) for name, each in texts.items()} == {
            name: list(each.items()) for name, each in self.model.conversations.items()
        }


TestStoreMachine = pytest.mark.slow(StoreMachine.TestCase)
TestStoreMachine.settings = settings(max_examples=60, stateful_step_count=25)


@pytest.mark.slow
def test_store_in_postgres_does_what_the_model_does(cluster: Cluster) -> None:
    class PostgresMachine(StoreMachine):
        def new_place(self) -> Place:
            return cluster.create()

        def teardown(self) -> None:
            self.store.close()

    run_state_machine_as_test(PostgresMachine, settings=settings(max_examples=40, stateful_step_count=25))


async def test_failed_sign_of_life_is_logged_once_and_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(async_store, "BEAT_SECONDS", 0)
    monkeypatch.setattr(Store, "shared", True)
    failures = [StoreError("it is away"), OSError("no folder"), OSError("no folder")]

    async def follow() -> None:
        if not failures:
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
        raise failures.pop(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(AsyncStore(store(place)).keep_alive, follow)
    assert caplog.messages == ["it is away", "no folder"]


async def test_async_store_runs_one_method_at_a_time(place: Place) -> None:
    archive = AsyncStore(store(place))
    line = [begun(f"r{i}", conversation="conv") for i in range(10)]
    await archive.run(archive.conversations.create, Conversation("conv", 7, b"{}"), [], NOW)

    async def make(stored: Stored) -> None:
        await archive.run(archive.responses.begin, stored, NOW)
        whole = finished(stored)
        await archive.run(
            archive.responses.finish,
            stored.id,
            whole.status,
            whole.response,
            whole.inputs,
            items(f"out_{stored.id}"),
            NOW,
        )

    async with trio.open_nursery() as nursery:
        for each in line:
            nursery.start_soon(make, each)
    for each in line:
        assert await archive.run(archive.responses.get, each.id, NOW) == finished(each)
        assert await archive.run(archive.responses.chain, each.id, NOW) == [finished(each)]
    assert await archive.run(archive.responses.delete, "r0")
    page = await archive.run(archive.conversations.items, "conv", NOW)
    assert sorted(item.id for item in page.items) == sorted(
        f"{way}_{each.id}" for each in line for way in ("in", "out")
    )
    assert await archive.run(archive.conversations.update, "conv", b"[]", NOW)
    assert await archive.run(archive.conversations.get, "conv", NOW) == Conversation("conv", 7, b"[]")
    await archive.run(archive.conversations.add, "conv", items("i"), NOW)
    assert await archive.run(archive.conversations.item, "conv", "i") == items("i")[0]
    assert await archive.run(archive.conversations.delete_item, "conv", "i", NOW)
    assert await archive.run(archive.conversations.delete, "conv")
    await archive.run(
        archive.responses.close,
    )
    with pytest.raises(StoreError, match=r"Cannot operate on a closed database|the store is closed"):
        await archive.run(archive.responses.get, "r1", NOW)
