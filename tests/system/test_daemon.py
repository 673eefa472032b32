"""The command itself: a process of its own, the real model, the official client, systemd's protocol, and its end."""

import asyncio
import hashlib
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import numpy as np
import openai
import pytest
import trio
import trio.testing

from engine.backends.scripted import ScriptedModel
from engine.model import ModelError
from server import daemon
from server.cli import main
from server.cli.console.exit_status import ExitStatus
from server.config.config import Config
from server.listening.sockets import listening_sockets
from server.systemd import Notifier
from tests.support import wire
from tests.support.helpers import NAME, PATIENCE, PacedModel, official_async_client, official_client, wired
from tests.support.processes import COMMAND, ROOT, START_SECONDS, Daemon, serving

MODEL = "gpt-4o-mini"
"""An alias: what tools hard-code."""

# Without the instructions the first token of the greedy answer is a near tie between "The" and another, which this
# small model loses or wins by rounding; with them it is not.
INSTRUCTIONS = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
STORY = "Write a very long story about the sea, with many chapters."


@pytest.fixture(scope="module")
def running(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that chooses its own numbers of threads. In a context of 4,096 tokens a summary may have 1,024."""
    flags = ("--model", str(smollm2), "--alias", MODEL, "--context", "4096", "--threads", "0", "--threads-batch", "0")
    with serving(tmp_path_factory.mktemp("daemon"), *flags) as daemon:
        yield daemon


@pytest.fixture
def client(running: Daemon) -> Iterator[openai.OpenAI]:
    with official_client(running.url, timeout=PATIENCE) as client:
        yield client


def test_official_client_create_returns_the_text(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL, instructions=INSTRUCTIONS, input=QUESTION, temperature=0, max_output_tokens=40
    )
    assert "Paris" in response.output_text
    assert response.status in ("completed", "incomplete")
    wire.check_response(json.loads(response.to_json(exclude_unset=True)))


def test_official_client_stream_has_every_event(client: openai.OpenAI) -> None:
    with client.responses.with_streaming_response.create(
        model=MODEL, instructions=INSTRUCTIONS, input=QUESTION, temperature=0, max_output_tokens=40, stream=True
    ) as answer:
        events = wire.events(b"".join(answer.iter_bytes()))
    assert "Paris" in events[-1]["response"]["output"][0]["content"][0]["text"]


def test_official_client_stream_helper_follows_the_stream(client: openai.OpenAI) -> None:
    deltas: list[str] = []
    with client.responses.stream(
        model=MODEL, instructions="Answer in one word.", input="Say yes.", temperature=0, max_output_tokens=500
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
        final = stream.get_final_response()
    assert final.output_text == "".join(deltas) != ""


def test_official_client_gets_logprobs(client: openai.OpenAI) -> None:
    """Greedily each token is the likeliest, and the first 20 are most of what there is."""
    asked: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 20, "max_output_tokens": 12}
    with client.responses.with_streaming_response.create(
        model=MODEL, input="Say: naïve 日本.", temperature=0, stream=True, **asked
    ) as answer:
        events = wire.events(b"".join(answer.iter_bytes()))
    (part,) = events[-1]["response"]["output"][0]["content"]
    assert b"".join(bytes(each["bytes"]) for each in part["logprobs"]).decode(errors="ignore") == part["text"] != ""
    for each in part["logprobs"]:
        numbers = [one["logprob"] for one in each["top_logprobs"]]
        assert len(numbers) == 20
        assert numbers == sorted(numbers, reverse=True)
        assert 0.5 < sum(map(math.exp, numbers)) <= 1.000001
        assert each["top_logprobs"][0] == {name: each[name] for name in ("token", "logprob", "bytes")}


def test_async_client_stream_ends_completed(running: Daemon) -> None:
    async def ask() -> tuple[str, str]:
        async with official_async_client(running.url) as client:
            whole = await client.responses.create(
                model=MODEL, instructions=INSTRUCTIONS, input=QUESTION, temperature=0, max_output_tokens=40
            )
            stream = await client.responses.create(
                model=MODEL, instructions=INSTRUCTIONS, input=QUESTION, temperature=0, max_output_tokens=40, stream=True
            )
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            return whole.output_text, "".join(deltas)

    whole, streamed = asyncio.run(ask())
    assert "Paris" in whole
    assert streamed == whole


def test_repeated_greedy_request_has_equal_text_and_cached_tokens(client: openai.OpenAI) -> None:
    question = "Name three rivers in Europe."
    first, second = (
        client.responses.create(model=MODEL, input=question, temperature=0, max_output_tokens=40) for _ in range(2)
    )
    assert first.output_text == second.output_text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens == first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens == first.usage.input_tokens - 1


def test_request_with_a_seed_is_repeatable(client: openai.OpenAI) -> None:
    """Each time in the same state: with the whole prompt in the cache."""
    texts = [
        client.responses.create(
            model=MODEL, input="Invent a name.", temperature=1.5, max_output_tokens=24, extra_body={"seed": 7}
        ).output_text
        for _ in range(3)
    ]
    assert texts[1] == texts[2]


def test_official_client_counts_tokens_and_compacts(client: openai.OpenAI) -> None:
    talk: Any = [
        {"role": "user", "content": "My boat is called Minna, and it is green."},
        {"role": "assistant", "content": "A fine name for a boat."},
    ]
    n = client.responses.input_tokens.count(model=MODEL, input=talk, instructions=INSTRUCTIONS).input_tokens
    first = client.responses.create(model=MODEL, input=talk, instructions=INSTRUCTIONS, max_output_tokens=1)
    assert first.usage is not None
    assert first.usage.input_tokens == n
    answer = client.responses.with_raw_response.compact(model=MODEL, input=talk, instructions=INSTRUCTIONS)
    compacted = json.loads(answer.content)
    wire.check_against("CompactResource", compacted, "compaction")
    assert n < compacted["usage"]["input_tokens"] < n + 200
    assert compacted["usage"]["output_tokens"] < 1024, "it doesn't say the same until there is no room"
    question: Any = {"role": "user", "content": "What is the name of my boat?"}
    going_on: Any = {"input": [*compacted["output"], question], "temperature": 0, "max_output_tokens": 8}
    last = client.responses.create(model=MODEL, instructions=INSTRUCTIONS, **going_on)
    assert "Minna" in compacted["output"][0]["content"][0]["text"]
    assert last.output_text, "what such a small model makes of its own summary is its affair"


def test_official_client_lists_the_model(client: openai.OpenAI, smollm2: Path) -> None:
    assert [model.id for model in client.models.list()] == [smollm2.stem, MODEL]
    named, alias = (client.models.retrieve(name).to_dict() for name in (smollm2.stem, MODEL))
    assert alias == named | {"id": MODEL}
    sha256 = hashlib.sha256(smollm2.read_bytes()).hexdigest()
    facts = {"n_ctx_train": 8192, "n_params": 134_515_008, "quantization": "Q4_1", "sha256": sha256}
    assert {name: alias["meta"][name] for name in facts} == facts  # type: ignore[index]


def test_official_client_raises_its_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        client.responses.create(model="nope", input="Hi")
    with pytest.raises(openai.BadRequestError) as too_long:
        client.responses.create(model=MODEL, input="sea " * 9000)
    assert (not_found.value.code, not_found.value.param) == ("model_not_found", "model")
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")


def test_daemon_that_is_ready_answers(running: Daemon) -> None:
    assert running.ready == f"READY=1\nSTATUS=listening on http://127.0.0.1:{running.port}"
    connection = running.connection()
    connection.request("GET", "/health")
    with connection.getresponse() as answer:
        assert answer.status == 200
    connection.close()


WARMING_UP = "EXTEND_TIMEOUT_USEC=60000000\nSTATUS=evaluating the first prompts"
ADDRESSES = ["{tmp}/notify", f"@responsed-test-{os.getpid()}"]


@pytest.mark.slow
@pytest.mark.parametrize("address", ADDRESSES, ids=["a path", "abstract"])
async def test_daemon_notifies_systemd_of_every_step(address: str, tmp_path: Path) -> None:
    address = address.format(tmp=tmp_path)
    model = PacedModel()
    model.hold()
    config = Config(model=NAME)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
        listening_sockets(["127.0.0.1"], 0, {}) as listening,
    ):
        channel.bind("\0" + address[1:] if address.startswith("@") else address)
        channel.setblocking(False)
        port = listening.port
        notifier = Notifier({"NOTIFY_SOCKET": address})
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(daemon.run, config, listening, *wired(model, config), notifier)
                await model.wait_begun(1)
                await trio.lowlevel.wait_readable(channel)
                assert received(channel) == WARMING_UP
                assert received(channel) is None  # the model has not answered yet
                model.go()
                await trio.lowlevel.wait_readable(channel)
                assert received(channel) == f"READY=1\nSTATUS=listening on http://127.0.0.1:{port}"
                signal.raise_signal(signal.SIGTERM)
        assert received(channel) == "STOPPING=1\nSTATUS=waiting for streams to end"
        assert received(channel) is None


@pytest.mark.slow
def test_start_reports_its_stages_to_systemd(running: Daemon, smollm2: Path) -> None:
    stages = [re.sub(r"\d+ %", "N %", message) for message in running.starting]
    assert list(dict.fromkeys(stages)) == [
        f"EXTEND_TIMEOUT_USEC=60000000\nSTATUS={stage}"
        for stage in (f"loading {smollm2.name}: N %", "evaluating the first prompts")
    ]
    assert stages[-1] == WARMING_UP


def received(channel: socket.socket) -> str | None:
    """Return the message that has arrived; None without one."""
    try:
        return channel.recv(4096).decode()
    except BlockingIOError:
        return None


async def test_daemon_with_a_failing_model_is_never_ready(tmp_path: Path) -> None:
    def refuse(message: bytes) -> bytes:
        raise ModelError("the model broke")

    config = Config(model=NAME)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
        listening_sockets(["127.0.0.1"], 0, {}) as listening,
    ):
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with pytest.RaisesGroup(pytest.RaisesExc(ModelError, match="the model broke"), flatten_subgroups=True):
            await daemon.run(config, listening, *wired(ScriptedModel(refuse), config), notifier)
        assert received(channel) == WARMING_UP
        assert received(channel) is None


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/no/such/socket"}], ids=repr)
def test_notifier_without_a_manager_does_nothing(environ: dict[str, str]) -> None:
    Notifier(environ).notify("READY=1")


UNITS = ROOT / "server" / "systemd"
INSTALLED = "ExecStart=/opt/responsed/bin/responsed serve"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.mark.slow
@needs_systemd
def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    """With the command where it is here: systemd wants that file to be there."""
    unit, address = tmp_path / "responsed.service", tmp_path / "responsed.socket"
    text = (UNITS / unit.name).read_text()
    assert text.count(INSTALLED) == 1
    unit.write_text(text.replace(INSTALLED, f"ExecStart={sys.executable} -m server serve"))
    shutil.copy(UNITS / address.name, address)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit, address], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize(("drop_in", "exposure"), [("", 1.0), ("offline.conf", 0.5)])
def test_unit_exposes_little(drop_in: str, exposure: float, tmp_path: Path) -> None:
    """The default unit needs the network and unix sockets; 1.0 is what they and the clock's device file leave."""
    unit = tmp_path / "responsed.service"
    added = (UNITS / drop_in).read_text().partition("[Service]")[2] if drop_in else ""
    unit.write_text((UNITS / unit.name).read_text().replace("\n[Install]", f"{added}\n[Install]"))
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={round(10 * exposure)}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_unit_denies_system_calls_without_killing_the_service() -> None:
    """systemd's default is SIGSYS, and libraries try denied calls at each start: the service would never start."""
    lines = (UNITS / "responsed.service").read_text().splitlines()
    assert "SystemCallFilter=~@privileged @resources" in lines
    assert "SystemCallErrorNumber=EPERM" in lines


@pytest.mark.slow
@pytest.mark.parametrize(("place", "n_lines"), [("off", 0), ("/dev/null/responses.db", 1)])
def test_server_without_a_store_answers_and_logs_it(place: str, n_lines: int, tiny: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", str(tiny), "--alias", MODEL, "--store", place) as daemon:
        with official_client(daemon.url) as client:
            response = client.responses.create(model=MODEL, input="Hi", max_output_tokens=1, store=True)
        daemon.process.terminate()
        assert daemon.wait() == 0
    assert response.to_dict()["store"] is False
    lines = [line for line in daemon.log.read_text().splitlines() if "responses are not stored: " in line]
    assert len(lines) == n_lines


@pytest.mark.slow
def test_restarted_server_continues_stored_responses(tiny: Path, tmp_path: Path) -> None:
    place = ["--model", str(tiny), "--alias", MODEL, "--store", str(tmp_path / "kept.db")]
    first_id = ""
    for question in ("My name is Ada.", "What is my name?"):
        with serving(tmp_path, *place) as daemon:
            with official_client(daemon.url) as client:
                answer = client.responses.create(
                    model=MODEL, input=question, max_output_tokens=8, previous_response_id=first_id or None
                )
                assert not first_id or client.responses.retrieve(first_id).id == answer.previous_response_id
            daemon.process.terminate()
            assert daemon.wait() == 0
        first_id = answer.id
        (tmp_path / "notify").unlink()


@pytest.mark.slow
def test_server_stores_no_more_than_its_limits(tiny: Path, tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--model", str(tiny), "--store-responses", "2", "--kv-snapshot-megabytes", "0") as daemon,
        official_client(daemon.url) as client,
    ):
        made = [client.responses.create(model="tiny", input="hello", max_output_tokens=1).id for _ in range(3)]
        assert [client.responses.retrieve(each).id for each in made[1:]] == made[1:]
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made[0])


Command: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run the command in this process: exit status, stdout and stderr. A served model would not end, a refusal does."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        return status, *capfd.readouterr()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def refused(done: tuple[int, str, str], message: str, expected: ExitStatus = ExitStatus.USAGE) -> None:
    """One line that says what to do."""
    status, out, err = done
    assert (status, out) == (expected, "")
    assert re.fullmatch(r"responsed: [^\n]+\n", err), err
    assert message in err


def no_gguf(file: Path, smollm2: Path) -> None:
    file.write_text("I am a poem.\n")


def empty(file: Path, smollm2: Path) -> None:
    file.touch()


def cut(file: Path, smollm2: Path) -> None:
    with smollm2.open("rb") as whole:
        file.write_bytes(whole.read(50_000_000))


def cut_within_the_header(file: Path, smollm2: Path) -> None:
    with smollm2.open("rb") as whole:
        file.write_bytes(whole.read(1_000_000))


def of_another_kind(file: Path, smollm2: Path) -> None:
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(128)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["a", "b", "ab", "<|end|>"])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(3)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def nothing(file: Path, smollm2: Path) -> None:
    pass


