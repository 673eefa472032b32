"""`engine.loader.loader`: files that load unchanged, files that are rewritten once, and files that are refused."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path
from threading import current_thread
from typing import Any, NoReturn

import pytest

from engine import backends
from engine.backends.ctransformers import converter, model
from engine.backends.llamacpp import library as libllama
from engine.chat_template import TemplateError
from engine.chat_template.message import Message
from engine.gguf.header import GGUFError
from engine.loader import Loaded, Options, load, loader, machine, thread_counts
from engine.loader.options import DEFAULT_MAX_CONTEXT
from engine.loader.probe import probe
from engine.loader.probe_cache import ProbeCache
from engine.model import BatchEntry, EngineFault, ModelError, ThreadCounts, TooLittleDisk, TooLittleMemory
from tests.support import model_files

pytestmark = [pytest.mark.ctransformers, pytest.mark.slow]

PROBES = "ctransformers probes model.gguf for the first time, in its own process"
REWRITE = (
    "rewriting model.gguf for ctransformers, once: "
    "its tokens have no scores; its tokens are in GPT-2's letters for bytes"
)
OPTIONS = Options(n_slots=2, engine="ctransformers")


def ready(n_slots: int = 2, n_ctx: int = 128, threads: int = 0) -> str:
    count = threads or thread_counts().decode
    slots = "1 slot" if n_slots == 1 else f"{n_slots} slots"
    size = f"{slots} of {n_ctx} tokens; threads: {count} for one token, {count} for several"
    return f"ctransformers runs model.gguf (it was requested): {size}"


class Start:
    """Loads a model and returns the messages logged meanwhile."""

    def __init__(self, caplog: pytest.LogCaptureFixture, cache: Path) -> None:
        caplog.set_level(logging.INFO, "responsed.engine")
        self._caplog = caplog
        self.cache = cache

    def __call__(self, path: Path, options: Options = OPTIONS) -> list[str]:
        self._caplog.clear()
        loaded = load(path, options, self.cache)
        works(loaded)
        loaded.model.close()
        return self._caplog.messages


def works(loaded: Loaded) -> None:
    prompt = loaded.template.prompt([Message("user", "hello world")])
    loaded.model.decode([BatchEntry(0, 0, prompt, logits=True)])
    assert loaded.model.logits(0).shape == (loaded.vocabulary.size,)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.fixture
def start(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Start:
    return Start(caplog, tmp_path / "cache")


def test_load_of_a_sentencepiece_model_probes_once_and_rewrites_nothing(path: Path, start: Start) -> None:
    model_files.spm(path)
    assert start(path) == [PROBES, ready()]
    assert start(path) == [ready()]
    assert [each.name for each in start.cache.iterdir()] == ["ledger.json"]


def test_load_of_a_bpe_model_rewrites_it_once(path: Path, start: Start) -> None:
    model_files.bpe(path)
    before = path.read_bytes()
    assert start(path) == [REWRITE, PROBES, ready()]
    (copy,) = (start.cache / "backport").glob("*.gguf")
    made = copy.stat()
    assert start(path) == [ready()]
    assert copy.stat() == made
    assert sorted(each.name for each in copy.parent.iterdir()) == [".lock", copy.name]
    assert path.read_bytes() == before


def test_load_with_a_truncated_copy_rewrites_it(path: Path, start: Start) -> None:
    model_files.bpe(path)
    start(path)
    (copy,) = (start.cache / "backport").glob("*.gguf")
    whole = copy.read_bytes()
    for size in (0, 10, 5000):
        os.truncate(copy, size)
        assert start(path) == [REWRITE, ready()]
        assert copy.read_bytes() == whole


def test_load_with_leftover_drafts_deletes_them(path: Path, start: Start) -> None:
    model_files.bpe(path)
    name = f"{ProbeCache(start.cache / 'ledger.json').sha256(path)}.draft"
    (start.cache / "backport").mkdir()
    for draft in (name, "of-another-model.draft"):
        (start.cache / "backport" / draft).write_bytes(b"half a co")
    assert start(path) == [REWRITE, PROBES, ready()]
    assert list((start.cache / "backport").glob("*.draft")) == []


def test_load_of_a_file_that_is_replaced_meanwhile_raises(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vocabulary would be that of another file than its weights, or the wrong file would count as probed."""
    sentence = "^model.gguf was replaced while it was loaded; start again$"

    def replace(*_: object) -> None:
        model_files.spm(path.with_name("other"), context=64).rename(path)

    model_files.spm(path)
    with pytest.raises(ModelError, match=sentence):
        load(path, OPTIONS, start.cache, replace)
    assert start(path) == [PROBES, ready(n_ctx=64)]
    model_files.spm(path)
    monkeypatch.setattr(loader, "probe", replace)
    with pytest.raises(ModelError, match=sentence):
        start(path)
    monkeypatch.undo()
    assert start(path) == [PROBES, ready(n_ctx=64)]


