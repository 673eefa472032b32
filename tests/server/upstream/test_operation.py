"""Operation before upstreams: metrics, the log, the status and the command `check`."""

import argparse
import logging
import re

import msgspec
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from server.cli.check import check
from server.config import settings
from server.live_view.text import lines
from server.monitoring import Status
from tests.server.upstream.scripted_upstream import ScriptedUpstream, fronted, says, status
from tests.server.upstream.test_probe import answers, capable
from tests.support.helpers import get, post


async def test_metrics_count_answers_errors_and_times_of_each_upstream() -> None:
    async with fronted(status(500), says("Hello"), metrics=True) as front:
        await post(front, model="m", input="Hi")
        text = (await get(front, "/metrics")).body.decode()
    url = front.upstreams[0].url
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "upstream" in sample.name and "bucket" not in sample.name
    }
    label = ("upstream", url)
    seconds = samples.pop(("responsed_upstream_first_delta_seconds_sum", label))
    assert seconds > 0
    assert samples == {
        ("responsed_upstream_healthy", label): 1,
        ("responsed_upstream_requests_running", label): 0,
        ("responsed_upstream_answers_total", label): 1,
        ("responsed_upstream_errors_total", ("kind", "http_500"), label): 1,
        ("responsed_upstream_first_delta_seconds_count", label): 1,
    }


async def test_log_line_names_the_upstream_its_time_and_the_attempts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with fronted(status(500), says("Hello")) as front:
        await post(front, model="m", input="Hi")
    url = re.escape(front.upstreams[0].url)
    (line,) = [record.getMessage() for record in caplog.records if " completed" in record.getMessage()]
    assert re.search(rf"; upstream {url} \d+ ms at attempt 2$", line)
    (failed,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("attempt")]
    assert re.fullmatch(rf"attempt 1: The upstream {url} answered with status 500: no", failed)


async def test_log_names_an_upstream_that_does_not_answer_once(caplog: pytest.LogCaptureFixture) -> None:
    async with fronted(status(502), status(502)) as front:
        await post(front, model="m", input="Hi")
    lines = [message for message in caplog.messages if message.startswith("upstream ")]
    assert lines == [f"upstream {front.upstreams[0].url} does not answer"]


async def test_status_shows_the_upstreams() -> None:
    async with fronted(says("Hello"), others=[[says("Hello")]]) as front:
        await post(front, model="m", input="Hi")
        found = (await get(front, "/status")).json["upstreams"]
    assert [each["url"] for each in found] == [each.url for each in front.upstreams]
    assert sorted(each["answers"] for each in found) == [0, 1]
    assert [each["first_delta"] is None for each in found] == [each["answers"] == 0 for each in found]


async def test_status_in_the_terminal_has_a_table_of_upstreams() -> None:
    async with fronted(says("Hello")) as front:
        shown = lines(msgspec.json.decode((await get(front, "/status")).body, type=Status), 200, 100)
    rows = [line.split()[:5] for line in shown if front.upstreams[0].url in line]
    assert rows == [[front.upstreams[0].url, "yes", "0", "0", "0"]]


async def test_check_tries_the_upstreams(capsys: pytest.CaptureFixture[str]) -> None:
    async with trio.open_nursery() as nursery:
        upstream = ScriptedUpstream([answers(capable, ["seed"])])
        await nursery.start(upstream.serve)
        away = "http://127.0.0.1:1"
        code = await trio.to_thread.run_sync(checked, "--upstream", upstream.url, "--upstream", away)
        nursery.cancel_scope.cancel()
    printed = capsys.readouterr().out
    assert f"ok      model: {upstream.url} answers: m; it refuses seed\n" in printed
    assert f"warning model: The upstream {away} cannot be reached (Connection refused).\n" in printed
    assert code == 0, "the server starts, and waits for the other one"


async def test_check_fails_if_no_upstream_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    async with fronted(says("-")) as front:
        url = front.upstreams[0].url
        code = await trio.to_thread.run_sync(checked, "--upstream", url, "--upstream-model", "other")
    cause = f"The upstream {url} has no model 'other'; it has m."
    remedy = "no upstream can be used: correct --upstream, or the upstreams."
    assert f"failed  model: {remedy} {cause}\n" in capsys.readouterr().out
    assert code == 5


def checked(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    return check(parser.parse_args([*flags, "--port", "0", "--store", "off"]))
