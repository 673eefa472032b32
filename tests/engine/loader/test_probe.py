"""`engine.loader.probe`: a crash that would end the server ends a child process and becomes one sentence."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.loader import probe as probing
from engine.loader.probe import probe, timeout
from engine.model import ModelError
from tests.support import model_files
from tests.support.processes import ROOT

DOUBLING = (
    "{% set ns = namespace(text='xxxxxxxx') %}{% for i in range(64) %}{% set ns.text = ns.text ~ ns.text %}{% endfor %}"
)
ONLY_WITH_AN_ANSWER = "{% if messages|length > 2 %}" + DOUBLING + "{% endif %}{{ messages[0].content }}"
ENDLESS = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)
BOMBS = [
    DOUBLING,
    ONLY_WITH_AN_ANSWER,
    ENDLESS,
    "{% if messages|length > 2 %}" + ENDLESS + "{% endif %}",
    "{{ 'x' * (messages|length * 10 ** 11) }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l|length }}",
    "{% set ns = namespace(t='x' * 99) %}{% for i in range(64) %}{% set ns.t = ns.t|replace('x', ns.t) %}{% endfor %}",
    "{{ 'a\n'|indent(10000000000) }}",
    "{{ messages|tojson(indent=10000000000) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ range(99999)|list|join('x' * 100000) }}",
    "{{ 'x' * (messages|length * 10 ** 6) }}",
]
"""Templates that ask for too much time or memory, some by a conversation with an answer only."""
REFUSES = "the model's chat template refuses this conversation: "


@pytest.mark.ctransformers
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"template": "{{ raise_exception('I talk to nobody') }}"}, f"{REFUSES}I talk to nobody"),
        ({"template": "{{ strftime_now(messages) }}"}, f"{REFUSES}strftime() argument 1 must be str, not list"),
        ({"heads": 3}, "model.gguf cannot be served: the engine crashes on its weights (signal 6)"),
        (
            {"without": "blk.0.ffn_up.weight"},
            "ctransformers cannot load model.gguf: Failed to create LLM 'gguf' from 'model.gguf'.",
        ),
        (
            {"weight": float("nan")},
            "the model's weights are damaged: its logits are not finite numbers; download the file again",
        ),
    ],
)
@pytest.mark.slow
def test_probe_of_an_unusable_file_raises_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = model_files.spm(tmp_path / "model.gguf", **changes)
    with pytest.raises(ModelError) as caught:
        probe(path, path, "ctransformers", None)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.slow
def test_probe_of_a_template_bomb_refuses_the_file_in_bounded_time_and_memory(tmp_path: Path, bomb: str) -> None:
    """The version of minijinja decides how a bomb ends: by fuel, by a limit of its own, or by the child's CPU time or
    memory.

    Templates are tried before the engine is looked at, so that one engine stands for both.
    """
    path = model_files.spm(tmp_path / "model.gguf", template=bomb)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(ModelError, match=r"chat template (needs too much time or memory|refuses this conversation)"):
        probe(path, path, "llamacpp", None)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 10
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 << 20, "KiB; the child may have 128 MiB more"


TRY_TEMPLATE = """
import sys
from pathlib import Path
from engine.loader import model_file, probe_child
probe_child._try_template(model_file.read(Path(sys.argv[1]))[2])
print("tokenizers" in sys.modules)
"""


@pytest.mark.slow
def test_probe_builds_no_tokenizer_within_the_limits_of_a_template(tmp_path: Path) -> None:
    """For the 262,000 tokens of Gemma 3, that takes 4 s of CPU time and 300 MB."""
    path = model_files.spm(tmp_path / "model.gguf", template=model_files.CHATML)
    output = subprocess.check_output([sys.executable, "-c", TRY_TEMPLATE, path], cwd=ROOT, text=True)
    assert output == "False\n"


def test_probe_whose_process_cannot_be_started_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_files.spm(tmp_path / "model.gguf")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(OSError, match=r"^no process can be started to try model.gguf \(No such .*\): allow this user"):
        probe(path, path, "llamacpp", None)


@pytest.mark.slow
def test_probe_in_a_deleted_folder_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = model_files.spm(tmp_path / "model.gguf"), tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    probe(path, path, "llamacpp", None)


@pytest.mark.parametrize(
    ("stage", "status", "sentence"),
    [
        ("file", -9, "too little memory: the system ended the process that tried model.gguf; choose a smaller model"),
        ("file", 1, "model.gguf cannot be served: it cannot be read (exit code 1)"),
        ("template", 1, "model.gguf cannot be served: its chat template needs too much time or memory (exit code 1)"),
        ("template", -24, "model.gguf cannot be served: its chat template needs too much time or memory (signal 24)"),
        (
            "weights",
            -9,
            "too little memory: the system ended the process that tried model.gguf; choose a smaller model",
        ),
        ("weights", -6, "model.gguf cannot be served: the engine crashes on its weights (signal 6)"),
    ],
)
def test_probe_names_the_stage_in_which_the_child_ends(
    stage: str, status: int, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = subprocess.CompletedProcess([], status, f"{stage}\n", "Traceback\nMemoryError\n")
    assert str(probing._error("model.gguf", done)) == sentence
    reason = f"signal {-status}" if status < 0 else f"exit code {status}"
    assert caplog.messages == [f"the process that tried model.gguf ended with {reason}: MemoryError"]


@pytest.mark.ctransformers
@pytest.mark.parametrize("template", [model_files.CHATML, NO_SYSTEM, None])
@pytest.mark.slow
def test_probe_of_a_template_that_refuses_some_chats_passes(tmp_path: Path, template: str | None) -> None:
    path = model_files.spm(tmp_path / "model.gguf", template=template)
    probe(path, path, "ctransformers", None)


@pytest.mark.ctransformers
def test_probe_beyond_the_timeout_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.loader.probe.TIMEOUT_SECONDS", 0.01)
    path = model_files.spm(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"^model\.gguf was not ready after 0\.01 s; it cannot be served$"):
        probe(path, path, "ctransformers", None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "no-such-thing"}, "llama.cpp cannot load model.gguf: .*unknown model architecture"),
        ({"without": "blk.0.ffn_up.weight"}, r"llama.cpp cannot load model.gguf: .*blk\.0\.ffn_up\.weight"),
        ({"weight": float("nan")}, "the model's weights are damaged"),
    ],
)
@pytest.mark.slow
def test_probe_by_llama_cpp_raises_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = model_files.spm(tmp_path / "model.gguf", **changes)
    with pytest.raises(ModelError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        probe(path, path, "llamacpp", None)


@pytest.mark.parametrize(("n_bytes", "seconds"), [(0, 120), (98_000_000, 129.8), (12_000_000_000, 1320)])
def test_timeout_grows_with_the_file(n_bytes: int, seconds: float) -> None:
    assert timeout(n_bytes) == pytest.approx(seconds)
