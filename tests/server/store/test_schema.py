"""Versions of the tables: the first released one is read, steps run forward, a newer file is refused and stays."""

import hashlib
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from server.store.database import Schema
from server.store.errors import NewerStore, StoreError
from server.store.eviction import Limits
from server.store.responses import SCHEMA, Stored
from server.store.sqlite import APPLICATION_ID, SQLiteDatabase
from tests.server.store.entries import NOW, begun, ended, put
from tests.server.store.test_responses import store, stored_ids

FIRST = Path(__file__).parents[2] / "data" / "store-1.sql"
"""Dump of a store of version 1, which was released first: two responses, one of them in progress, a conversation."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "responses.db", FIRST.read_text())
    return tmp_path / "responses.db"


def write(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def test_store_of_the_first_version_is_read_completely(path: Path) -> None:
    keeper = store(path)
    assert keeper.get("resp_1", NOW) == Stored(
        id="resp_1",
        created_at=1_700_000_001,
        status="completed",
        first=b'{"id":"resp_1"}',
        response=b'{"id":"resp_1","output":[]}',
        inputs=b'["End"]',
        items=b'[{"id":"in_1"}]',
        conversation="conv_1",
    )
    interrupted = keeper.get("resp_2", NOW)
    assert interrupted is not None
    assert (interrupted.status, interrupted.previous) == ("failed", "resp_1")
    assert (interrupted.response, interrupted.inputs) == ended(b'{"id":"resp_2"}')
    page = keeper.conversations.items("conv_1", NOW)
    assert [(item.id, item.json) for item in page.items] == [("in_1", b'{"id":"in_1"}'), ("out_1", b'{"id":"out_1"}')]
    keeper.close()
    assert version(path) == SCHEMA.version


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return number


def columns(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(notes)")]
    connection.close()
    return names


TABLES = "CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT, language TEXT, length INTEGER);"
STEPS = (
    "ALTER TABLE notes ADD COLUMN language TEXT; UPDATE notes SET language = 'en';",
    "ALTER TABLE notes ADD COLUMN length INTEGER; UPDATE notes SET length = length(text);",
)
OLD = f"""
    CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT);
    INSERT INTO notes VALUES ('a', 'hello');
    PRAGMA user_version = 1; PRAGMA application_id = {APPLICATION_ID};
"""


@pytest.mark.parametrize(
    ("steps", "names", "row"),
    [
        ((), ["id", "text"], ("a", "hello")),
        (STEPS[:1], ["id", "text", "language"], ("a", "hello", "en")),
        (STEPS, ["id", "text", "language", "length"], ("a", "hello", "en", 5)),
    ],
)
def test_migration_runs_all_missing_steps(
    steps: tuple[str, ...], names: list[str], row: tuple[object, ...], tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    write(path, OLD)
    for _ in range(2):  # the second time there is nothing left to do
        database = SQLiteDatabase(path, Schema(TABLES, steps))
        assert database.rows("SELECT * FROM notes") == [row]
        database.close()
        assert (version(path), columns(path)) == (1 + len(steps), names)


def test_migration_that_fails_leaves_the_version_before_its_step(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    write(path, OLD)
    wrong = "DELETE FROM notes; UPDATE nowhere SET a = 1;"
    with pytest.raises(StoreError, match="no such table: nowhere"):
        SQLiteDatabase(path, Schema(TABLES, (STEPS[0], wrong)))
    assert (version(path), columns(path)) == (2, ["id", "text", "language"])
    database = SQLiteDatabase(path, Schema(TABLES, STEPS))
    assert database.rows("SELECT * FROM notes") == [("a", "hello", "en", 5)]
    database.close()


def test_store_of_a_newer_version_is_refused_and_stays_as_it_is(path: Path) -> None:
    write(path, f"PRAGMA user_version = {SCHEMA.version + 1}")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    message = (
        f"{path} was written by a newer responsed (tables of version {SCHEMA.version + 1}; this one reads up to "
        f"{SCHEMA.version}): upgrade, or choose another place with --store"
    )
    with pytest.raises(NewerStore) as caught:
        store(path)
    assert str(caught.value) == message
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [each.name for each in path.parent.iterdir()] == ["responses.db"]


def test_store_without_shared_memory_still_works(path: Path) -> None:
    """Some file systems have none. A folder in the place of its file has the same effect."""
    path.with_name("responses.db-shm").mkdir()
    keeper = store(path)
    assert stored_ids(keeper) == ["conv_1", "resp_1", "resp_2"]
    keeper.close()
    path.unlink()
    keeper = store(path)
    assert stored_ids(keeper) == []
    keeper.close()


WALLS = [
    ("boots in the past, then jumps to 2036", [0, 0, 2_082_758_400, 2_082_758_400]),
    ("jumps to 2036 and back", [1_795_000_000, 2_082_758_400, 1_795_000_000, 1_795_000_000]),
    ("runs backwards", [2_082_758_400, 1_795_000_000, 100_000, 0]),
]


@pytest.mark.parametrize("walls", [walls for _, walls in WALLS], ids=[name for name, _ in WALLS])
@pytest.mark.parametrize("restarts", [False, True])
def test_jumps_of_the_clock_evict_nothing(restarts: bool, walls: list[int], tmp_path: Path) -> None:
    """Entries age by the monotonic clock that the caller passes, never by the time of day in `created_at`."""
    limits = Limits(count=1000, megabytes=64, days=1)
    path, boot = tmp_path / "responses.db", 5.0
    keeper = store(path, limits, boot)
    for number, wall in enumerate(walls):
        if restarts:
            keeper.close()
            boot = (700.0, 3.0, 1e9, 0.0)[number]  # a monotonic clock begins anywhere
            keeper = store(path, limits, boot)
        put(keeper, replace(begun(f"r{number}"), created_at=wall), boot + number)
    assert stored_ids(keeper) == [f"r{number}" for number in range(len(walls))]
    keeper.close()


def test_migrated_store_has_the_tables_of_a_new_one(path: Path) -> None:
    store(path).close()
    store(path.with_name("new.db")).close()
    old, new = (sqlite3.connect(each) for each in (path, path.with_name("new.db")))
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
    assert old.execute(query).fetchall() == new.execute(query).fetchall()
    old.close()
    new.close()
