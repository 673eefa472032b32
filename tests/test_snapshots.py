"""The KV cache over a restart."""

from pathlib import Path

import msgspec
import pytest
import trio

from engine import (
    Engine,
    Finish,
    Job,
    Knobs,
    Message,
    Options,
    Sampling,
    Snapshots,
    Started,
    backends,
    load,
    loader,
    scripted,
)
from engine.scripted import ScriptedModel
from engine.snapshots import Snapshot

GREEDY = Sampling(temperature=0, top_p=1, top_k=0, min_p=0)
ONE, TWO = Snapshot((1, 2), b"one\nstate"), Snapshot((3,), b"two")


def folder_of(tmp_path: Path, fingerprint: str = "a model", limit: int = 1000) -> Snapshots:
    return Snapshots(tmp_path / "kv", fingerprint, limit)


def test_what_is_written_is_read_back_in_the_same_order(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    assert list(folder_of(tmp_path).read()) == [ONE, TWO]


def test_the_next_writing_replaces_all(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE, TWO])
    folder_of(tmp_path).write([TWO])
    assert list(folder_of(tmp_path).read()) == [TWO]
    assert len(list((tmp_path / "kv").iterdir())) == 1


def test_the_limit_is_kept_and_the_first_ones_go_first(tmp_path: Path) -> None:
    snapshots = [Snapshot((i,), bytes(400)) for i in range(4)]
    assert folder_of(tmp_path).choose(snapshots) == snapshots[:2]


def test_what_is_foreign_is_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE])
    assert list(folder_of(tmp_path, "another model").read()) == []


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_truncated_file_is_left_out(tmp_path: Path, cut: int) -> None:
    folder_of(tmp_path).write([ONE])
    (file,) = (tmp_path / "kv").iterdir()
    file.write_bytes(file.read_bytes()[:cut])
    assert list(folder_of(tmp_path).read()) == []


def test_every_changed_byte_of_the_state_is_noticed(tmp_path: Path) -> None:
    folder_of(tmp_path).write([ONE])
    (file,) = (tmp_path / "kv").iterdir()
    data = file.read_bytes()
    for at in range(len(data) - len(ONE.state), len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert list(folder_of(tmp_path).read()) == []


def test_a_folder_that_cannot_be_written_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kv").write_text("a file where the folder should be")
    folder_of(tmp_path).write([ONE])
    assert "the KV cache cannot be kept for a restart" in caplog.text


async def cached(engine: Engine, prompt: tuple[int, ...]) -> int:
    found = 0
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        engine.restore()
        with engine.generate(Job(prompt, 3, GREEDY)) as pieces:
            async for piece in pieces:
                match piece:
                    case Started(n):
                        found = n
                    case Finish():
                        break
        nursery.cancel_scope.cancel()
    return found


async def test_a_restarted_engine_does_not_evaluate_its_prompts_again(tmp_path: Path) -> None:
    prompt = tuple(scripted.vocabulary().encode("a long system prompt, said again and again"))
    assert await cached(Engine(ScriptedModel(batched=True), [scripted.END], 0, folder_of(tmp_path)), prompt) == 0
    model = ScriptedModel(batched=True)
    assert await cached(Engine(model, [scripted.END], 0, folder_of(tmp_path)), prompt) == len(prompt) - 1
    assert model.decoded[0].position == len(prompt) - 1


def test_a_state_is_of_one_kind_of_attention(smollm2: Path, cache: Path) -> None:
    options = Options(n_slots=1, n_ctx=64, engine="llamacpp")
    fingerprints = set()
    for flash_attention in (True, False):
        loaded = load(smollm2, msgspec.structs.replace(options, knobs=Knobs(flash_attention)), cache)
        fingerprints.add(loaded.fingerprint)
        loaded.model.close()
    assert len(fingerprints) == 2


async def test_the_real_model_answers_the_same_after_a_restart(smollm2: Path, tmp_path: Path) -> None:
    _, vocabulary, template = loader.read(smollm2)
    talk = [Message("system", "You are a helpful assistant."), Message("user", "What is the capital of France?")]
    prompt = tuple(template.prompt(talk))
    for expected in (0, len(prompt) - 1):
        model = backends.open_model("llamacpp", smollm2, n_ctx=512, n_slots=2, threads=1, library=None)
        engine = Engine(model, vocabulary.end_tokens, 0, folder_of(tmp_path, limit=10_000_000))
        assert await cached(engine, prompt) == expected
        model.close()
