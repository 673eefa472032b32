"""The choice of the engine for a file, and the error if none can run it."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine.backends import selection
from engine.backends.ctransformers import model
from engine.backends.llamacpp import library
from engine.gguf.header import Header, MetadataEntry
from engine.model import ModelError
from engine.platform import explain_load_error


def header(architecture: str) -> Header:
    return Header(3, 32, {"general.architecture": MetadataEntry(architecture, type=8, start=0, end=0)}, (), 0)


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t\t: fpu sse4_2\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(library.check_cpu, "__defaults__", (cpuinfo,))
    library._load.cache_clear()


@pytest.mark.parametrize(
    ("architecture", "requested_engine", "engines"),
    [
        ("llama", "auto", ["llamacpp", "ctransformers"]),
        ("qwen3", "auto", ["llamacpp"]),
        ("llama", "llamacpp", ["llamacpp"]),
        ("llama", "ctransformers", ["ctransformers"]),
    ],
)
@pytest.mark.ctransformers
def test_choices_of_an_architecture_are_these_engines(
    architecture: str, requested_engine: str, engines: list[str]
) -> None:
    assert [choice.engine for choice in selection.choices(header(architecture), requested_engine, None)] == engines


@pytest.mark.usefixtures("old_cpu")
@pytest.mark.ctransformers
def test_choices_on_an_old_cpu_fall_back_with_the_reason() -> None:
    (choice,) = selection.choices(header("llama"), "auto", None)
    assert (choice.engine, choice.fallback) == ("ctransformers", True)
    assert choice.reason.startswith("llama.cpp cannot be used: this CPU lacks avx2, bmi2, f16c, fma,")


@pytest.mark.usefixtures("old_cpu")
def test_choices_without_a_usable_engine_raise_both_reasons() -> None:
    with pytest.raises(ModelError, match=r"'qwen3', and ctransformers runs only llama, and llama\.cpp cannot be used"):
        selection.choices(header("qwen3"), "auto", None)


def test_choices_of_ctransformers_with_an_unknown_architecture_raise() -> None:
    with pytest.raises(ModelError, match="'qwen3', and ctransformers runs only llama: use --engine llamacpp"):
        selection.choices(header("qwen3"), "ctransformers", None)


def test_choices_with_an_unusable_named_library_raise(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a usable llama\.cpp library"):
        selection.choices(header("llama"), "auto", tmp_path / "no.so")


SPLIT = Header(3, 32, header("llama").metadata | {"split.count": MetadataEntry(2, type=2, start=0, end=0)}, (), 0)


def test_choices_of_a_model_in_several_files_are_llama_cpp_only() -> None:
    assert [choice.engine for choice in selection.choices(SPLIT, "auto", None)] == ["llamacpp"]
    with pytest.raises(ModelError, match="ctransformers cannot read a model in several files: join them by"):
        selection.choices(SPLIT, "ctransformers", None)


@pytest.mark.parametrize(
    ("machine", "requested_engine"), [("aarch64", "auto"), ("aarch64", "ctransformers"), ("riscv64", "auto")]
)
def test_choices_on_another_machine_are_llama_cpp_only(
    machine: str, requested_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    if requested_engine == "auto":
        assert [choice.engine for choice in selection.choices(header("llama"), requested_engine, None)] == ["llamacpp"]
    else:
        with pytest.raises(
            ModelError, match=f"^ctransformers has no library for {machine}, only for x86_64: use llama"
        ):
            selection.choices(header("llama"), requested_engine, None)


def test_choices_where_nothing_can_run_name_both_reasons(
    monkeypatch: pytest.MonkeyPatch, lacking: tuple[Path, str]
) -> None:
    path, missing = lacking
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ModelError) as caught:
        selection.choices(header("llama"), "auto", None)
    assert str(caught.value) == (
        "ctransformers has no library for aarch64, only for x86_64: use llama.cpp, and llama.cpp cannot be used: "
        f"{path} is not a usable llama.cpp library: it needs {missing}, which is not installed: "
        "install the package that contains it"
    )


def first_needed(elf: bytes | bytearray) -> tuple[int, int]:
    """Return begin and end of the name that the linker looks for first: DT_NEEDED of a 64-bit file (man 5 elf)."""
    (table,), (size, count) = struct.unpack_from("<Q", elf, 32), struct.unpack_from("<HH", elf, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", elf, table + size * index) for index in range(count)]
    dynamic = next(segment for segment in segments if segment[0] == 2)  # PT_DYNAMIC
    entries = list(struct.iter_unpack("<qQ", elf[dynamic[2] : dynamic[2] + dynamic[5]]))
    needed = next(value for tag, value in entries if tag == 1)
    strings = next(value for tag, value in entries if tag == 5)  # DT_STRTAB, an address
    offset, address = next(s[2:4] for s in segments if s[0] == 1 and s[3] <= strings < s[3] + s[5])  # PT_LOAD
    begin = strings - address + offset + needed
    return begin, elf.index(0, begin)


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """Copy llama.cpp's library so that it needs a library that no system has; return both names."""
    path = tmp_path / "libllama.so"
    raw = bytearray(library.find().read_bytes())
    begin, end = first_needed(raw)
    raw[raw.index(b".so", begin, end) - 1] = ord("X")
    path.write_bytes(raw)
    monkeypatch.setattr(library, "find", lambda requested=None: requested or path)
    return path, raw[begin:end].decode()


