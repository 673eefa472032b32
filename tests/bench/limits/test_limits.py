"""The limits of a machine, and a server's distance to them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from limits import bytes_per_token, read_rates
from measures import distance_line, distances, read_floor

from engine.backends.llamacpp import library
from engine.gguf import Header, Tensor
from engine.model import EngineFault
from tests.support.tiny_models import write

FLOOR = Path(__file__).parents[3] / "bench" / "floor.py"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["token_embd.weight", "blk.0.ffn_up.weight"], 300),  # the embedding is the output layer, too
        (["token_embd.weight", "blk.0.ffn_up.weight", "output.weight"], 600),
    ],
)
def test_bytes_per_token_leave_out_an_embedding_of_its_own(names: list[str], expected: int) -> None:
    sizes = {"token_embd.weight": 100, "blk.0.ffn_up.weight": 200, "output.weight": 400}
    tensors = tuple(Tensor(name, (1,), 0, 0, sizes[name]) for name in names)
    assert bytes_per_token(Header(3, 32, {}, tensors, 0)) == expected


def test_read_rates_has_one_rate_a_round() -> None:
    rates = read_rates(threads=2, rounds=3, megabytes=4)
    assert len(rates) == 3
    assert min(rates) > 0


def test_distances_divide_the_rate_of_a_stream_by_each_limit(tmp_path: Path) -> None:
    path = tmp_path / "floor.txt"
    found: dict[str, Any] = {"bound_tokens_per_s": 200.0, "engines": {"llamacpp": {"tokens_per_s": 125.0}}}
    path.write_text(f"a table\n{json.dumps(found)}\n")
    groups: dict[str, dict[str, Any]] = {
        "all": {"itl_ms": {"mean": 10.0}},
        "calm": {"itl_ms": {"mean": None}},
        "long": {},
    }
    distance = {"group": "all", "tokens_per_s": 100.0, "of_bandwidth": 0.5, "of_bare_loop": {"llamacpp": 0.8}}
    assert distances(read_floor(path), groups) == [distance]
    assert distance_line(distance) == (
        "[all] a stream has 100 tokens/s: 50% of what the memory bandwidth allows, 80% of the bare loop of llamacpp"
    )


@pytest.mark.parametrize("text", ["", "a table", "{}", '{"bound_tokens_per_s": 1, "engines": {"llamacpp": 3}}', "[]"])
def test_read_floor_of_another_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "floor.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="does not end with the JSON"):
        read_floor(path)


@pytest.mark.slow
def test_floor_has_the_figures_of_each_engine_that_runs_the_file(tmp_path: Path) -> None:
    try:
        library.load()
    except EngineFault as fault:
        pytest.skip(str(fault))
    path = write(tmp_path / "tiny.gguf", "qwen3")
    flags = ["--threads", "1", "--tokens", "4", "--context", "256", "--rounds", "1"]
    run = subprocess.run([sys.executable, str(FLOOR), "--model", str(path), *flags], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert list(result["engines"]) == ["llamacpp"]
    figures = result["engines"]["llamacpp"]
    assert [figures[f"{n}_step_ms"]["n"] for n in (1, 4, 8)] == [4, 4, 4]
    assert [figures[f"{n}_prefill_per_token_ms"]["n"] for n in (1, 4, 8)] == [3, 12, 24]
    assert figures["of_bound"] == pytest.approx(figures["tokens_per_s"] / result["bound_tokens_per_s"])
    assert "ctransformers: the model has the architecture 'qwen3'" in run.stdout
    (tmp_path / "floor.txt").write_text(run.stdout)
    assert read_floor(tmp_path / "floor.txt")["engines"] == {"llamacpp": figures["tokens_per_s"]}
