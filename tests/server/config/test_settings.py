"""Where settings come from: a flag beats a variable, a variable the file, the file the default."""

import argparse
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.loader import loader
from server.__main__ import main
from server.config import file as configfile
from server.config import settings
from server.config.config import DEFAULTS, Config
from server.config.file import ConfigError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    settings.add_flags(parser)
    return parser.parse_args(arguments)


def resolved(arguments: Sequence[str], environ: Mapping[str, str], path: Path) -> list[settings.EffectiveValue]:
    return settings.resolve(parse("--config", str(path), *arguments), environ)


PRECEDENCE: list[tuple[list[str], dict[str, str], str, int, str]] = [
    ([], {}, "", 8080, "default"),
    ([], {}, "port = 1", 1, "{path}"),
    ([], {"RESPONSED_PORT": "2"}, "port = 1", 2, "RESPONSED_PORT"),
    (["--port", "3"], {"RESPONSED_PORT": "2"}, "port = 1", 3, "--port"),
    (["--port", "0"], {"RESPONSED_PORT": "2"}, "port = 1", 0, "--port"),
    ([], {"RESPONSED_PORT": ""}, "port = 1", 1, "{path}"),
    ([], {"RESPONSED_HOST": "::1"}, "slots = 4", 8080, "default"),
]


