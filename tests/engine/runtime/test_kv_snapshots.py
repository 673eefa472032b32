"""The KV cache over a restart."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest
import trio

from engine.backends import scripted, selection
from engine.backends.scripted import ScriptedModel
from engine.chat_template.message import Message
from engine.job import Finished, Job, SamplingParams, Started
from engine.loader import Options, load, model_file
from engine.model import BackendOptions, SavedState
from engine.platform import atomic_write
from engine.prefix_cache import CachedRun
from engine.runtime import kv_snapshots
from engine.runtime.engine import Engine
from engine.runtime.kv_snapshots import Snapshots
from tests.support import model_files
from tests.support.helpers import delete, exchange, post, served

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)
ONE = CachedRun((1, 2), 0, SavedState(b"one\nrow", b"tail"), frozenset({"a"}))
TWO = CachedRun((1, 2, 3), 2, SavedState(b"two", b""), frozenset({"a", "b"}))


def folder_of(tmp_path: Path, fingerprint: str = "a model", limit: int = 1000) -> Snapshots:
    return Snapshots(tmp_path / "kv", fingerprint, limit)


def test_snapshots_are_read_in_the_order_of_writing(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    assert list(folder_of(tmp_path).read()) == [ONE, TWO]


def test_write_replaces_all_earlier_snapshots(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    again = folder_of(tmp_path)
    assert list(again.read()) == [ONE, TWO]
    again.write([TWO])
    assert list(folder_of(tmp_path).read()) == [TWO]
    assert len(list((tmp_path / "kv").glob("*.kv"))) == 1


def test_write_of_a_run_on_the_disk_does_not_write_it_again(tmp_path: Path) -> None:
    snapshots = folder_of(tmp_path)
    snapshots.write([ONE, TWO])
    files = {path.name: path.stat().st_ino for path in (tmp_path / "kv").glob("*.kv")}
    snapshots.write([TWO, ONE])
    assert {path.name: path.stat().st_ino for path in (tmp_path / "kv").glob("*.kv")} == files
    assert list(folder_of(tmp_path).read()) == [TWO, ONE]


def test_write_of_a_run_that_has_got_a_tail_replaces_its_file(tmp_path: Path) -> None:
    snapshots = folder_of(tmp_path)
    snapshots.write([TWO])
    with_tail = msgspec.structs.replace(TWO, state=SavedState(TWO.state.rows, b"tail"))
    snapshots.write([with_tail])
    assert list(folder_of(tmp_path).read()) == [with_tail]


def test_write_before_all_runs_were_read_deletes_none(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    snapshots = folder_of(tmp_path)
    assert list(snapshots.read()) == [ONE, TWO]
    snapshots.write([], complete=False)
    assert list(folder_of(tmp_path).read()) == [ONE, TWO]


@pytest.mark.parametrize(("group", "left"), [("a", [TWO]), ("b", [ONE, TWO]), (None, [])])
def test_drop_deletes_the_files_of_a_group_alone(tmp_path: Path, group: str | None, left: list[CachedRun]) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    folder_of(tmp_path).drop(group)
    assert list(folder_of(tmp_path).read()) == left


def test_read_skips_foreign_files(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE])
    assert list(folder_of(tmp_path, "another model").read()) == []


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_read_skips_a_truncated_file(tmp_path: Path, cut: int) -> None:
    folder_of(tmp_path).write([ONE])
    (file,) = (tmp_path / "kv").glob("*.kv")
    file.write_bytes(file.read_bytes()[:cut])
    assert list(folder_of(tmp_path).read()) == []


def test_read_detects_every_changed_byte_of_the_state(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE])
    (file,) = (tmp_path / "kv").glob("*.kv")
    data = file.read_bytes()
    for at in range(len(data) - len(ONE.state.rows) - len(ONE.state.tail), len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert list(folder_of(tmp_path).read()) == []


def test_write_to_an_unwritable_folder_logs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kv").write_text("a file where the folder should be")
    folder_of(tmp_path).write([ONE])
    assert "the KV cache cannot be written for a restart" in caplog.text


async def cached(engine: Engine, prompt: tuple[int, ...]) -> int:
    found = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.restore()
        with engine.generate(Job(prompt, 3, GREEDY, savable=True)) as outputs:
            async for output in outputs:
                match output:
                    case Started(n):
                        found = n
                    case Finished():
                        break
        nursery.cancel_scope.cancel()
    return found


async def test_engine_after_a_restart_does_not_evaluate_its_prompts_again(tmp_path: Path) -> None:
    prompt = tuple(scripted.vocabulary().encode("a long system prompt, said again and again"))
    assert await cached(Engine(ScriptedModel(batched=True), [scripted.END], 0, folder_of(tmp_path)), prompt) == 0
    model = ScriptedModel(batched=True)
    assert await cached(Engine(model, [scripted.END], 0, folder_of(tmp_path)), prompt) == len(prompt) - 1
    assert model.decoded[0].position == len(prompt) - 1


async def test_real_model_after_a_restart_answers_the_same(smollm2: Path, tmp_path: Path) -> None:
    _, vocabulary, template = model_file.read(smollm2)
    talk = [Message("system", "You are a helpful assistant."), Message("user", "What is the capital of France?")]
    prompt = tuple(template.prompt(talk))
    for expected in (0, len(prompt) - 1):
        model = selection.open_model("llamacpp", smollm2, n_ctx=512, n_slots=2, threads=1, library=None)
        engine = Engine(model, vocabulary.end_tokens, 0, folder_of(tmp_path, limit=10_000_000))
        assert await cached(engine, prompt) == expected
        model.close()


FOREIGN = ["notes.txt", "a.kv", "0" * 32 + ".kv", "f" * 32 + ".kv.bak", "0123.draft", ".hidden", "model.gguf"]


def test_snapshots_never_delete_foreign_files(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    folder.mkdir(mode=0o755)
    (folder / ("1" * 32 + ".kv")).mkdir()
    (folder / "precious").mkdir()
    for name in FOREIGN:
        (folder / name).write_text("of somebody else")
        (folder / name).chmod(0o640)
    snapshots = folder_of(tmp_path)
    assert list(snapshots.read()) == []
    for written in ([ONE, TWO], [TWO], []):
        snapshots.write(written)
    for name in FOREIGN:
        assert (folder / name).read_text() == "of somebody else"
        assert (folder / name).stat().st_mode & 0o777 == 0o640
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in folder.iterdir()} == {*FOREIGN, "1" * 32 + ".kv", "precious", ".lock"}


@pytest.mark.parametrize("fingerprints", [("a model", "a model"), ("a model", "another model")])
def test_snapshots_of_two_servers_in_one_folder_survive(tmp_path: Path, fingerprints: tuple[str, str]) -> None:
    first, second = (folder_of(tmp_path, fingerprint) for fingerprint in fingerprints)
    for server in (first, second):
        assert list(server.read()) == []
    first.write([ONE])
    second.write([TWO])
    first.write([ONE])
    found = [set(folder_of(tmp_path, fingerprint).read()) for fingerprint in fingerprints]
    assert found == ([{ONE, TWO}] * 2 if fingerprints[0] == fingerprints[1] else [{ONE}, {TWO}])


def test_write_by_two_servers_at_once_of_the_same_run_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = folder_of(tmp_path), folder_of(tmp_path)

    @contextmanager
    def interleaved(*arguments: Any, **options: Any) -> Iterator[BinaryIO]:
        with atomic_write(*arguments, **options) as file:
            yield file
            monkeypatch.undo()
            second.write([ONE])

    monkeypatch.setattr(kv_snapshots, "atomic_write", interleaved)
    first.write([ONE, TWO])
    assert caplog.messages == []
    assert list(folder_of(tmp_path).read()) == [ONE, TWO]


@pytest.mark.slow
def test_snapshots_of_an_earlier_setting_are_deleted_by_a_lone_server(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.model import SavedState\n"
        "from engine.prefix_cache import CachedRun\n"
        "from engine.runtime.kv_snapshots import Snapshots\n"
        "Snapshots(Path(sys.argv[1]), 'old', 1000).write([CachedRun((1,), 0, SavedState(b'old', b''))])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "kv")], check=True)
    snapshots = folder_of(tmp_path)
    assert list(snapshots.read()) == []
    snapshots.write([ONE])
    assert len(list((tmp_path / "kv").glob("*.kv"))) == 1


def test_snapshot_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kv").iterdir()} == {0o600}
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700


SECRET = "the secret number is 4711"


def tokens_on_disk(folder: Path) -> str:
    """Return the texts of all prompts in the snapshot files, in the scripted vocabulary."""
    found = b""
    for path in folder.glob("kv/*.kv"):
        head = msgspec.json.decode(path.read_bytes().partition(b"\n")[0])
        found += bytes(token for token in head["tokens"] if token < 256)
    return found.decode(errors="replace")


@pytest.mark.parametrize(
    ("settings", "body", "on_disk"),
    [
        ({}, {}, True),
        ({}, {"store": True}, True),
        ({}, {"store": False}, False),
        ({"store": "off"}, {}, False),
        ({"store": "off"}, {"store": True}, False),
        ({"snapshot_unstored": True}, {"store": False}, True),
        ({"snapshot_unstored": True, "store": "off"}, {}, True),
    ],
)
async def test_snapshots_of_an_unstored_prompt_are_not_written(
    tmp_path: Path, settings: dict[str, Any], body: dict[str, Any], on_disk: bool
) -> None:
    async with served(ScriptedModel(batched=True), state=tmp_path, snapshots=True, **settings) as running:
        await post(running, input=SECRET, **body)
    assert (SECRET in tokens_on_disk(tmp_path)) is on_disk


@pytest.mark.parametrize("stored_first", [True, False])
async def test_snapshots_of_a_slot_with_an_unstored_turn_are_not_written(tmp_path: Path, stored_first: bool) -> None:
    """The second request continues the slot of the first; the common prefix must not cause the rest to be written."""
    async with served(ScriptedModel(batched=True), state=tmp_path, snapshots=True) as running:
        for stored, text in ((stored_first, "public"), (not stored_first, SECRET)):
            await post(running, instructions="be brief and be kind", input=text, store=stored)
    assert (SECRET in tokens_on_disk(tmp_path)) is not stored_first


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/responses/{id}", "/v1/conversations/{conversation}"])
async def test_snapshots_of_a_deleted_prompt_are_deleted(tmp_path: Path, path: str) -> None:
    async with served(ScriptedModel(batched=True), state=tmp_path, snapshots=True) as running:
        conversation = (await exchange(running, "POST", "/v1/conversations", b"{}")).json["id"]
        response = (await post(running, input=SECRET, conversation=conversation)).json["id"]
    assert SECRET in tokens_on_disk(tmp_path)
    async with served(ScriptedModel(batched=True), state=tmp_path, snapshots=True) as running:
        await delete(running, path.format(id=response, conversation=conversation))
        assert SECRET not in tokens_on_disk(tmp_path)
    assert SECRET not in tokens_on_disk(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["response", "chain", "conversation", "key"])
async def test_deleted_prompt_is_not_cached_any_more(tmp_path: Path, kind: str) -> None:
    """It is gone from slots and tree. With a `prompt_cache_key` its group is unknown, and only the tree is emptied."""
    async with served(ScriptedModel(batched=True), state=tmp_path) as running:
        conversation = (await exchange(running, "POST", "/v1/conversations", b"{}")).json["id"]
        fields = {"conversation": {"conversation": conversation}, "key": {"prompt_cache_key": "k"}}.get(kind, {})
        response = (await post(running, input=SECRET, **fields)).json["id"]
        if kind == "chain":
            response = (await post(running, input="And now?", previous_response_id=response)).json["id"]
        for n in range(2):
            await post(running, input=f"{n} others talk about the weather")
        path = f"/v1/conversations/{conversation}" if kind == "conversation" else f"/v1/responses/{response}"
        await delete(running, path)
        cached = {}
        for text in (SECRET, "1 others talk about the weather"):
            usage = (await post(running, input=text)).json["usage"]
            cached[text] = usage["input_tokens_details"]["cached_tokens"]
    assert cached[SECRET] <= 1, "the marker of a message begins every prompt"
    assert cached["1 others talk about the weather"] > 20


def test_snapshots_with_limit_0_are_only_dropped(tmp_path: Path) -> None:
    """DELETE /v1/responses/{id} also deletes the prompts of earlier runs."""
    folder_of(tmp_path).write([ONE, TWO])
    off = folder_of(tmp_path, limit=0)
    assert list(off.read()) == []
    assert len(list((tmp_path / "kv").glob("*.kv"))) == 2
    off.drop()
    assert list((tmp_path / "kv").glob("*.kv")) == []


def test_drop_before_read_deletes_earlier_snapshots(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE])
    folder_of(tmp_path).drop()
    assert list((tmp_path / "kv").glob("*.kv")) == []
    folder_of(tmp_path / "none").drop()
    assert not (tmp_path / "none").exists()


def test_read_deletes_drafts_of_a_killed_server(tmp_path: Path) -> None:
    (tmp_path / "kv").mkdir()
    (tmp_path / "kv" / ".responsed-draft-abc").write_bytes(b"half a snapshot")
    assert list(folder_of(tmp_path).read()) == []
    assert [path.name for path in (tmp_path / "kv").iterdir()] == [".lock"]


def test_read_deletes_no_drafts_of_a_server_that_starts_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server may begin to write as soon as the first one no longer locks the folder for itself alone."""
    draft = tmp_path / "kv" / ".responsed-draft-abc"
    draft.parent.mkdir()
    lock = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        lock(descriptor, operation)
        if operation == fcntl.LOCK_SH:
            draft.write_bytes(b"half a snapshot")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert list(folder_of(tmp_path).read()) == []
    assert draft.exists()


