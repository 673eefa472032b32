"""A record and its line."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from record import Record

times = st.floats(0, 1e6)
records = st.builds(
    Record,
    target=st.integers(0, 1),
    round=st.integers(0, 9),
    group=st.text(),
    start=times,
    planned=st.none() | times,
    first_byte=st.none() | times,
    deltas=st.lists(times),
    end=st.none() | times,
    error=st.text(),
    server_times=st.none() | st.just({"received": 1.5}),
)


@given(records)
def test_record_of_its_line_is_the_record(record: Record) -> None:
    line = record.to_json()
    assert Record.from_json(line) == record
    assert "\n" not in line


def test_record_leaves_out_the_text() -> None:
    assert Record.from_json(replace(Record(), text="secret").to_json()).text == ""


def test_record_ignores_fields_of_later_versions() -> None:
    assert Record.from_json('{"target": 1, "later": 2}') == Record(target=1)


def test_delay_is_the_time_from_the_planned_to_the_real_start() -> None:
    assert (Record(start=3.0, planned=2.5).delay(), Record(start=3.0).delay()) == (0.5, 0.0)
