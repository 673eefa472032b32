"""README's examples run as they stand there, but for the port."""

import http.client
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.helpers import PATIENCE
from tests.support.processes import Daemon, serving

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[3] / "README.md").read_text()
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def daemon(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    flags = ("--model", str(smollm2), "--alias", "smollm2", "--context", "2048")
    with serving(tmp_path_factory.mktemp("daemon"), *flags) as running:
        yield running


def block(beginning: str) -> str:
    """Return the code block that begins with these words."""
    found = re.search(rf"\n\n((?:    {re.escape(beginning)}.*\n)(?:    .*\n|\n(?=    ))*)", README)
    assert found is not None
    return textwrap.dedent(found[1])


def parts(code: str) -> list[str]:
    return code.split("\n\n")


def test_examples_in_python_print_the_answer(daemon: Daemon) -> None:
    """LangChain's part is left out: the tests do not install it."""
    code = block("from openai import").replace("http://127.0.0.1:8080/v1", daemon.url)
    setup, streamed, agent, langchain = parts(code)
    assert langchain.startswith("from langchain_openai import")
    program = f"{setup}\n{streamed}\n{agent}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == (f"{ANSWER}{ANSWER}\n", "")


def test_example_with_curl_streams_the_answer(daemon: Daemon) -> None:
    command = block("curl -N")
    path, body = re.search(r"8080(/\S+)", command), re.search(r"-d '(\{.*\})'", command, re.DOTALL)
    assert path is not None
    assert body is not None
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)
    connection.request("POST", path[1], body[1], {"content-type": "application/json"})
    frames = connection.getresponse().read().decode().split("\n\n")
    connection.close()
    events = [json.loads(frame.partition("data: ")[2]) for frame in frames if frame.startswith("event: ")]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == ANSWER
    assert deltas[0] == "The"
    assert events[-1]["type"] == "response.completed"
    assert (events[-1]["sequence_number"], events[-1]["response"]["usage"]["input_tokens"]) == (14, 27)
