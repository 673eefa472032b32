"""The share of time in which tasks wait, read from files that look like Linux's."""

from pathlib import Path

import pytest

from engine.runtime.cpu_pressure import CpuPressure


def text(total: int) -> str:
    return (
        f"some avg10=0.06 avg60=0.81 avg300=9.79 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9000000\n"
    )


@pytest.mark.parametrize(("waited", "share"), [(0, 0.0), (25_000, 0.25), (100_000, 1.0), (900_000, 1.0), (-5, 0.0)])
def test_share_between_two_reads_is_the_time_waited(waited: int, share: float, tmp_path: Path) -> None:
    file = tmp_path / "cpu"
    file.write_text(text(1_000_000))
    pressure = CpuPressure(file)
    assert pressure.share(10.0) == 0.0
    file.write_text(text(1_000_000 + waited))
    assert pressure.share(10.01) == 0.0  # too early
    assert pressure.share(10.1) == pytest.approx(share)


def test_share_without_the_file_is_zero(tmp_path: Path) -> None:
    pressure = CpuPressure(tmp_path / "missing")
    assert [pressure.share(now) for now in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]


def test_share_with_a_switched_off_figure_is_zero(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text("")
    pressure = CpuPressure(tmp_path / "cpu")
    assert [pressure.share(now) for now in (0.0, 1.0)] == [0.0, 0.0]