FILES = [
    (nothing, "there is no file and no model '{file}'"),
    (no_gguf, "{file} cannot be used: it is a text that begins 'I am a poem.', not a GGUF file"),
    (empty, "{file} cannot be used: it is empty"),
    (cut, "{file} cannot be used: it is cut short within its tensor"),
    (cut_within_the_header, "{file} cannot be used: "),
    (of_another_kind, "llama.cpp cannot load bad.gguf: "),
]


@pytest.mark.parametrize(("write", "message"), FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_serve_with_an_invalid_model_file_is_refused(
    write: Any, message: str, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "bad.gguf"
    write(file, smollm2)
    done = command("serve", "--log-level", "error", "--port", "0", "--model", str(file))
    refused(done, message.format(file=file), ExitStatus.MODEL)


FLAGS = [
    (["--model", "no-such-name"], ExitStatus.MODEL, "there is no file and no model 'no-such-name'; `responsed models`"),
    (["--host", "responsed.invalid"], ExitStatus.NETWORK, "cannot listen on responsed.invalid port 0: "),
    (["--host", "a" * 64], ExitStatus.NETWORK, f"cannot listen on {'a' * 64} port 0: this is not a host name"),
    (["--host", "192.0.2.1"], ExitStatus.NETWORK, "cannot listen on 192.0.2.1 port 0: Cannot assign requested address"),
    (["--host", "0.0.0.0"], ExitStatus.EXPOSED, "0.0.0.0 is reachable from other machines, and there are no API keys"),
    (["--host", "::"], ExitStatus.EXPOSED, ":: is reachable from other machines, and there are no API keys: set --api"),
    (["--api-key-file", "/proc/none"], ExitStatus.USAGE, "--api-key-file: /proc/none cannot be read: No such file"),
    (
        ["--context", "8193"],
        ExitStatus.USAGE,
        "the model was trained on contexts of 8192 tokens: choose a --context up",
    ),
]


@pytest.mark.parametrize(("flags", "status", "message"), FLAGS)
def test_serve_with_impossible_flags_is_refused(
    flags: Sequence[str], status: ExitStatus, message: str, smollm2: Path, command: Command
) -> None:
    done = command("serve", "--log-level", "error", "--port", "0", "--model", str(smollm2), *flags)
    refused(done, message, status)


@pytest.mark.parametrize("kind", ["a file", "below a file", "/proc"])
def test_serve_with_a_state_folder_that_cannot_be_written_is_refused(
    kind: str, tiny: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    state = {"a file": file, "below a file": file / "state", "/proc": Path("/proc/1")}[kind]
    done = command("serve", "--port", "0", "--model", str(tiny), "--state-dir", str(state))
    refused(done, f"responsed: --state-dir {state} cannot be written (", ExitStatus.RESOURCES)
    assert file.read_text() == "precious"


@pytest.mark.slow
def test_serve_at_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "serve", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS
        )
    message = f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    refused((done.returncode, done.stdout, done.stderr), message, ExitStatus.NETWORK)


WRONG = [
    ([], "responsed: the following arguments are required: COMMAND"),
    (["nope"], "responsed: argument COMMAND: invalid choice: 'nope'"),
    (["serve", "--nope"], "responsed: unrecognized arguments: --nope"),
    (["serve", "--port", "x"], "responsed: argument --port: 'x' is not a whole number from 0 to 65535"),
    (["serve", "--port", "65536"], "argument --port: '65536' is not a whole number from 0 to 65535"),
    (["serve", "--slots", "0"], "argument --slots: '0' is not a whole number from 1 to 64"),
    (["serve", "--store-days", "0"], "argument --store-days: '0' is not a whole number from 1 to 1048576"),
    (["serve", "--threads", "-1"], "argument --threads: '-1' is not a whole number from 0"),
    (["serve", "--context", "1.5"], "argument --context: '1.5' is not a whole number"),
    (
        ["serve", "--shutdown-timeout", "nan"],
        "argument --shutdown-timeout: 'nan' is not a number of seconds",
    ),
    (
        ["serve", "--shutdown-timeout", "soon"],
        "argument --shutdown-timeout: 'soon' is not a number of seconds",
    ),
    (["serve", "--engine", "nope"], "argument --engine: 'nope' is not one of auto, llamacpp, ctransformers"),
    (["serve", "--log-level", "loud"], "argument --log-level: 'loud' is not one of debug, info, warning, error"),
    (["pull", "nope"], "argument name: invalid choice: 'nope'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: " ".join(value))
def test_command_with_an_invalid_flag_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    assert message in line


def test_command_prints_its_version(smollm2: Path) -> None:
    command = Path(sys.executable).with_name("responsed")
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"responsed {version('responsed')}\n", "")


def test_models_lists_installed_and_available_models(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "responsed" / "models"
    nowhere = command("models")
    folder.mkdir(parents=True)
    (folder / "broken.gguf").write_text("I am a poem.")
    (folder / smollm2.name).symlink_to(smollm2)
    assert [nowhere, command("models")] == [
        (
            0,
            (
                "NAME     MB  ARCHITECTURE  ENGINE  FILE\n"
                "smollm2  98  -             -       not installed; run: responsed pull smollm2\n"
            ),
            "",
        ),
        (
            0,
            (
                "NAME     MB  ARCHITECTURE  ENGINE                                  FILE\n"
                f"smollm2  98  llama         llamacpp (it reads current GGUF files)  {folder / smollm2.name}\n"
                f"broken   0   unreadable    -                                       {folder / 'broken.gguf'}\n"
            ),
            "",
        ),
    ]
