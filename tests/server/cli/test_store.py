"""The commands `store ls`, `show`, `purge` and `vacuum`: what they print, delete and refuse, also beside a server."""

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from server.cli import main
from server.cli.console.exit_status import ExitStatus
from server.store.conversations import Conversation
from server.store.eviction import DAY_SECONDS
from server.store.locations import open_database
from server.store.responses import Store
from tests.server.store.cluster import Cluster
from tests.server.store.entries import AMPLE, begun, ended, items, put
from tests.server.store.test_responses import stored_ids
from tests.support import model_files
from tests.support.helpers import PacedModel, get, post, served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a state folder with two responses and a conversation, three days and one day old by use."""
    keeper = Store(open_database(tmp_path / "responses.db"), AMPLE, ended, 0.0)
    put(keeper, replace(begun("resp_old", size=1000), created_at=1_700_000_000), 0.0)
    keeper.conversations.create(Conversation("conv", 1_700_086_400, b'{"topic":"boats"}'), items("i1"), 2 * DAY_SECONDS)
    put(keeper, replace(begun("resp_new", "resp_old"), created_at=1_700_172_800), 3 * DAY_SECONDS)
    keeper.close()
    return tmp_path


@pytest.mark.slow
def test_commands_work_on_a_database(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = cluster.create()
    monkeypatch.setenv("RESPONSED_STORE", place.url)
    assert run(tmp_path, "ls") == ExitStatus.RESOURCES
    missing = f"responsed: {place}: the tables are missing; start the server, which makes them\n"
    assert capsys.readouterr().err == missing
    with contextlib.closing(Store(open_database(place), AMPLE, ended, 0.0)) as keeper:
        put(keeper, replace(begun("resp_old"), created_at=1_700_000_000), 0.0)
        keeper.conversations.create(Conversation("conv", 1_700_086_400, b'{"topic":"boats"}'), items("i1"), 1.0)
        keeper.begin(begun("resp_now"), 2.0)
        assert run(tmp_path, "ls", "--json") == 0
        listed = json.loads(capsys.readouterr().out)
        assert [(each["id"], each["status"]) for each in listed] == [
            ("resp_now", "in_progress"),
            ("conv", ""),
            ("resp_old", "completed"),
        ]
        assert run(tmp_path, "show", "conv", "--json") == 0
        assert json.loads(capsys.readouterr().out)["metadata"] == {"topic": "boats"}
        assert run(tmp_path, "show", "resp_none") == ExitStatus.USAGE
        assert run(tmp_path, "purge", "--all") == 0
        assert capsys.readouterr().out.splitlines() == [
            "deleted: 1 response and 1 conversation, 0.0 MB",
            "left, since the server works on them: resp_now",
        ]
        assert run(tmp_path, "vacuum") == 0
        sizes = re.fullmatch(r"(0\.\d) MB before, (0\.\d) MB now\n", capsys.readouterr().out)
        assert sizes is not None
        assert sizes[1] >= sizes[2], "the log of changes counts before, too"
    assert run(tmp_path, "purge", "--id", "resp_now") == 0, "no server works on it"


def run(folder: Path, *arguments: str) -> int:
    command, *others = arguments
    return main(["store", command, *others, "--state-dir", str(folder)])


def ids(folder: Path) -> list[str]:
    keeper = Store(open_database(folder / "responses.db"), AMPLE, ended, 0.0)
    found = stored_ids(keeper)
    keeper.close()
    return found


def test_ls_prints_a_table_of_all_entries(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "ls") == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID        KIND          STATUS     CREATED (UTC)     UNUSED    KB",
        "resp_new  response      completed  2023-11-16 22:13  0.0 days  0.1",
        "conv      conversation  -          2023-11-15 22:13  1.0 days  0.0",
        "resp_old  response      completed  2023-11-14 22:13  3.0 days  1.1",
    ]


def test_ls_prints_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "ls", "--json") == 0
    first, second, third = json.loads(capsys.readouterr().out)
    assert first == {
        "id": "resp_new",
        "kind": "response",
        "status": "completed",
        "created_at": 1_700_172_800,
        "unused_days": 0.0,
        "bytes": first["bytes"],
        "previous_response_id": "resp_old",
        "conversation": None,
    }
    assert [(each["id"], each["unused_days"]) for each in (second, third)] == [("conv", 1.0), ("resp_old", 3.0)]


SHOWN: list[tuple[str, dict[str, Any]]] = [
    ("resp_new", {"input": [{"id": "in_resp_new"}], "response": {"done": 1}}),
    ("conv", {"metadata": {"topic": "boats"}, "items": [{"id": "i1"}]}),
]


@pytest.mark.parametrize(("name", "parts"), SHOWN)
def test_show_prints_an_entry_with_its_content(
    name: str, parts: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "show", name, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("entry")["id"] == name
    assert shown == parts
    assert run(folder, "show", name) == 0
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith(name)]
    for part, value in parts.items():
        assert f"\n{part}: {json.dumps(value, indent=2)}\n" in text


PURGES = [
    (["--all"], [], "deleted: 2 responses and 1 conversation, 0.0 MB\n"),
    (["--unused-days", "2"], ["conv", "resp_new"], "deleted: 1 response and 0 conversations, 0.0 MB\n"),
    (["--unused-days", "1"], ["resp_new"], "deleted: 1 response and 1 conversation, 0.0 MB\n"),
    (["--unused-days", "9"], ["resp_old", "conv", "resp_new"], "deleted: 0 responses and 0 conversations, 0.0 MB\n"),
    (["--id", "conv", "--id", "resp_old"], ["resp_new"], "deleted: 1 response and 1 conversation, 0.0 MB\n"),
    (["--all", "--json"], [], '{"deleted":["resp_new","conv","resp_old"],"in_progress":[]}\n'),
]


@pytest.mark.parametrize(("flags", "left", "printed"), PURGES)
def test_purge_deletes_what_its_flags_name(
    flags: list[str], left: list[str], printed: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, deleted = folder / "kv" / "photo.kv", folder / "kv" / f"{0:032x}.kv"
    kept.parent.mkdir()
    for each in (kept, deleted):
        each.write_bytes(b'{"fingerprint":"","digest":"","tokens":[]}\n')
    assert run(folder, "purge", *flags) == 0
    assert capsys.readouterr().out == printed
    assert ids(folder) == left
    assert (kept.exists(), deleted.exists()) == (True, len(left) == 3), "snapshots contain prompts"


def test_vacuum_shrinks_the_file_after_a_purge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeper = Store(open_database(folder / "responses.db"), AMPLE, ended, 0.0)
    put(keeper, begun("resp_large", size=1_000_000), 0.0)
    keeper.close()
    assert run(folder, "purge", "--id", "resp_large") == 0
    assert b"x" * 2000 not in (folder / "responses.db").read_bytes(), "deleted content is overwritten"
    assert run(folder, "vacuum") == 0
    assert capsys.readouterr().out.endswith("2.1 MB before, 0.1 MB now\n")
    assert run(folder, "vacuum", "--json") == 0
    sizes = json.loads(capsys.readouterr().out)
    assert sizes["bytes_before"] == sizes["bytes_after"] == (folder / "responses.db").stat().st_size


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def theirs(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()


REFUSED = [
    (lambda path: None, ["show", "nope"], ExitStatus.USAGE, "nope is not stored in {path}; `responsed store ls` lists"),
    (lambda path: None, ["purge", "--id", "resp_new", "--id", "nope"], ExitStatus.USAGE, "nope is not stored in"),
    (lambda path: None, ["ls", "--store", "off"], ExitStatus.USAGE, "the settings turn the store off; name a file"),
    (lambda path: path.unlink(), ["ls"], ExitStatus.USAGE, "there is no store at {path} that you may read"),
    (newer, ["ls"], ExitStatus.USAGE, "{path} was written by a newer responsed (tables of version 99; this one reads"),
    (theirs, ["purge", "--all"], ExitStatus.RESOURCES, "{path} is not a file of responsed; choose another file"),
    (lambda path: path.write_bytes(b""), ["ls"], ExitStatus.RESOURCES, "{path} is empty; start the server, which"),
    (
        lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(5000)),
        ["ls"],
        ExitStatus.RESOURCES,
        "{path}: the file is damaged; restart the server, which renames it",
    ),
]


@pytest.mark.parametrize(("prepare", "arguments", "status", "message"), REFUSED)
def test_command_that_cannot_work_changes_nothing_and_names_the_remedy(
    prepare: Any, arguments: list[str], status: ExitStatus, message: str, folder: Path, capsys: Any
) -> None:
    path = folder / "responses.db"
    prepare(path)
    before = path.read_bytes() if path.exists() else None
    assert run(folder, *arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"responsed: {message.format(path=path)}")
    assert captured.err.count("\n") == 1
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("flags", [[], ["--all", "--id", "a"], ["--unused-days", "-1"], ["--unused-days", "nan"]])
def test_purge_with_wrong_flags_is_refused(flags: list[str], folder: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        run(folder, "purge", *flags)
    assert ended.value.code == ExitStatus.USAGE
    assert len(ids(folder)) == 3


async def command(folder: Path, *arguments: str) -> tuple[str, str]:
    """Run the command as a process of its own: SQLite's locks are those of a process."""
    name, *others = arguments
    done = await trio.run_process(
        [sys.executable, "-m", "server", "store", name, *others, "--state-dir", str(folder)],
        capture_stdout=True,
        capture_stderr=True,
    )
    return done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
