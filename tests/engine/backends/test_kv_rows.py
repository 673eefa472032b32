"""The bytes of saved states: read, cut, joined."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.llamacpp import kv_rows
from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.model import LlamaCpp
from engine.model import BackendOptions, BatchEntry, ModelError, SavedState
from tests.support.tiny_models import write

N, K_ROW, V_ROW, F16 = 6, 4, 8, 1


def blob(
    *, start: int = 0, n: int = N, streams: int = 3, stream: int = 0, mrope: bool = False, fields: int = 4,
    transposed: bool = False, v_layers: int = 2,
) -> bytes:  # fmt: skip
    """Return rows as the library writes them; each byte of K, V is its token's position."""
    cells = b"".join(
        struct.pack("<iI", at, 1) + bytes(8) * mrope + struct.pack("<i", 2) for at in range(start, start + n)
    )
    numbers = struct.pack(f"<{fields}I", transposed, 2, *[0] * (fields - 2))
    k = struct.pack("<iQ", F16, K_ROW) + b"".join(bytes([at]) * K_ROW for at in range(start, start + n))
    if transposed:
        v = struct.pack("<iII", F16, 2, V_ROW // 2)
        v += b"".join(bytes([at]) * 2 for at in range(start, start + n)) * (V_ROW // 2)
    else:
        v = struct.pack("<iQ", F16, V_ROW) + b"".join(bytes([at]) * V_ROW for at in range(start, start + n))
    data = struct.pack("<I", n) + cells + numbers + k * 2 + v * v_layers
    return struct.pack("<I", streams) + bytes(4 * stream) + data + bytes(4 * (streams - stream - 1))


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"mrope": True},
    {"fields": 2},
    {"transposed": True},
    {"v_layers": 0},
    {"streams": 1},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@given(cuts=st.sets(st.integers(1, N - 1)))
def test_write_of_cut_rows_restores_the_whole(layout: dict[str, Any], cuts: set[int]) -> None:
    rows = kv_rows.read(blob(**layout))
    parts = [rows.cut(start, end) for start, end in pairwise([0, *sorted(cuts), N])]
    assert kv_rows.write(parts).tobytes() == blob(**layout)
    assert kv_rows.write([kv_rows.read(kv_rows.write([part])) for part in parts]).tobytes() == blob(**layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_write_of_a_cut_is_the_layout_of_fewer_tokens(layout: dict[str, Any]) -> None:
    assert kv_rows.write([kv_rows.read(blob(**layout)).cut(2, 5)]).tobytes() == blob(**layout, start=2, n=3)


@pytest.mark.parametrize("stream", range(3))
def test_write_puts_the_cells_of_any_stream_into_the_first(stream: int) -> None:
    assert kv_rows.write([kv_rows.read(blob(stream=stream))]).tobytes() == blob()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<IIII", 3, 0, 0, 0),
        blob()[:-1],
        blob() + b"\0",
        blob() + bytes(12),
        blob()[:-4] + b"\1\0\0\0",
        blob(n=1)[:20] + b"\1" + blob(n=1)[21:],  # V neither transposed nor not
        blob().replace(struct.pack("<iI", 3, 1), struct.pack("<iI", 4, 1)),  # a position twice
        blob().replace(struct.pack("<iI", 3, 1), struct.pack("<iI", 3, 2)),  # a cell of two sequences
        struct.pack("<I", 2**32 - 1) + blob()[4:],
    ],
)
def test_read_of_another_layout_raises(data: bytes) -> None:
    with pytest.raises(ModelError, match="layout"):
        kv_rows.read(data)


@pytest.mark.parametrize("other", [{"start": 7}, {"start": 5}, {"start": 6, "streams": 2}, {"start": 6, "fields": 2}])
def test_write_of_rows_that_do_not_continue_each_other_raises(other: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="do not continue"):
        kv_rows.write([kv_rows.read(blob()), kv_rows.read(blob(**other))])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [BackendOptions(), BackendOptions(flash_attention=False), BackendOptions(kv_type="q8_0")]
)
def test_restore_of_any_two_parts_continues_the_slot(tmp_path: Path, options: BackendOptions) -> None:
    """Without flash attention, V is saved transposed."""
    library = libllama.load(libllama.find(None))
    path = write(tmp_path / "model.gguf", "qwen3")
    model = LlamaCpp(library, path, n_ctx=64, n_slots=2, threads=1, backend_options=options)
    model.decode([BatchEntry(0, 0, list(range(5, 35)), logits=0)])
    state = model.save(0, 0, 30)
    model.decode([BatchEntry(0, 30, [40], logits=1)])
    expected = model.logits(0).copy()
    for at in range(1, 30):
        model.restore(1, model.split(state, at), 30)
        model.decode([BatchEntry(1, 30, [40], logits=1)])
        assert model.logits(1).tolist() == expected.tolist()
    model.close()


def test_states_of_an_unknown_layout_are_saved_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kv_rows, "CELL_BYTES", (16,))
    path = write(tmp_path / "model.gguf", "qwen3")
    model = LlamaCpp(libllama.load(libllama.find(None)), path, n_ctx=64, n_slots=2, threads=1)
    assert "prefixes of the KV cache cannot be saved" in caplog.text
    assert (model.info.saves_state, model.info.cuts_state, model.info.copies_prefixes) == (True, False, True)
    model.decode([BatchEntry(0, 0, [5, 6], logits=0)])
    state = model.save(0, 0, 2)
    model.decode([BatchEntry(0, 2, [7], logits=1)])
    expected = model.logits(0).tolist()
    assert state.rows == b""
    model.restore(1, [SavedState(b"", b""), state], 2)
    model.decode([BatchEntry(1, 2, [7], logits=1)])
    assert model.logits(1).tolist() == expected
    model.copy_prefix(0, 1, 2)
    model.decode([BatchEntry(1, 2, [7], logits=1)])
    assert model.logits(1).tolist() == expected
    model.close()
