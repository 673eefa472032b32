"""PostgreSQL: connection loss, versions of the tables, writers in several processes, servers that die."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from server.store import deletions
from server.store.conversations import Conversation, StoredItem
from server.store.database import Schema
from server.store.deletions import Deletion
from server.store.errors import NewerStore, OlderStore, StoreError
from server.store.eviction import Missing
from server.store.locations import PostgresURL, open_inventory
from server.store.postgres import PostgresDatabase
from server.store.postgres_tables import SCHEMA, TABLES, Peer
from server.store.responses import Store
from tests.server.store.cluster import Cluster
from tests.server.store.entries import AMPLE, NOW, begun, ended, finish, items, put
from tests.server.store.test_responses import store

pytestmark = pytest.mark.slow

A, B = Peer("srv_a", "http://a:1"), Peer("srv_b", "http://b:1")


@pytest.fixture
def place(cluster: Cluster) -> PostgresURL:
    return cluster.create()


def name(place: PostgresURL) -> str:
    """Return the name of the database."""
    return place.url.partition("@/")[2].partition("?")[0]


@pytest.fixture
def peers(place: PostgresURL) -> Iterator[tuple[Store, Store]]:
    """Return the stores of two servers on one database."""
    with closing(opened(place, A)) as a, closing(opened(place, B)) as b:
        yield a, b


def opened(place: PostgresURL, peer: Peer, now: float = NOW) -> Store:
    return Store(PostgresDatabase(place.url, None, peer), AMPLE, ended, now)


def test_tables_have_the_columns_of_sqlite(place: PostgresURL, cluster: Cluster, tmp_path: Path) -> None:
    store(tmp_path / "s.db").close()
    store(place).close()
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'responsed'"
    found = set(cluster.execute(query, name(place)))
    extra = {("entries", "rowid"), ("responses", "owner"), ("version", "number")}
    extra |= {("servers", each) for each in ("id", "address", "seen")}
    extra |= {("secrets", each) for each in ("name", "value")}
    extra |= {("deletions", each) for each in ("number", "id", "affinity", "server")}
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        tables = ("entries", "conversations", "items", "responses", "held", "calls", "unstored_calls", "totals")
        ours = {(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")}
    assert found - extra == ours
    assert extra <= found


def test_migration_runs_all_missing_steps_once(place: PostgresURL) -> None:
    first = Schema(SCHEMA.tables + "CREATE TABLE notes (text TEXT);", SCHEMA.steps)
    step = "ALTER TABLE notes ADD language TEXT; UPDATE notes SET language = 'en';"
    second = Schema("", (*SCHEMA.steps, step))
    with closing(PostgresDatabase(place.url, None, A, first)) as database:
        database.change("INSERT INTO notes VALUES ('hello')")
    with pytest.raises(OlderStore, match=r"the tables are of an older version \(4\); start the server"):
        PostgresDatabase(place.url, None, None, second)
    for _ in range(2):
        with closing(PostgresDatabase(place.url, None, A, second)) as database:
            assert database.rows("SELECT * FROM notes") == [("hello", "en")]
    message = r"was written by a newer responsed \(tables of version 5; this one reads up to 4\): upgrade"
    with pytest.raises(NewerStore, match=message):
        PostgresDatabase(place.url, None, A)


def test_migration_that_fails_changes_nothing(place: PostgresURL) -> None:
    PostgresDatabase(place.url, None, A).close()
    wrong = Schema("", (*SCHEMA.steps, "CREATE TABLE more (a TEXT);", "UPDATE nowhere SET a = 1;"))
    with pytest.raises(StoreError, match='relation "nowhere" does not exist'):
        PostgresDatabase(place.url, None, A, wrong)
    with closing(PostgresDatabase(place.url, None, A)) as database:
        assert database.rows("SELECT to_regclass('more') IS NULL, number FROM version") == [(True, 4)]


def test_store_without_tables_is_older_for_an_inventory(place: PostgresURL) -> None:
    with pytest.raises(OlderStore, match="the tables are missing; start the server, which makes them"):
        open_inventory(place)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql:///x?host=/nowhere", r"^postgresql:///x\?host=/nowhere: connection .* No such file or directory;"),
        ("postgresql://127.0.0.1:1/x", "Connection refused"),
        ("postgresql://x y/", "unexpected spaces|invalid URI"),
    ],
)
def test_database_that_cannot_be_reached_is_a_store_error(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        PostgresDatabase(url, None, A)


def test_missing_password_is_an_error_that_names_its_places(
    place: PostgresURL, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster.execute("CREATE ROLE locked LOGIN PASSWORD 'a secret of the tests'")
    cluster.execute(f"GRANT CREATE ON DATABASE {name(place)} TO locked")
    url = cluster.url(name(place), "locked")
    with pytest.raises(StoreError, match=r"no password supplied; write the password to ~/.pgpass or to systemd's"):
        PostgresDatabase(url, None, A)
    with pytest.raises(StoreError, match=r"password authentication failed for user .*; write the password"):
        PostgresDatabase(url, "another one", A)
    PostgresDatabase(url, "a secret of the tests", A).close()
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:locked:a secret of the tests\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    PostgresDatabase(url, None, A).close()


def change_twice(keeper: Store, between: Callable[[], None]) -> None:
    with keeper._database.transaction():
        keeper._database.change("UPDATE responses SET status = 'x'")
        between()
        keeper._database.change("UPDATE responses SET status = 'y'")


def test_lost_connection_is_made_again(place: PostgresURL, cluster: Cluster) -> None:
    keeper = store(place)
    whole = put(keeper, begun("r1"))
    cluster.disconnect(name(place))
    assert keeper.get("r1", NOW) == whole, "a statement that finds the connection lost is repeated"
    cluster.disconnect(name(place))
    keeper.begin(half := begun("r2"), NOW)
    with pytest.raises(StoreError, match="terminat"):
        change_twice(keeper, lambda: cluster.disconnect(name(place)))
    assert keeper.get("r2", NOW) == half
    keeper.check_writable()
    assert finish(keeper, half) == keeper.get("r2", NOW)


def test_database_that_stops_is_an_error_until_it_is_back(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    keeper = store(place := cluster.create())
    whole = put(keeper, begun("r1"))
    cluster.control("stop", "-m", "immediate")
    try:
        for _ in range(2):
            with pytest.raises(StoreError, match=f"^{place.url.partition('?')[0]}"):
                keeper.get("r1", NOW)
            with pytest.raises(StoreError):
                keeper.check_writable()
    finally:
        cluster.control("start")
    keeper._database._retry_at = 0  # type: ignore[attr-defined]  # the next attempt is due
    keeper.check_writable()
    assert keeper.get("r1", NOW) == whole
    assert any(message.startswith(f"{place.url}: the connection is lost") for message in caplog.messages)


def test_read_only_database_is_not_ready(place: PostgresURL, cluster: Cluster) -> None:
    keeper = store(place)
    keeper.check_writable()
    cluster.execute(f"ALTER DATABASE {name(place)} SET default_transaction_read_only = on")
    cluster.disconnect(name(place))
    with pytest.raises(StoreError, match="read-only"):
        keeper.check_writable()


def test_time_is_that_of_the_database(place: PostgresURL) -> None:
    """Two servers, whose monotonic clocks differ, record uses in one order."""
    with closing(opened(place, A, 5.0)) as a, closing(opened(place, B, 9e9)) as b:
        put(a, begun("r1"), 5.0)
        put(b, begun("r2"), 9e9 + 1)
        a.get("r1", 5.0 + 9)
        rows = a._database.rows("SELECT id, used - extract(epoch FROM now())::float8 FROM entries ORDER BY used")
    assert [row[0] for row in rows] == ["r2", "r1"]
    assert all(-60 < row[1] < 60 for row in rows)


# Several servers


def test_server_sees_what_another_one_stored(peers: tuple[Store, Store]) -> None:
    a, b = peers
    whole = put(a, begun("r1"))
    assert b.get("r1", NOW) == whole
    b.conversations.create(Conversation("conv", 7, b"{}"), items("i1"), NOW)
    put(a, begun("r2", "r1", "conv"))
    assert [each.id for each in b.conversations.items("conv", NOW).items] == ["i1", "in_r2", "out_r2"]
    assert b.delete("r1")
    with pytest.raises(Missing, match="r1 is not stored"):
        a.chain("r2", NOW)


def test_response_in_progress_has_an_owner(peers: tuple[Store, Store], place: PostgresURL) -> None:
    a, b = peers
    a.begin(half := begun("r1"), NOW)
    assert (a.owner("r1"), b.owner("r1"), b.owner("r2")) == (None, A.address, None)
    b.keep_alive(NOW)
    assert b.get("r1", NOW) == half, "its server lives"
    finish(a, half)
    assert b.owner("r1") is None


def test_responses_of_a_dead_server_have_failed(peers: tuple[Store, Store], place: PostgresURL) -> None:
    a, b = peers
    a.begin(half := begun("r1"), NOW)
    b.begin(begun("r2"), NOW)
    b._database.change("UPDATE servers SET seen = seen - interval '21 s' WHERE id = 'srv_a'")
    assert b.owner("r1") is None
    b.keep_alive(NOW)
    response, inputs = ended(half.first)
    assert b.get("r1", NOW) == replace(half, status="failed", response=response, inputs=inputs)
    assert b.get("r2", NOW) == begun("r2")
    with pytest.raises(Missing):
        finish(a, half)
    a._database._beat_due = 0  # type: ignore[attr-defined]  # as after a pause
    a.begin(half := begun("r3"), NOW)
    b.keep_alive(NOW)
    assert b.get("r3", NOW) == half, "a server that was paused lives again"


def test_server_that_stops_leaves_nothing_in_progress(place: PostgresURL) -> None:
    with closing(opened(place, B)) as b:
        a = opened(place, A)
        a.begin(begun("r1"), NOW)
        a.close()
        b.keep_alive(NOW)
        found = b.get("r1", NOW)
        assert found is not None
        assert found.status == "failed"


def test_deletions_are_read_once_by_each_other_server(peers: tuple[Store, Store]) -> None:
    a, b = peers
    put(a, begun("r1"))
    a.conversations.create(Conversation("conv", 7, b"{}"), items("i1"), NOW)
    assert (a.deletions.after(None), b.deletions.after(None)) == ((0, ()), (0, ()))
    assert b.delete("r1", first := Deletion("r1", None))
    assert not b.delete("r1", Deletion("r1", None))
    assert a.deletions.after(0) == (1, [first])
    assert a.conversations.delete_item("conv", "i1", NOW)
    assert not a.conversations.delete_item("conv", "i1", NOW)
    assert b.conversations.delete("conv")
    second = Deletion("conv", "conv")
    assert a.deletions.after(1) == (3, [second]), "its own is left out"
    assert b.deletions.after(1) == (3, [second])
    assert (a.deletions.after(3), a.deletions.after(None)) == ((3, ()), (3, ()))


def test_server_that_missed_deletions_forgets_all(peers: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = peers
    monkeypatch.setattr(deletions, "LISTED", 2)
    for number in range(4):
        put(a, begun(f"r{number}"))
        b.delete(f"r{number}", Deletion(f"r{number}", f"r{number}"))
    assert a.deletions.after(2) == (4, [Deletion("r2", "r2"), Deletion("r3", "r3")])
    assert a.deletions.after(1) == (4, (deletions.ALL,)), "the second one is not listed any more"
    assert a.deletions.after(5) == (4, (deletions.ALL,)), "the number is of another database"


def test_tables_of_the_first_version_get_the_list_of_deletions(place: PostgresURL) -> None:
    PostgresDatabase(place.url, None, A, Schema(TABLES)).close()
    with closing(opened(place, A)) as a:
        put(a, begun("r1"))
        a.delete("r1", Deletion("r1", None))
        assert a.deletions.after(0) == (1, [])


APPENDER = """
import sys, time
from server.store.locations import PostgresURL, open_database
from server.store.errors import StoreError
from server.store.responses import Store
from tests.server.store.entries import AMPLE, NOW, begun, ended, put
keeper = Store(open_database(PostgresURL(sys.argv[1]), "http://x"), AMPLE, ended, NOW)
for number in range(int(sys.argv[3])):
    try:
        put(keeper, begun(f"r{sys.argv[2]}_{number}", conversation="conv"))
        print(number, flush=True)
    except StoreError:
        time.sleep(0.01)
