"""A front before two llama.cpp servers: text, formats, state, and a server that dies under load."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.helpers import NAME
from tests.support.processes import ROOT, Daemon, serving

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
START_SECONDS = 120.0
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def check_format(url: str) -> None:
    """Ask a front for a city in a strict format, by openai-python, and check the members of the answer."""
    format_: Any = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
    with openai.OpenAI(base_url=url, api_key="-", max_retries=0) as client:
        city = client.responses.create(model=NAME, input="Name a city.", text=format_, temperature=0)
    assert json.loads(city.output_text).keys() == {"city", "people"}


@contextmanager
def llamacpp(model: Path, log: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run llama.cpp's own server, and yield its URL once it has loaded the model. `more`: flags of bench/peer.py."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--model", str(model), "--port", str(port), "--threads", "1", "--slots", "4", "--context", "8192", *more]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "bench" / "peer.py"), *flags], stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "llama.cpp's server does not start"
            time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


@contextmanager
def front(smollm2: Path, folder: Path) -> Iterator[tuple[Daemon, list[subprocess.Popen[bytes]]]]:
    with ExitStack() as stack:
        pairs = [stack.enter_context(llamacpp(smollm2, folder / f"llama{n}.log")) for n in range(2)]
        flags = [flag for url, _ in pairs for flag in ("--upstream", url)]
        daemon = stack.enter_context(serving(folder, *flags, "--alias", "small"))
        yield daemon, [process for _, process in pairs]


def test_front_serves_two_llamacpp_servers_and_outlives_one(smollm2: Path, tmp_path: Path) -> None:
    with front(smollm2, tmp_path) as (daemon, peers), openai.OpenAI(base_url=daemon.url, api_key="-") as client:
        assert daemon.log.read_text().count("ignores tools") == 2, "SmolLM2's template has no tools"
        ask: dict[str, Any] = {"model": "small", "temperature": 0}

        first = client.responses.create(input="My name is Bob. Say hello.", max_output_tokens=8, **ask)
        second = client.responses.create(input="And now?", previous_response_id=first.id, max_output_tokens=8, **ask)
        assert second.usage is not None
        assert second.usage.input_tokens_details.cached_tokens > 20, "the conversation returns to its upstream"
        assert client.responses.retrieve(second.id).output_text == second.output_text

        format_: Any = {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}
        city = client.responses.create(input="Name a city.", text=format_, max_output_tokens=200, **ask)
        assert city.status == "completed", "its output was verified"

        def stream(number: int) -> tuple[str, str]:
            kinds, id_ = Counter[str](), ""
            fields: dict[str, Any] = {"model": "small", "stream": True, "max_output_tokens": 24}
            with client.responses.create(input=f"Tell me story {number}.", **fields) as events:
                try:
                    for event in events:
                        kinds[event.type] += 1
                        id_ = event.response.id if event.type == "response.created" else id_
                except openai.APIError:  # the client raises at the event `error`
                    return id_, "failed"
            assert kinds["response.completed"] + kinds["response.incomplete"] == 1
            return id_, "incomplete" if kinds["response.incomplete"] else "completed"

        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(stream, number) for number in range(10)]
            while not any(each.done() for each in streams):
                time.sleep(0.05)
            peers[1].kill()
            ended = [each.result() for each in streams]
        statuses = Counter(status for _, status in ended)
        assert statuses["failed"] <= 4, "only streams in progress fail"
        stored = [client.responses.retrieve(id_) for id_, _ in ended]
        assert [each.status for each in stored] == [status for _, status in ended]
        assert {each.error.code for each in stored if each.error is not None} <= {"server_error"}