@pytest.mark.ctransformers
def test_choices_without_a_library_of_llama_cpps_say_which_is_missing(lacking: tuple[Path, str]) -> None:
    reason = f"it needs {lacking[1]}, which is not installed: install the package that contains it"
    (choice,) = selection.choices(header("llama"), "auto", None)
    assert (choice.engine, choice.fallback) == ("ctransformers", True)
    assert choice.reason.endswith(reason)
    with pytest.raises(ModelError, match=re.escape(reason)):
        selection.choices(header("llama"), "llamacpp", None)


REASONS = [
    (
        "libgomp.so.1: cannot open shared object file: No such file or directory",
        "it needs libgomp.so.1, which is not installed: `apt install libgomp1`",
    ),
    (
        "libstdc++.so.6: cannot open shared object file: No such file or directory",
        "it needs libstdc++.so.6, which is not installed: `apt install libstdc++6`",
    ),
    (
        "libcudart.so.12: cannot open shared object file: No such file or directory",
        "it needs libcudart.so.12, which is not installed: install the package that contains it",
    ),
    (
        "/lib/x86_64-linux-gnu/libm.so.6: version `GLIBC_2.29' not found (required by /x/libllama.so)",
        "it needs GLIBC_2.29, and this system is older: upgrade it, or compile llama.cpp here",
    ),
    ("/x.so: wrong ELF class: ELFCLASS32", "it is not for this machine (/x.so: wrong ELF class: ELFCLASS32)"),
    (
        "/x/libllama.so: cannot open shared object file: No such file or directory",
        "/x/libllama.so: cannot open shared object file: No such file or directory",
    ),
    ("undefined symbol: llama_decode", "undefined symbol: llama_decode"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "sentence"), REASONS)
def test_explain_load_error_gives_the_remedy(reason: str, sentence: str) -> None:
    assert explain_load_error(OSError(reason)) == sentence


@pytest.mark.slow
def test_backends_import_without_importing_ctransformers() -> None:
    script = "import sys; from server import __main__; print('ctransformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_choices_without_ctransformers_installed_are_llama_cpp_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    assert [choice.engine for choice in selection.choices(header("llama"), "auto", None)] == ["llamacpp"]
    with pytest.raises(ModelError, match=r"^ctransformers is not installed: `pip install ctransformers==0\.2\.27`"):
        selection.choices(header("llama"), "ctransformers", None)
