"""Finding llama.cpp's library and checking it."""

import ctypes
import ctypes.util
import importlib.util
import logging
from pathlib import Path

import pytest

from engine.backends.llamacpp import declarations
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.library import check_cpu, find, limit_spinning, load
from engine.model import ModelError


def packaged(package: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((Path(folder, name) for folder in folders if Path(folder, name).is_file()), None)


LIBRARIES = {
    "xllamacpp": packaged("xllamacpp", "xllamacpp.abi3.so"),
    "llama-cpp-python": packaged("llama_cpp", "lib/libllama.so"),
}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> libllama.Library:
    path = LIBRARIES[request.param]
    if path is None:
        pytest.skip(f"{request.param} is not installed (`pip install 'responsed[native]'` compiles llama-cpp-python)")
    return load(path)


def test_library_defaults_fit_the_declarations(library: libllama.Library) -> None:
    assert library.context_params().n_ctx == 512


def test_load_twice_returns_one_library(library: libllama.Library) -> None:
    assert load(library.path) is library


def test_find_prefers_the_compiled_library() -> None:
    assert find() == LIBRARIES["llama-cpp-python"] or find() == LIBRARIES["xllamacpp"]
    assert find(Path("/else/where.so")) == Path("/else/where.so")


def test_library_with_another_layout_raises(library: libllama.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    class ShiftedContext(ctypes.Structure):
        _fields_ = [("before", ctypes.c_uint32), *declarations.ContextParams6._fields_]

    monkeypatch.setattr(libllama, "CONTEXT_PARAMS", {library.version[:4]: ShiftedContext})
    with pytest.raises(ModelError, match="does not fit: its default n_ctx reads as 2048, not 512"):
        libllama.Library(library.path)


def test_library_of_an_unknown_version_raises(library: libllama.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libllama, "CONTEXT_PARAMS", {"7.1.": declarations.ContextParams6})
    with pytest.raises(ModelError, match=r"is llama\.cpp 0\..*; this version of responsed fits 7\.1\.x"):
        libllama.Library(library.path)


@pytest.mark.parametrize("kind", ["missing", "text", "another library"])
def test_library_of_another_file_raises_one_sentence(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    if kind == "text":
        path.write_text("no library")
    if kind == "another library":
        path = Path(ctypes.util.find_library("c") or "libc.so.6")
    with pytest.raises(ModelError, match=r"is not a usable llama\.cpp library"):
        libllama.Library(path)


def test_check_cpu_without_avx2_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx f16c\nbogomips\t: 1\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ModelError, match=r"this CPU lacks avx2, bmi2, fma, which llama\.cpp's build needs"):
        check_cpu(cpuinfo)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    check_cpu(cpuinfo)


def test_log_joins_the_parts_of_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "responsed.llama")
    say = libllama._Log()
    for level, text in [(3, b"a warn"), (5, b"ing\n"), (2, b"......\n"), (4, b"llama_decode: failed\n"), (4, b"bad\n")]:
        say(level, text, None)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "a warning"),
        ("DEBUG", "llama_decode: failed"),
        ("ERROR", "bad"),
    ]


def test_errors_collects_the_lines_inside_the_block_only() -> None:
    """Each decode that is interrupted writes error lines, for as long as the server runs."""
    with libllama.errors() as first:
        libllama._log(4, b"cause\n", None)
        libllama._log(3, b"a warning\n", None)
    libllama._log(4, b"later\n", None)
    with libllama.errors() as second:
        pass
    libllama._log(4, b"later\n", None)
    assert (first, second) == (["cause"], [])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_limit_spinning_keeps_the_users_configuration(environ: dict[str, str], expected: dict[str, str]) -> None:
    limit_spinning(environ)
    assert environ == expected