@pytest.mark.parametrize("call", ["restore", "save"])
async def test_engine_whose_model_fails_to_restore_or_save_continues(tmp_path: Path, call: str) -> None:
    class Broken(ScriptedModel):
        def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
            if call == "restore":
                raise RuntimeError("restore")
            super().restore(slot, states, n)

        def save(self, slot: int, start: int, end: int) -> SavedState:
            if call == "save":
                raise RuntimeError("save")
            return super().save(slot, start, end)

    prompt = tuple(scripted.vocabulary().encode("a long system prompt, again and again"))
    assert await cached(Engine(ScriptedModel(batched=True), [scripted.END], 0, folder_of(tmp_path)), prompt) == 0
    found = await cached(Engine(Broken(batched=True), [scripted.END], 0, folder_of(tmp_path)), prompt)
    assert found == (0 if call == "restore" else len(prompt) - 1)


OTHER_SETTINGS: list[dict[str, Any]] = [
    {"n_slots": 2},
    {"n_ctx": 128},
    {"backend_options": BackendOptions(flash_attention=False)},
    {"backend_options": BackendOptions(kv_type="q8_0")},
]


@pytest.mark.slow
def test_fingerprint_of_another_setting_differs(tmp_path: Path) -> None:
    path = model_files.bpe(tmp_path / "tiny.gguf", heads=1)
    options = Options(n_slots=1, n_ctx=64, engine="llamacpp")
    fingerprints = set()
    for other in ({}, *OTHER_SETTINGS):
        loaded = load(path, msgspec.structs.replace(options, **other), tmp_path)
        fingerprints.add(loaded.fingerprint)
        loaded.model.close()
    assert len(fingerprints) == 1 + len(OTHER_SETTINGS)