async def test_commands_beside_a_server_leave_its_running_response(tmp_path: Path) -> None:
    model = PacedModel()
    async with served(model, state=tmp_path) as running:
        ended_id = (await post(running, input="Hi")).json["id"]
        model.hold()
        begun_id = (await post(running, input="Hi", background=True)).json["id"]
        listed = json.loads((await command(tmp_path, "ls", "--json"))[0])
        assert {each["id"]: each["status"] for each in listed} == {begun_id: "queued", ended_id: "completed"}
        out, err = await command(tmp_path, "purge", "--all")
        assert out.splitlines()[1] == f"left, since the server works on them: {begun_id}"
        assert "its prefix cache still has the deleted prompts" in err
        assert " MB before, " in (await command(tmp_path, "vacuum"))[0]
        assert (await get(running, f"/v1/responses/{ended_id}")).status == 404
        model.go()
        followed = await get(running, f"/v1/responses/{begun_id}?stream=true")
        assert followed.events[-1]["type"] == "response.completed"
        assert (await post(running, input="again", previous_response_id=begun_id)).json["status"] == "completed"


@pytest.mark.slow
def test_serve_with_a_newer_store_ends_with_the_status_of_wrong_settings(folder: Path) -> None:
    newer(folder / "responses.db")
    model = model_files.bpe(folder / "tiny.gguf")
    flags = ["--model", str(model), "--port", "0", "--state-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "server", "serve", *flags], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == ExitStatus.USAGE
    assert done.stderr.splitlines()[-1].startswith(f"responsed: {folder}/responses.db was written by a newer responsed")
