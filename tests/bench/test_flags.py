"""The flags of the bench."""

from pathlib import Path

import pytest
import trio
from flags import parser
from scenarios import SCENARIOS

from tests.bench.fake_server import bench
from tests.support.helpers import served

NO_FLOOR = (
    "argument --floor: floor.txt cannot be read: No such file or directory; "
    "`python bench/floor.py --model FILE > floor.txt` writes it\n"
)


def test_help_of_each_flag_is_a_phrase_and_names_its_value() -> None:
    actions = [action for action in parser()._actions if action.option_strings]
    assert [a.option_strings[-1] for a in actions if not (a.help or "")[:1].isupper()] == []
    assert [a.option_strings[-1] for a in actions if a.nargs != 0 and not (a.metavar or a.choices)] == []
    hidden = [a for a in actions if isinstance(a.default, int | float) and not isinstance(a.default, bool)]
    assert [a.option_strings[-1] for a in hidden if "%(default)s" not in (a.help or "")] == []


def test_help_explains_each_scenario() -> None:
    text = parser().format_help()
    explained = text[text.index("scenarios:") : text.index("Exit status:")]
    assert [line.split()[0] for line in explained.splitlines()[1:] if line[2:3].strip()] == [*SCENARIOS]
    assert max(map(len, explained.splitlines())) <= 100


def test_missing_floor_names_the_command_that_writes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        parser().parse_args(["--floor", "floor.txt"])
    assert capsys.readouterr().err.endswith(NO_FLOOR)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "5/s"], "argument --rate: '5/s' is not a number without a unit\n"),
        (["--duration", "0"], "argument --duration: must be above 0\n"),
        (["--attainment", "90%"], "argument --attainment: '90%' is not a number without a unit\n"),
        (["--requests", "1.5"], "argument --requests: '1.5' is not a whole number\n"),
        (["--warmup", "-1"], "argument --warmup: must not be negative\n"),
        (["--sweep", "rate=a"], "argument --sweep: 'a' is not a number without a unit\n"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'\n"),
    ],
)
def test_value_of_the_wrong_kind_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(arguments)
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "remedy"),
    [([], "give its key with --api-key"), (["--api-key", "another-key"], "--api-key is not its key")],
)
async def test_key_that_a_server_refuses_is_named(flags: list[str], remedy: str) -> None:
    async with served(keys={"ann": "a-key-of-sixteen-characters"}) as running:
        run = await trio.to_thread.run_sync(bench, "--url", running.url, *flags)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"bench: {running.url}: the server refuses /v1/models with 401; {remedy}\n"
