"""The memory that a model needs, estimated before it is loaded."""

from pathlib import Path

import pytest

from engine.loader import footprint
from tests.engine.loader.test_memory_check import MB, plan
from tests.support import model_files


def test_line_has_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "free_memory", lambda: 1140 * MB)
    monkeypatch.setattr(footprint, "resident", lambda: 60 * MB)
    path = model_files.spm(tmp_path / "model.gguf")
    assert footprint.line(footprint.estimate(plan(path, 4096))) == (
        "memory: weights 0 MB, KV cache 189 MB (2 slots of 4096, f16), buffers 23 MB, process 74 MB: "
        "286 MB of 1.2 GB free, once all contexts are full"
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
