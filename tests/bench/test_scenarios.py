"""The bench's scenarios against a scripted server: their requests, their groups, and the figures of a group."""

import json
from pathlib import Path
from typing import Any

import pytest
from scenarios import COMPARED, SCENARIOS
from scenarios.concurrency import LEVELS
from scenarios.conversations import TALKER_TURNS, TALKERS, TURNS
from scenarios.streams import STREAMS

from tests.bench.fake_server import CACHED_TOKENS, FLOWING, HEAD, LAST, SHORT, bench, chunk, data, fake_server

pytestmark = pytest.mark.slow

BODIES = 3

# scenario -> its groups with the number of samples of their first measure, in one round.
ROUNDS = {
    "single": {"all": 4},
    "concurrent": {f"{level} at a time": max(4, level) for level in LEVELS},
    "shared-prefix": {"all": 8},
    "rotation": {"turn 1": TALKERS, "later turns": TALKERS * (TALKER_TURNS - 1)},
    "multi-turn": {f"turn {turn}": 1 for turn in range(1, TURNS + 1)},
    "abandoned-prompt": {"alone": 1, "behind": 1},
    "hang-up": {"quiet": 1, "behind": 1},
    "constrained": {"free": 4, "constrained": 4},
    "forms": {"free": 4, "form": 4},
    "idle-connections": {"alone": 5, "idle": 200, "beside": 5},
}


def first_counts(parts: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {name: next(v["n"] for k, v in part.items() if k.endswith("_ms")) for name, part in parts.items()}


@pytest.mark.parametrize("scenario", ROUNDS)
def test_scenario_counts_its_requests(scenario: str) -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--scenario", scenario, "--url", url, "--requests", "4")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr, result["errors"]) == (0, "", 0)
    assert first_counts(result["targets"][0]["groups"]) == ROUNDS[scenario]


def test_shared_prefix_sends_common_instructions_that_no_round_repeats() -> None:
    with fake_server(SHORT, gap=0.02) as (url, server):
        bench("--scenario", "shared-prefix", "--url", url, "--rounds", "2", "--warmup", "0")
    instructions = [body["instructions"] for body in server.requests]
    assert [instructions.count(text) for text in dict.fromkeys(instructions)] == [8, 8]
    assert len({body["input"] for body in server.requests}) == 16
    assert server.most_at_once == 8


def test_interference_separates_gaps_before_and_beside_the_long_prompt() -> None:
    with fake_server(FLOWING, gap=0.003) as (url, server):
        run = bench("--scenario", "interference", "--url", url)
    parts = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"]
    assert (run.returncode, run.stderr) == (0, "")
    assert server.most_at_once == STREAMS + 1
    assert parts["calm"]["itl_ms"]["n"] > 100
    assert 0 < parts["during"]["itl_ms"]["n"] < 50
    assert parts["long prompt"]["ttft_ms"]["n"] == 1
    assert max(len(body["input"].split()) for body in server.requests) > 1500


def test_constrained_alternates_free_and_constrained_requests() -> None:
    with fake_server(SHORT) as (url, server):
        bench("--scenario", "constrained", "--url", url, "--requests", "2", "--warmup", "0")
    formats = [body.get("text", {"format": {"type": "text"}})["format"]["type"] for body in server.requests]
    inputs = [body["input"] for body in server.requests[3:]]
    assert formats == ["text", "json_schema", "text", *["text", "json_schema"] * 2]
    assert (inputs[0], inputs[2]) == (inputs[1], inputs[3])


def test_constrained_gives_free_requests_instructions_of_the_schemas_length() -> None:
    with fake_server(SHORT) as (url, server):
        bench("--scenario", "constrained", "--url", url, "--requests", "2", "--warmup", "0")
    sizes = [len(json.dumps(body).split()) for body in server.requests]
    lengths = [len(body.get("instructions", "").split()) for body in server.requests]
    words = (sizes[1] - sizes[0]) * 3 // 4
    assert lengths == [0, 0, words, words, 0, words, 0]


def test_multi_turn_sends_the_whole_history() -> None:
    with fake_server(SHORT) as (url, server):
        bench("--scenario", "multi-turn", "--url", url, "--warmup", "0")
    roles = [[message["role"] for message in body["input"]] for body in server.requests]
    assert roles == [["user", *["assistant", "user"] * turn] for turn in range(TURNS)]
    assert server.requests[1]["input"][1]["content"][0]["text"] == "xxx"


def test_abandoned_prompt_hangs_up() -> None:
    with fake_server(FLOWING, gap=0.01) as (url, server):
        bench("--scenario", "abandoned-prompt", "--url", url, "--warmup", "0")
    assert [len(body["input"].split()) > 1000 for body in server.requests] == [False, True, False]
    assert server.cut_off == 1


def test_rotation_takes_turns_and_sends_the_whole_history() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--scenario", "rotation", "--url", url, "--warmup", "0")
    parts = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"]
    bodies = [(body["instructions"], len(body["input"])) for body in server.requests]
    talkers = [instructions for instructions, _ in bodies[:TALKERS]]
    assert len(set(talkers)) == TALKERS
    assert bodies == [(talker, 2 * turn + 1) for turn in range(TALKER_TURNS) for talker in talkers]
    later = parts["later turns"]
    assert later["cached_share"] == round(later["ok"] * CACHED_TOKENS / later["input_tokens"], 3)


def test_rotation_restarts_the_server_before_the_last_turn(tmp_path: Path) -> None:
    mark = tmp_path / "restarts"
    with fake_server(SHORT) as (url, _):
        run = bench("--scenario", "rotation", "--url", url, "--restart", f"echo >> {mark}")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr, mark.read_text()) == (0, "", "\n")
    later = TALKERS * (TALKER_TURNS - 2)
    assert first_counts(result["targets"][0]["groups"]) == {
        "turn 1": TALKERS,
        "later turns": later,
        "restarted": TALKERS,
    }
    assert list(result["targets"][0]["within"]) == ["restarted / turn 1"]