def test_load_of_a_replaced_file_probes_it_again(path: Path, start: Start) -> None:
    model_files.spm(path)
    start(path)
    model_files.spm(path.with_name("other"), template=model_files.CHATML + "!").replace(path)
    assert start(path) == [PROBES, ready()]
    os.utime(path, ns=(1, 1))
    assert start(path) == [PROBES, ready()]
    assert start(path) == [ready()]


def test_load_of_a_refused_file_probes_it_again(path: Path, start: Start) -> None:
    model_files.spm(path, heads=3)
    for _ in range(2):
        with pytest.raises(ModelError, match="the engine crashes on its weights"):
            start(path)


def test_load_with_a_damaged_probe_cache_probes_again(path: Path, start: Start) -> None:
    model_files.spm(path)
    start(path)
    ledger = start.cache / "ledger.json"
    for damage in (b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe"):
        ledger.write_bytes(damage)
        assert not ProbeCache(ledger).has_passed(path, "a"), damage
        ProbeCache(ledger).record(path, "a")
        assert ProbeCache(ledger).has_passed(path, "a"), damage
    ledger.write_bytes(b"{")
    assert start(path) == [PROBES, ready()]
    assert start(path) == [ready()]


def test_load_without_a_writable_cache_fails_only_for_rewritten_models(path: Path, start: Start) -> None:
    start.cache.write_text("a file where the folder should be")
    model_files.spm(path)
    assert start(path) == [PROBES, ready()]
    assert start(path) == [PROBES, ready()]
    model_files.bpe(path)
    with pytest.raises(ModelError) as caught:
        start(path)
    folder, remedy = start.cache / "backport", "make it writable, or set XDG_CACHE_HOME to another folder"
    assert str(caught.value) == f"a copy of model.gguf cannot be written to {folder} (Not a directory): {remedy}"


def test_load_without_room_for_the_copy_raises_and_leaves_nothing(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model_files.bpe(path)
    monkeypatch.setattr(converter, "write", fill)
    with pytest.raises(TooLittleDisk, match=r"\(No space left on device\): free some space, or set XDG_CACHE_HOME"):
        start(path)
    assert [each.name for each in (start.cache / "backport").iterdir()] == [".lock"]


def test_load_with_options_applies_them(path: Path, start: Start) -> None:
    model_files.spm(path)
    for options, expected in (
        (Options(n_slots=1, engine="ctransformers"), ready(1, 128)),
        (Options(n_slots=3, n_ctx=32, engine="ctransformers"), ready(3, 32)),
        (Options(n_slots=1, n_ctx=128, engine="ctransformers"), ready(1, 128)),
        (Options(n_slots=1, threads=1, engine="ctransformers"), ready(1, 128, 1)),
    ):
        assert start(path, options)[-1] == expected


def test_load_with_a_context_beyond_the_training_raises(path: Path, start: Start) -> None:
    model_files.spm(path)
    with pytest.raises(ModelError, match=r"^the model was trained on contexts of 128 tokens: choose a --context up to"):
        start(path, Options(n_slots=1, n_ctx=129))


def test_load_by_default_limits_the_context(smollm2: Path, start: Start) -> None:
    """SmolLM2 was trained on 8192, the default limit; larger models are limited alike."""
    assert DEFAULT_MAX_CONTEXT == 8192
    with pytest.raises(ModelError, match="trained on contexts of 8192 tokens"):
        start(smollm2, Options(n_slots=1, n_ctx=8193))


DAMAGED_BYTE = {"tokens": [*model_files.SPM_TOKENS[:-1], "y"], "types": [*model_files.SPM_TYPES[:-1], 6]}


@pytest.mark.parametrize(
    ("kind", "changes", "error", "sentence"),
    [
        (model_files.spm, {"template": "{% if %}"}, TemplateError, "^the model's chat template cannot be read: "),
        (model_files.spm, {"template": "x" * 65537}, TemplateError, "has 65537 characters; at most 65536 are read$"),
        (
            model_files.spm,
            {"template": b"\xff{{"},
            GGUFError,
            "tokenizer.chat_template is not UTF-8 text, so download",
        ),
        (model_files.spm, {"kind": "t5"}, GGUFError, "model.gguf cannot be used: .* is of kind 't5'"),
        (model_files.spm, DAMAGED_BYTE, GGUFError, "its byte token 'y' does not name a byte, so download it again$"),
        (model_files.bpe, {"merges": [""]}, GGUFError, "its merge '' joins unknown tokens, so download it again$"),
        (model_files.bpe, {"merges": ["z", "z q"]}, GGUFError, "its merge 'z' joins unknown tokens"),
        (model_files.bpe, {"merges": ["z q"]}, GGUFError, "its merge 'z q' joins unknown tokens"),
        (
            model_files.bpe,
            {"tokens": [*model_files.BPE_TOKENS[:-1], b"\xff"]},
            GGUFError,
            "tokens are not all UTF-8 text",
        ),
        (
            model_files.bpe,
            {"architecture": "gpt2"},
            ModelError,
            "architecture 'gpt2', and ctransformers runs only llama:",
        ),
    ],
)
def test_load_of_an_unusable_file_raises_one_sentence(
    path: Path, start: Start, kind: Any, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    kind(path, **changes)
    with pytest.raises(error, match=sentence):
        start(path)


SCRIPT = """
import logging, sys
from pathlib import Path
from engine.loader import Options, load
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
load(Path(sys.argv[1]), Options(n_slots=1, engine="ctransformers"), Path(sys.argv[2])).model.close()
"""


def test_load_works_meanwhile_in_another_thread(path: Path, tmp_path: Path) -> None:
    threads = []
    model_files.spm(path)
    load(path, OPTIONS, tmp_path, lambda: threads.append(current_thread())).model.close()
    assert [thread is current_thread() for thread in threads] == [False]


def test_load_with_a_failing_work_meanwhile_raises_its_error(path: Path, tmp_path: Path) -> None:
    model_files.spm(path)
    with pytest.raises(ZeroDivisionError):
        load(path, OPTIONS, tmp_path, lambda: 1 / 0)


def test_load_by_two_processes_makes_one_copy(path: Path, tmp_path: Path) -> None:
    model_files.bpe(path)
    command = [sys.executable, "-c", SCRIPT, str(path), str(tmp_path / "cache")]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert [line for lines in outputs for line in lines if line.startswith("rewriting")] == [REWRITE]
    assert [lines[-1] for lines in outputs] == [ready(1)] * 2


def test_probe_cache_hashes_a_file_once(tmp_path: Path) -> None:
    file, path = tmp_path / "new" / "ledger.json", tmp_path / "file"
    path.write_bytes(b"abc")
    probe_cache = ProbeCache(file)
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert probe_cache.sha256(path) == ProbeCache(file).sha256(path) == sha256
    assert not ProbeCache(file).has_passed(path, "a")
    probe_cache.record(path, "a")
    assert ProbeCache(file).has_passed(path, "a")
    assert not ProbeCache(file).has_passed(path, "b")
    assert [each.name for each in file.parent.iterdir()] == ["ledger.json"]


def test_load_with_an_unusable_copy_removes_it(path: Path, start: Start) -> None:
    model_files.bpe(path, weight=float("nan"))
    with pytest.raises(ModelError, match="the model's weights are damaged"):
        start(path)
    assert [each.name for each in (start.cache / "backport").iterdir()] == [".lock"]


def test_load_with_a_refused_copy_removes_it_and_names_the_model(path: Path, start: Start) -> None:
    model_files.bpe(path, without="blk.0.ffn_up.weight")
    with pytest.raises(ModelError) as caught:
        start(path)
    assert str(caught.value) == "ctransformers cannot load model.gguf: Failed to create LLM 'gguf' from 'model.gguf'."
    assert [each.name for each in (start.cache / "backport").iterdir()] == [".lock"]


@pytest.mark.parametrize("when", ["probe", "open", "replaced"])
def test_load_that_fails_for_another_reason_than_its_weights_leaves_the_copy(
    when: str, path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TooLittleMemory("too little memory")

    def replace() -> None:
        model_files.spm(path.with_name("other")).rename(path)

    model_files.bpe(path)
    start(path)
    (copy,) = (start.cache / "backport").glob("*.gguf")
    made = copy.stat()
    if when == "probe":
        os.utime(path, ns=(1, 1))
        monkeypatch.setattr(loader, "probe", fail)
    if when == "open":
        monkeypatch.setattr(backends, "open_model", fail)
    with pytest.raises(ModelError, match=r"too little memory|was replaced while it was loaded"):
        load(path, OPTIONS, start.cache, replace if when == "replaced" else loader.nothing)
    assert copy.stat() == made


@pytest.fixture
def no_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make llama.cpp unusable; return the reason."""
    library = tmp_path / "libllama.so"
    monkeypatch.setattr(libllama, "find", lambda requested=None: library)
    reason = f"{library}: cannot open shared object file: No such file or directory"
    return f"llama.cpp cannot be used: {library} is not a usable llama.cpp library: {reason}"


AUTO = Options(n_slots=1)


def test_load_without_llama_cpp_warns_before_trying_ctransformers(
    path: Path, start: Start, no_llama_cpp: str, caplog: pytest.LogCaptureFixture
) -> None:
    model_files.spm(path)
    (warning, look, _) = start(path, AUTO)
    assert (warning, look) == (f"ctransformers runs the model: {no_llama_cpp}", PROBES)
    assert caplog.records[0].levelname == "WARNING"
    assert load(path, AUTO, start.cache).fallback == no_llama_cpp


def test_load_with_two_failing_engines_ends_with_the_reason_of_llama_cpp(
    path: Path, start: Start, no_llama_cpp: str
) -> None:
    model_files.bpe(path, weight=float("nan"))
    with pytest.raises(ModelError) as caught:
        start(path, AUTO)
    assert str(caught.value).startswith("the model's weights are damaged")
    assert str(caught.value).endswith(f"; ctransformers was tried because {no_llama_cpp}")


def test_load_without_any_loadable_library_writes_no_copy(
    path: Path, start: Start, no_llama_cpp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "libctransformers.so"
    broken.write_text("no library")
    monkeypatch.setattr(model, "library", lambda: broken)
    model_files.bpe(path)
    with pytest.raises(ModelError) as caught:
        start(path, AUTO)
    assert str(caught.value) == (
        f"the library of ctransformers cannot be loaded: {broken}: file too short; "
        f"ctransformers was tried because {no_llama_cpp}"
    )
    assert not start.cache.exists()


MISSING = {"without": "blk.0.ffn_up.weight"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (MISSING, r"^llama\.cpp cannot load model\.gguf: .*blk\.0\.ffn_up\.weight"),
        ({"weight": float("nan")}, r"^the model's weights are damaged: "),
    ],
)
def test_load_of_a_file_at_fault_does_not_try_another_engine(
    path: Path, start: Start, changes: dict[str, Any], sentence: str
) -> None:
    model_files.bpe(path, **changes)
    with pytest.raises(ModelError, match=sentence):
        start(path, AUTO)
    assert not (start.cache / "backport").exists()


@pytest.fixture
def llama_cpp_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make llama.cpp crash, as on a CPU without an instruction that the library uses."""

    def look(path: Path, weights: Path, engine: str, *rest: Any) -> None:
        if engine == "llamacpp":
            raise EngineFault("the engine crashes")
        probe(path, weights, engine, *rest)

    monkeypatch.setattr(loader, "probe", look)


@pytest.mark.usefixtures("llama_cpp_crashes")
def test_load_with_a_crashing_llama_cpp_runs_ctransformers(path: Path, start: Start) -> None:
    model_files.spm(path)
    assert start(path, AUTO)[0] == "the engine crashes; trying ctransformers"
    assert load(path, AUTO, start.cache).fallback == "llama.cpp crashed"


@pytest.mark.usefixtures("llama_cpp_crashes")
def test_load_with_two_failing_engines_names_both(path: Path, start: Start) -> None:
    model_files.spm(path, weight=float("nan"))
    with pytest.raises(
        ModelError, match=r"^the engine crashes; nor does ctransformers run it: the model's weights are"
    ):
        start(path, AUTO)
    with pytest.raises(ModelError, match=r"^the engine crashes$"):
        start(path, Options(n_slots=1, engine="llamacpp"))


def test_load_on_another_cpu_probes_again(path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    model_files.spm(path)
    assert start(path) == [PROBES, ready()]
    monkeypatch.setattr(machine, "cpu_features", lambda: "x86_64-other")
    assert start(path) == [PROBES, ready()]


@pytest.mark.parametrize(
    ("cores", "fast", "requested", "counts"),
    [
        (1, 1, (0, 0), ThreadCounts(1, 1, False, False)),
        (2, 2, (0, 0), ThreadCounts(1, 2, False, False)),
        (4, 4, (0, 0), ThreadCounts(3, 4, False, False)),
        (8, 4, (0, 0), ThreadCounts(4, 4, False, False)),
        (4, 3, (0, 0), ThreadCounts(3, 3, False, False)),
        (4, 4, (4, 0), ThreadCounts(4, 4, True, False)),
        (4, 2, (4, 4), ThreadCounts(4, 4, True, True)),
        (4, 4, (0, 2), ThreadCounts(3, 2, False, True)),
        (1, 1, (1, 1), ThreadCounts(1, 1, True, True)),
    ],
)
def test_thread_counts_within_the_cores_are_accepted(
    cores: int, fast: int, requested: tuple[int, int], counts: ThreadCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "fast_cores", lambda: fast)
    assert thread_counts(*requested) == counts


@pytest.mark.parametrize(
    ("cores", "requested", "counted"),
    [(1, 2, "1 core"), (2, 3, "2 cores"), (4, 64, "4 cores"), (4, 1 << 20, "4 cores")],
)
def test_load_with_threads_beyond_the_cores_raises(
    cores: int, requested: int, counted: str, path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    with pytest.raises(ModelError) as caught:
        start(model_files.spm(path), Options(n_slots=1, threads=requested))
    assert str(caught.value) == (
        f"{requested} threads on {counted} would wait for each other: choose --threads up to {cores}"
    )


UNKNOWN_FORMAT = "{% if tools %}{{ tools|tojson }} Call them like this: @@name{...}{% endif %}" + model_files.CHATML
UNKNOWN_FORMAT_WARNING = (
    " renders tools, but its call format is unknown: a system message describes the tools instead, and calls are "
    "parsed in the generic format"
)


def test_load_of_a_template_with_unknown_call_format_warns_once(
    path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    model_files.spm(path, template=UNKNOWN_FORMAT)
    assert start(path) == [PROBES, ready(), f"the chat template of model.gguf{UNKNOWN_FORMAT_WARNING}"]
    assert caplog.records[-1].levelname == "WARNING"


def test_load_with_chat_template_of_unknown_call_format_names_the_file(path: Path, start: Start) -> None:
    model_files.spm(path)
    file = path.with_name("other.jinja")
    file.write_text(UNKNOWN_FORMAT)
    options = Options(n_slots=2, engine="ctransformers", chat_template=str(file))
    assert start(path, options)[-1] == f"{file}{UNKNOWN_FORMAT_WARNING}"


def test_load_of_a_template_with_known_call_format_is_silent(path: Path, start: Start) -> None:
    model_files.spm(path, template="{# <tool_call> #}" + UNKNOWN_FORMAT)
    assert start(path) == [PROBES, ready()]