@pytest.mark.parametrize(("arguments", "environ", "file", "port", "source"), PRECEDENCE)
def test_the_nearest_one_wins(
    arguments: list[str], environ: dict[str, str], file: str, port: int, source: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(file)
    values = {value.setting.key: value for value in resolved(arguments, environ, path)}
    assert (values["port"].value, values["port"].source) == (port, source.format(path=path))


def test_nothing_told_is_the_defaults(tmp_path: Path) -> None:
    assert settings.config(settings.resolve(parse(), {})) == DEFAULTS


def test_every_kind_is_the_same_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    flags = [
        "--alias",
        "a",
        "--alias",
        "*",
        "--grace",
        "2.5",
        "--state",
        "/x",
        "--max-step-ms",
        "7",
        "--engine",
        "auto",
    ]
    environ = {"ALIAS": "a,*", "GRACE": "2.5", "STATE": "/x", "MAX_STEP_MS": "7", "ENGINE": "auto"}
    path.write_text('alias = ["a", "*"]\ngrace = 2.5\nstate = "/x"\nmax_step_ms = 7\nengine = "auto"\n')
    expected = Config("smollm2", aliases=("a", "*"), grace_seconds=2.5, state=Path("/x"), max_step_ms=7, engine="auto")
    variables = {f"RESPONSED_{name}": text for name, text in environ.items()}
    for values in (settings.resolve(parse(*flags), {}), settings.resolve(parse(), variables), resolved([], {}, path)):
        assert settings.config(values) == expected


FILES = [
    ("prot = 1", "{path}: prot: there is no such setting (`responsed serve --print-config` lists them)"),
    ("port = 65536", "{path}: port: '65536' is not a whole number from 0 to 65535"),
    ("port = -1", "{path}: port: '-1' is not a whole number from 0 to 65535"),
    ('port = "8080"', "{path}: port: '8080' is not a whole number from 0 to 65535"),
    ("port = 80.0", "{path}: port: 80.0 is not a whole number from 0 to 65535"),
    ("slots = true", "{path}: slots: True is not a whole number from 1 to 64"),
    ("slots = 0", "{path}: slots: '0' is not a whole number from 1 to 64"),
    ("grace = nan", "{path}: grace: 'nan' is not a number of seconds from 0 to 3600"),
    ("host = 1", "{path}: host: 1 is not a text"),
    ('host = ""', "{path}: host: '' is not a text"),
    ('engine = "vllm"', "{path}: engine: 'vllm' is not one of auto, llamacpp, ctransformers"),
    ('alias = "a"', "{path}: alias: 'a' is not a list of names"),
    ("alias = [1]", "{path}: alias: [1] is not a list of names"),
    ("[server]\nport = 1", "{path}: server: there is no such setting (`responsed serve --print-config` lists them)"),
    ("port 1", "{path} is no TOML: Expected '=' after a key in a key/value pair (at line 1, column 6)"),
]


@pytest.mark.parametrize(("file", "message"), FILES)
def test_a_wrong_line_is_told_with_its_file_and_key(
    file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(file)
    assert main(["serve", "--config", str(path)]) == 2
    assert capsys.readouterr().err == f"responsed: {message.format(path=path)}\n"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file or directory"):
        resolved([], {}, tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml is no TOML: it is not UTF-8"):
        resolved([], {}, tmp_path / "latin.toml")


VARIABLES = [
    ("RESPONSED_PROT", "1", "RESPONSED_PROT: there is no such setting (`responsed serve --print-config` lists them)"),
    ("RESPONSED_PORT", "x", "RESPONSED_PORT: 'x' is not a whole number from 0 to 65535"),
    ("RESPONSED_ALIAS", "a,,b", "RESPONSED_ALIAS: '' is not names"),
]


@pytest.mark.parametrize(("name", "text", "message"), VARIABLES)
def test_a_wrong_variable_is_told(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings.resolve(parse(), {name: text})
    assert str(raised.value) == message


def test_the_file_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfile, "SYSTEM", tmp_path / "etc.toml")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nowhere"}
    own = tmp_path / "responsed" / "config.toml"
    assert configfile.find(None, environ) is None
    configfile.SYSTEM.touch()
    assert configfile.find(None, environ) == configfile.SYSTEM
    configfile.write(own, {})
    assert configfile.find(None, environ) == own
    assert configfile.find(None, environ | {"RESPONSED_CONFIG": "a"}) == Path("a")
    assert configfile.find("b", environ | {"RESPONSED_CONFIG": "a"}) == Path("b")
    assert configfile.own({"XDG_CONFIG_HOME": "relative", "HOME": "/home/me"}) == Path(
        "/home/me/.config/responsed/config.toml"
    )
    assert configfile.own({}) is None


EDITS = [
    ("", {"threads": 2}, "threads = 2\n"),
    ("# mine\nport = 1\n", {"threads": 2}, "# mine\nport = 1\nthreads = 2\n"),
    ("threads = 1  # old\nport = 1", {"threads": 2}, "port = 1\nthreads = 2\n"),
    ('"threads"=1\n', {"threads": 2, "model": "m"}, 'threads = 2\nmodel = "m"\n'),
    ("alias = [\n'a', # b\n]\n", {"alias": ["c"]}, 'alias = [\n    "c",\n]\n'),
    ('host = """\nthreads = 1\n"""\n', {"threads": 2}, 'host = "threads = 1\\n"\nthreads = 2\n'),
]


@pytest.mark.parametrize(("before", "values", "after"), EDITS)
def test_a_value_is_put_into_the_file_and_the_rest_stays(
    before: str, values: dict[str, Any], after: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(before)
    path.chmod(0o600)
    configfile.write(path, values)
    assert path.read_text() == after
    assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o600, [path])


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    configfile.write(tmp_path / "link", {"threads": 2})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "threads = 2\n"


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        configfile.write(tmp_path / "file" / "config.toml", {"threads": 2})


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
configs = st.builds(
    Config,
    model=texts,
    host=texts,
    port=st.integers(0, 65535),
    threads=st.integers(0, 64),
    slots=st.integers(1, 64),
    engine=st.sampled_from(settings.ENGINES),
    libllama=st.none() | texts.map(Path),
    aliases=st.lists(texts, max_size=3).map(tuple),
    grace_seconds=st.floats(0, 3600),
)


@given(config=configs)
def test_what_is_shown_reads_as_what_it_was(config: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    values = [settings.EffectiveValue(each, getattr(config, each.name), "default") for each in settings.SETTINGS]
    shown = settings.as_toml(values)
    assert len(tomllib.loads(shown)) == sum(value.value is not None for value in values)
    path = tmp_path_factory.mktemp("shown") / "config.toml"
    path.write_text(shown, encoding="utf-8", newline="")
    assert settings.config(resolved([], {}, path)) == config


@given(
    lines=st.lists(st.sampled_from(["port = 1", "# threads = 9", "threads = 1", 'alias = ["a"]', 'host = """', '"""']))
)
def test_writing_sets_what_it_should_and_nothing_else(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "\n".join(lines)
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    path = tmp_path_factory.mktemp("written") / "config.toml"
    path.write_text(text)
    configfile.write(path, {"threads": 2})
    assert configfile.read(path) == before | {"threads": 2}


def test_print_config_shows_what_is_in_effect(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Path
) -> None:
    """No zeros where the server chooses: threads, context, the folders."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["serve", "--port", "81", "--model", str(smollm2), "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f'model = "{smollm2}"  # --model', 'host = "127.0.0.1"  # default', "port = 81  # --port"]
    assert "# libllama is not set  # default" in lines
    shown = tomllib.loads("\n".join(lines))
    state = str(tmp_path / "responsed")
    assert {key: shown[key] for key in ("threads", "context", "state", "store")} == {
        "threads": loader.n_threads(),
        "context": 8192,
        "state": state,
        "store": f"{state}/responses.db",
    }


def test_print_config_of_a_model_that_is_not_here_shows_no_context(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["serve", "--print-config", "--store", "OFF"]) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert "context" not in shown
    assert shown["store"] == "off"


REFUSED = [
    (["--threads", "1000"], r"1000 threads on \d+ cores? would wait for each other: choose --threads up to \d+"),
    (
        ["--store", "ON"],
        r"argument --store: 'ON' is not a file or off \(leave it out to store in the state folder\) .*",
    ),
    (["--store", "yes"], r"argument --store: 'yes' is not a file or off .*"),
    (["--store", "false"], r"argument --store: 'false' is not a file or off .*"),
    (["--config", "a.toml", "--config", "b.toml"], r"argument --config: it is given twice .*"),
    (["--prot", "1"], r"unrecognized arguments: --prot 1 \(`responsed serve --help` lists what there is\)"),
    (["--thr", "1"], r"unrecognized arguments: --thr 1 \(`responsed serve --help` lists what there is\)"),
    (["--store-resp", "1"], r"unrecognized arguments: --store-resp 1 .*"),
    (["extra"], r"unrecognized arguments: extra .*"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_serve_with_flags_that_mean_nothing_certain_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["serve", *arguments, "--print-config"])
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 2
    assert re.fullmatch(f"responsed: {message}\n", capsys.readouterr().err)
