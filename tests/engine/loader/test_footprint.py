"""The memory that a model needs, estimated before it is loaded."""

from pathlib import Path

import pytest

from engine.loader import footprint
from tests.engine.loader.test_memory_check import plan, set_machine
from tests.support import model_files


@pytest.mark.parametrize(("compiled_here", "buffers", "total"), [(True, 31, 294), (False, 43, 306)])
def test_line_has_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled_here: bool, buffers: int, total: int
) -> None:
    set_machine(monkeypatch, 1200, compiled_here=compiled_here)
    path = model_files.spm(tmp_path / "model.gguf")
    assert footprint.line(footprint.estimate(plan(path, 4096))) == (
        f"memory: weights 0 MB, KV cache 189 MB (2 slots of 4096, f16), buffers {buffers} MB, process 74 MB: "
        f"{total} MB of 1.2 GB free, once all contexts are full"
    )


@pytest.mark.parametrize(
    ("machine_", "instructions", "compiled_here", "repacked"),
    [
        ("x86_64", (), False, True),
        ("aarch64", ("asimd", "asimddp"), False, False),  # PyPI's build on a Raspberry Pi 5
        ("aarch64", ("asimd", "asimddp"), True, True),
        ("aarch64", ("asimd",), True, False),  # a Raspberry Pi 4
        ("riscv64", ("asimddp",), True, False),
    ],
)
def test_weights_are_copied_where_the_cpu_and_the_build_can(
    machine_: str, instructions: tuple[str, ...], compiled_here: bool, repacked: bool
) -> None:
    assert footprint.repacks(machine_, instructions, compiled_here) == repacked