def test_hang_up_drops_two_streams_of_default_fields_after_their_first_delta() -> None:
    with fake_server(FLOWING, gap=0.01) as (url, server):
        run = bench("--scenario", "hang-up", "--url", url, "--warmup", "0")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr, server.cut_off) == (0, "", 2)
    assert [sorted({*body} - {"model", "input"}) for body in server.requests] == [
        ["max_output_tokens", "stream"], ["stream"], ["stream"], ["max_output_tokens", "stream"]
    ]  # fmt: skip
    assert list(result["targets"][0]["within"]) == ["behind / quiet"]


CHUNK = {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]}
PIECE = {"choices": [{"text": "x", "finish_reason": None}]}


@pytest.mark.parametrize(("api", "delta"), [("chat", CHUNK), ("completions", PIECE)])
def test_hang_up_drops_two_streams_of_any_api(api: str, delta: dict[str, Any]) -> None:
    end = {"choices": [{"delta": {}, "text": "", "finish_reason": "stop"}]}
    with fake_server([HEAD, *[chunk(data(delta))] * 100, chunk(data(end)), LAST], gap=0.01) as (url, server):
        run = bench("--scenario", "hang-up", "--api", api, "--url", url, "--warmup", "0")
    assert (run.returncode, run.stderr, server.cut_off) == (0, "", 2)


def test_large_body_separates_gaps_before_and_beside_the_bodies() -> None:
    with fake_server(FLOWING, gap=0.003) as (url, server):
        run = bench("--scenario", "large-body", "--url", url)
    parts = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"]
    assert (run.returncode, run.stderr) == (0, "")
    sizes = [len(json.dumps(body)) for body in server.requests]
    assert [size > 3_000_000 for size in sizes] == [False] * (1 + STREAMS) + [True] * BODIES
    assert max(sizes) < 4_000_000
    assert parts["large bodies"]["first_byte_ms"]["n"] == BODIES
    assert parts["calm"]["itl_ms"]["n"] > 100
    assert parts["during"]["itl_ms"]["n"] > 0


def test_large_body_counts_a_refusal_as_an_answer() -> None:
    with fake_server([b"HTTP/1.1 413 Large\r\nContent-Length: 5\r\n\r\nlarge"]) as (url, _):
        run = bench("--scenario", "large-body", "--url", url, "--warmup", "0")
    bodies = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"]["large bodies"]
    assert (bodies["ok"], bodies["errors"]) == (BODIES, 0)


