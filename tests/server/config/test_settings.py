"""Settings: a flag overrides a variable, a variable the file, and the file the default."""

import argparse
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.loader import thread_counts
from server.cli import main
from server.config import file as configfile
from server.config import settings
from server.config.config import ENGINES, Config
from server.config.file import ConfigError
from server.config.groups import GROUPS, SETTINGS


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
def test_settings_take_the_value_of_the_nearest_source(
    arguments: list[str], environ: dict[str, str], file: str, port: int, source: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(file)
    values = {value.setting.key: value for value in resolved(arguments, environ, path)}
    assert (values["port"].value, values["port"].source) == (port, source.format(path=path))


def test_settings_without_sources_are_the_defaults(tmp_path: Path) -> None:
    assert settings.config(settings.resolve(parse(), {})) == Config()


def test_settings_of_every_type_are_equal_from_every_source(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    flags = [
        "--alias",
        "a",
        "--alias",
        "*",
        "--shutdown-timeout",
        "2.5",
        "--state-dir",
        "/x",
        "--max-step-ms",
        "7",
        "--engine",
        "auto",
    ]
    environ = {"ALIAS": "a,*", "SHUTDOWN_TIMEOUT": "2.5", "STATE_DIR": "/x", "MAX_STEP_MS": "7", "ENGINE": "auto"}
    path.write_text('alias = ["a", "*"]\nshutdown_timeout = 2.5\nstate_dir = "/x"\nmax_step_ms = 7\nengine = "auto"\n')
    expected = msgspec.structs.replace(
        Config(),
        aliases=("a", "*"),
        shutdown_timeout_seconds=2.5,
        state_dir=Path("/x"),
        max_step_ms=7,
        engine="auto",
    )
    variables = {f"RESPONSED_{name}": text for name, text in environ.items()}
    for values in (settings.resolve(parse(*flags), {}), settings.resolve(parse(), variables), resolved([], {}, path)):
        assert settings.config(values) == expected


RENAMED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("grace", "shutdown_timeout", "2.5", {"shutdown_timeout_seconds": 2.5}),
    ("linger", "resume_window", "2.5", {"resume_window_seconds": 2.5}),
    ("state", "state_dir", "/x", {"state_dir": Path("/x")}),
    ("warm_megabytes", "kv_snapshot_megabytes", "7", {"kv_snapshot_megabytes": 7}),
]


@pytest.mark.parametrize(("former", "key", "text", "fields"), RENAMED)
def test_settings_by_a_former_name_set_the_renamed_setting(
    former: str, key: str, text: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"{former} = {text!r}\n" if former == "state" else f"{former} = {text}\n")
    by_flag = settings.resolve(parse(f"--{former.replace('_', '-')}", text), {})
    by_variable = settings.resolve(parse(), {f"RESPONSED_{former.upper()}": text})
    by_file = resolved([], {}, path)
    expected = msgspec.structs.replace(Config(), **fields)
    assert [settings.config(values) for values in (by_flag, by_variable, by_file)] == [expected] * 3
    assert [value.setting.key for value in by_flag if value.source != "default"] == [key]


def test_serve_help_describes_every_setting_in_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    sections = capsys.readouterr().out.split("\n\n")
    heads = [section.partition("\n")[0] for section in sections[3:]]
    assert sections[1] == "Serve a model over HTTP."
    assert heads == ["model:", "upstreams:", "network:", "limits:", "storage:", "behavior:", "logging:"]
    flags = [re.findall(r"^  (--[\w-]+)", section, re.MULTILINE) for section in sections[3:]]
    assert flags == [[setting.flag for setting in group] for group in GROUPS.values()]
    assert "Seconds that streams may run on after SIGTERM (default: 10)" in sections[8]
    assert re.findall(r"^  --\S+ ([A-Z]+_[A-Z]+)", "\n".join(sections), re.MULTILINE) == []


FILES = [
    ("prot = 1", "{path}: prot: no such setting; `responsed serve --print-config` lists all settings"),
    ("port = 65536", "{path}: port: '65536' is not a whole number from 0 to 65535"),
    ("port = -1", "{path}: port: '-1' is not a whole number from 0 to 65535"),
    ('port = "8080"', "{path}: port: '8080' is not a whole number from 0 to 65535"),
    ("port = 80.0", "{path}: port: 80.0 is not a whole number from 0 to 65535"),
    ("slots = true", "{path}: slots: True is not a whole number from 1 to 64"),
    ("slots = 0", "{path}: slots: '0' is not a whole number from 1 to 64"),
    ("shutdown_timeout = nan", "{path}: shutdown_timeout: 'nan' is not a number of seconds from 0 to 3600"),
    ("host = 1", "{path}: host: 1 is not a list; each item must be a non-empty text"),
    ('host = ""', "{path}: host: '' is not a non-empty text"),
    ('engine = "vllm"', "{path}: engine: 'vllm' is not one of auto, llamacpp, ctransformers"),
    ('alias = "a"', "{path}: alias: 'a' is not a list; each item must be a non-empty text"),
    (
        'volatile = ["("]',
        "{path}: volatile: '(' is not a regular expression: missing ), unterminated subpattern at position 0",
    ),
    ("alias = [1]", "{path}: alias: [1] is not a list; each item must be a non-empty text"),
    ("[server]\nport = 1", "{path}: server: no such setting; `responsed serve --print-config` lists all settings"),
    ("port 1", "{path} is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 6)"),
]


@pytest.mark.parametrize(("file", "message"), FILES)
def test_config_file_with_an_invalid_line_is_refused_by_file_and_key(
    file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(file)
    assert main(["serve", "--config", str(path)]) == 2
    assert capsys.readouterr().err == f"responsed: {message.format(path=path)}\n"


def test_config_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the configuration file .*none\.toml cannot be read: No such file"):
        resolved([], {}, tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml is not TOML: it is not encoded in UTF-8"):
        resolved([], {}, tmp_path / "latin.toml")


VARIABLES = [
    ("RESPONSED_PROT", "1", "RESPONSED_PROT: no such setting; `responsed serve --print-config` lists all settings"),
    ("RESPONSED_PORT", "x", "RESPONSED_PORT: 'x' is not a whole number from 0 to 65535"),
    ("RESPONSED_ALIAS", "a,,b", "RESPONSED_ALIAS: '' is not a non-empty text"),
]


@pytest.mark.parametrize(("name", "text", "message"), VARIABLES)
def test_variable_with_an_invalid_value_is_an_error(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings.resolve(parse(), {name: text})
    assert str(raised.value) == message


def test_config_file_is_found_by_flag_variable_user_and_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert configfile.user_file({"XDG_CONFIG_HOME": "relative", "HOME": "/home/me"}) == Path(
        "/home/me/.config/responsed/config.toml"
    )
    assert configfile.user_file({}) is None


EDITS = [
    ("", {"threads": 2}, "threads = 2\n"),
    ("# mine\nport = 1\n", {"threads": 2}, "# mine\nport = 1\nthreads = 2\n"),
    ("threads = 1  # old\nport = 1", {"threads": 2}, "port = 1\nthreads = 2\n"),
    ('"threads"=1\n', {"threads": 2, "model": "m"}, 'threads = 2\nmodel = "m"\n'),
    ("alias = [\n'a', # b\n]\n", {"alias": ["c"]}, 'alias = [\n    "c",\n]\n'),
    ('host = """\nthreads = 1\n"""\n', {"threads": 2}, 'host = "threads = 1\\n"\nthreads = 2\n'),
]


@pytest.mark.parametrize(("before", "values", "after"), EDITS)
def test_config_file_write_sets_values_and_preserves_other_lines(
    before: str, values: dict[str, Any], after: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(before)
    path.chmod(0o600)
    configfile.write(path, values)
    assert path.read_text() == after
    assert (path.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o600, [path])


def test_config_file_write_through_a_link_preserves_the_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    configfile.write(tmp_path / "link", {"threads": 2})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "threads = 2\n"


def test_config_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        configfile.write(tmp_path / "file" / "config.toml", {"threads": 2})


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
configs = st.builds(
    Config,
    model=texts,
    hosts=st.lists(texts, min_size=1, max_size=3).map(tuple),
    port=st.integers(0, 65535),
    threads=st.integers(0, 64),
    slots=st.integers(1, 64),
    engine=st.sampled_from(ENGINES),
    libllama=st.none() | texts.map(Path),
    aliases=st.lists(texts, max_size=3).map(tuple),
    shutdown_timeout_seconds=st.floats(0, 3600),
)


@pytest.mark.slow
@given(config=configs)
def test_config_as_toml_parses_back_to_the_same_config(
    config: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = [settings.EffectiveValue(each, getattr(config, each.field), "default") for each in SETTINGS]
    shown = settings.as_toml(values)
    assert len(tomllib.loads(shown)) == sum(value.value is not None for value in values)
    path = tmp_path_factory.mktemp("shown") / "config.toml"
    path.write_text(shown, encoding="utf-8", newline="")
    assert settings.config(resolved([], {}, path)) == config


@given(
    lines=st.lists(st.sampled_from(["port = 1", "# threads = 9", "threads = 1", 'alias = ["a"]', 'host = """', '"""']))
)
def test_config_file_write_of_random_lines_changes_only_its_keys(
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


def test_print_config_shows_the_effective_values(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Path
) -> None:
    """No zeros where the server chooses: threads, context, the folders."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["serve", "--port", "81", "--model", str(smollm2), "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f'model = "{smollm2}"  # --model', "alias = []  # default"]
    assert "port = 81  # --port" in lines
    assert "# libllama is not set  # default" in lines
    shown = tomllib.loads("\n".join(lines))
    state = str(tmp_path / "responsed")
    assert {key: shown[key] for key in ("threads", "threads_batch", "context", "state_dir", "store")} == {
        "threads": thread_counts().decode,
        "threads_batch": thread_counts().batch,
        "context": 8192,
        "state_dir": state,
        "store": f"{state}/responses.db",
    }


def test_print_config_of_a_missing_model_omits_the_context(
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
        "argument --store: 'ON' is not a file, a postgresql:// URL or off; omit the setting to store .* .*",
    ),
    *(
        (
            ["--store", url],
            "argument --store: the URL contains a password, which every .* write it to ~/.pgpass .*",
        )
        for url in ("postgresql://me:secret@db/x", "postgres://db/x?password=secret", "postgresql://:@db/x")
    ),
    (["--store", "mysql://db/x"], r"argument --store: 'mysql://db/x' is not a file, a postgresql:// URL or off; .*"),
    (["--advertise", "db:8080"], r"argument --advertise: 'db:8080' is not an http or https URL .*"),
    *(
        (["--upstream", url], "argument --upstream: the URL contains a user or a key, which every user .*")
        for url in ("http://me:secret@a", "https://secret@a/v1", "http://me:secret@[::1", "http://@a")
    ),
    *(
        (["--upstream", url], "argument --upstream: .* is not an http or https URL in ASCII, without query or .*")
        for url in (
            *("a:8000", "unix:/run/a", "http+unix://a", "http://", "http://[::1", "http://a:x", "http://a:99999"),
            *("http://a:0", "http://a?version=1", "http://a/#b", "http://a/b c", "http://a/v1\n", "http://b\xfc"),
            *("http://a..b", f"http://{'a' * 64}.b", " http://a"),
        )
    ),
    (["--store", "yes"], r"argument --store: 'yes' is not a file, a postgresql:// URL or off; .*"),
    (["--store", "false"], r"argument --store: 'false' is not a file, a postgresql:// URL or off; .*"),
    (["--config", "a.toml", "--config", "b.toml"], r"argument --config: this flag is given twice; give it once .*"),
    (["--prot", "1"], r"unrecognized arguments: --prot 1 \(see `responsed serve --help`\)"),
    (["--thr", "1"], r"unrecognized arguments: --thr 1 \(see `responsed serve --help`\)"),
    (["--store-resp", "1"], r"unrecognized arguments: --store-resp 1 .*"),
    (["extra"], r"unrecognized arguments: extra .*"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_serve_with_ambiguous_or_invalid_flags_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["serve", *arguments, "--print-config"])
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 2
    assert re.fullmatch(f"responsed: {message}\n", capsys.readouterr().err)