keeper.close()
"""
TURNS = 30


def test_appends_of_several_processes_lose_nothing(place: PostgresURL) -> None:
    keeper = opened(place, A)
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    command = [sys.executable, "-c", APPENDER, place.url]
    writers = [subprocess.Popen([*command, str(each), str(TURNS)], stdout=subprocess.DEVNULL) for each in range(3)]
    assert [each.wait(120) for each in writers] == [0, 0, 0]
    found = [each.id for each in keeper.conversations.items("conv", NOW).items]
    for writer in range(3):
        turns = [f"{way}_r{writer}_{number}" for number in range(TURNS) for way in ("in", "out")]
        assert [each for each in found if each.split("_")[1] == f"r{writer}"] == turns
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert all(first.replace("in_", "out_") == second for first, second in pairs), "turns stand together"
    assert len(found) == 3 * 2 * TURNS
    keeper.close()


def test_lost_connections_leave_complete_turns(place: PostgresURL, cluster: Cluster) -> None:
    """Disconnect two writers at random, in and between their transactions."""
    with closing(opened(place, A)) as keeper:
        keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    command = [sys.executable, "-c", APPENDER, place.url]
    writers = [subprocess.Popen([*command, str(each), "200"], stdout=subprocess.PIPE, text=True) for each in range(2)]
    acknowledged = [f"r{number}_{each.stdout.readline().strip()}" for number, each in enumerate(writers) if each.stdout]
    while any(each.poll() is None for each in writers):
        trio.run(trio.sleep, 0.02)
        cluster.disconnect(name(place))
    for number, each in enumerate(writers):
        acknowledged += [f"r{number}_{line}" for line in each.communicate()[0].splitlines()]
    assert [each.returncode for each in writers] == [0, 0]
    with closing(opened(place, A)) as keeper:
        found = [each.id for each in keeper.conversations.items("conv", NOW).items]
    turns = [each.removeprefix("in_") for each in found[::2]]
    assert [f"out_{turn}" for turn in turns] == found[1::2], "turns stand together"
    assert set(acknowledged) <= set(turns)
    assert len(set(turns)) == len(turns)
    assert len(acknowledged) < 400, "some were lost, and their writers know it"


def test_killed_process_leaves_complete_turns_and_failed_responses(place: PostgresURL) -> None:
    keeper = opened(place, A)
    keeper.conversations.create(Conversation("conv", 7, b"{}"), [], NOW)
    writer = subprocess.Popen(
        [sys.executable, "-c", APPENDER, place.url, "0", "100000"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    acknowledged = [writer.stdout.readline() for _ in range(20)]
    writer.kill()
    acknowledged += writer.communicate()[0].splitlines()
    keeper._database.change("UPDATE servers SET seen = seen - interval '21 s' WHERE address = 'http://x'")
    keeper.keep_alive(NOW)
    counts: dict[str, int] = dict(keeper._database.rows("SELECT status, count(*) FROM responses GROUP BY status"))
    assert counts.keys() <= {"completed", "failed"}
    assert counts["completed"] >= len(acknowledged)
    assert counts.get("failed", 0) <= 1
    assert len(keeper.conversations.items("conv", NOW).items) == 2 * counts["completed"]
    keeper.close()


def test_inventory_lists_deletes_and_vacuums(peers: tuple[Store, Store], place: PostgresURL) -> None:
    a, b = peers
    put(a, begun("r1"))
    b.begin(begun("r2"), NOW)
    a.conversations.create(Conversation("conv", 7, b'{"a":"b"}'), [StoredItem("i", b"{}")], NOW)
    with open_inventory(place) as inventory:
        assert inventory.served
        assert {(each.id, each.kind, each.status) for each in inventory.entries()} == {
            ("conv", "conversation", ""),
            ("r2", "response", "in_progress"),
            ("r1", "response", "completed"),
        }
        assert inventory.in_use() == {"r2"}
        content = inventory.content(inventory.entry("conv"))
        assert (content.body, content.items) == (b'{"a":"b"}', [b"{}"])
        inventory.delete([])
        assert a.deletions.after(0) == (0, ())
        inventory.delete(["r1"])
        assert [each.deletions.after(0) for each in peers] == [(1, [deletions.ALL])] * 2, (
            "all servers drop their caches"
        )
        for number in range(100):
            put(a, begun(f"more{number}"))
        inventory.delete([f"more{number}" for number in range(100)])
        before, after = inventory.vacuum()
        assert after < before
    assert a.get("r1", NOW) is None
    a.close()
    b.close()
    with open_inventory(place) as inventory:
        assert not inventory.served