def test_forms_asks_freely_for_as_many_tokens_as_the_form_had() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--scenario", "forms", "--url", url, "--requests", "2", "--warmup", "0")
    assert list(json.loads(run.stdout.splitlines()[-1])["targets"][0]["within"]) == ["form / free"]
    *measured, cached = server.requests[:3]
    assert [("text" in body, body["max_output_tokens"]) for body in measured] == [(False, 1), (True, 1)]
    played = server.requests[3:]
    assert [("text" in body, body["max_output_tokens"]) for body in played] == [(True, 512), (False, 3)] * 2
    assert [body["input"] for body in played[::2]] == [body["input"] for body in played[1::2]]
    assert {body["instructions"] for body in (cached, *played[1::2])} == {cached["instructions"]}


def test_warm_restart_restarts_the_server_between_two_questions(tmp_path: Path) -> None:
    mark = tmp_path / "restarts"
    with fake_server(SHORT) as (url, server):
        run = bench("--scenario", "warm-restart", "--url", url, "--warmup", "0", "--restart", f"echo >> {mark}")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, run.stderr, mark.read_text()) == (0, "", "\n")
    assert first_counts(result["targets"][0]["groups"]) == {"cold": 1, "restarted": 1}
    assert server.requests[0]["instructions"] == server.requests[1]["instructions"]
    assert server.requests[0]["input"] != server.requests[1]["input"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "this scenario needs --restart COMMAND, or --serve COMMAND"),
        (["--restart", "false"], "'false' failed with exit status 1"),
    ],
)
def test_warm_restart_without_a_restart_fails(extra: list[str], message: str) -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--scenario", "warm-restart", "--url", url, *extra)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"bench: {message}\n")


def test_idle_connections_stay_open_beside_the_small_requests() -> None:
    with fake_server(SHORT) as (url, server):
        run = bench("--scenario", "idle-connections", "--url", url, "--idle", "40", "--warmup", "0")
    [target] = json.loads(run.stdout.splitlines()[-1])["targets"]
    assert (run.returncode, run.stderr) == (0, "")
    # the address, the models, all small requests, the idle ones; three paths of a version and the models again
    assert server.connections == 1 + 1 + 1 + 40 + 4
    assert list(target["within"]) == ["beside / alone"]


def test_idle_connections_need_connections_that_stay_open() -> None:
    with fake_server(SHORT) as (url, _):
        run = bench("--scenario", "idle-connections", "--url", url, "--no-keep-alive")
    message = "idle-connections needs connections that stay open: leave out --no-keep-alive"
    assert (run.returncode, run.stderr) == (2, f"bench: {message}\n")


def test_scenarios_are_all_tested() -> None:
    assert (
        {*ROUNDS, "interference", "large-body", "warm-restart", "cold-start", "restart"}
        == set(SCENARIOS)
        >= set(COMPARED)
    )


@pytest.mark.parametrize(
    ("scenario", "group"), [("single", "all"), ("concurrent", "4 at a time"), ("shared-prefix", "all")]
)
def test_figures_are_those_of_the_script(scenario: str, group: str) -> None:
    """The five writes are 50 ms apart: head, half an event, the other half, two deltas with the end, the last chunk.

    Medians may be later on a busy machine, never earlier.
    """
    with fake_server(SHORT, gap=0.05) as (url, _):
        run = bench("--scenario", scenario, "--url", url, "--requests", "8", "--tokens", "3")
    figures = json.loads(run.stdout.splitlines()[-1])["targets"][0]["groups"][group]
    expected = {"first_byte": 50, "ttft": 150, "itl": 25, "tpot": 25, "e2e": 200, "normalised": 66}
    found = {name: figures[f"{name}_ms"]["p50" if name != "itl" else "mean"] for name in expected}
    assert {name: value for name, value in found.items() if not 0.8 * expected[name] < value < 3 * expected[name]} == {}
    assert figures["output_tokens"] == 3 * figures["ok"]
    assert found["e2e"] - found["ttft"] == pytest.approx(2 * found["tpot"], rel=0.5)
