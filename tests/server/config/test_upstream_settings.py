"""Settings of upstreams and of a model in this process exclude each other."""

import argparse
import os
from pathlib import Path

import pytest

from server.cli.effective import effective
from server.config import ConfigError, check_upstream_settings, read_secret, settings


def resolved(*arguments: str) -> list[settings.EffectiveValue]:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    return settings.resolve(parser.parse_args(arguments), {"HOME": "/nonexistent"})


TOKEN_FORM = ["--upstream", "http://a", "--upstream-api", "completions"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--upstream", "http://a"],
        ["--model", "x", "--slots", "3"],
        ["--upstream", "http://a", "--model", "smollm2", "--slots", "2"],
        ["--upstream-slots", "64"],
        [*TOKEN_FORM, "--tokenizer", "a.gguf", "--chat-template", "chatml"],
    ],
)
def test_settings_of_one_side_are_accepted(arguments: list[str]) -> None:
    check_upstream_settings(resolved(*arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--upstream", "http://a", "--model", "x"], "^--model is for a model in this process"),
        (
            ["--upstream", "http://a", "--slots", "3"],
            "^--slots is for .*, --upstream for other servers: leave one of them out$",
        ),
        (["--upstream-slots", "3"], "^--upstream-slots needs --upstream URL$"),
        (["--tokenizer", "a.gguf"], "^--tokenizer needs --upstream URL$"),
        (TOKEN_FORM, "^--upstream-api: completions needs --tokenizer FILE"),
        (
            ["--upstream", "http://a", "--tokenizer", "a.gguf"],
            "^--tokenizer has an effect with --upstream-api",
        ),
        (["--upstream", "http://a", "--chat-template", "chatml"], "^--chat-template has an effect with --upstream-api"),
    ],
)
def test_settings_of_both_sides_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_upstream_settings(resolved(*arguments))


def test_refused_setting_of_a_file_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("slots = 3\n")
    with pytest.raises(ConfigError, match=f"^{path}: slots is for a model in this process"):
        check_upstream_settings(resolved("--config", str(path), "--upstream", "http://a"))


@pytest.mark.parametrize("arguments", [[], ["--upstream", "http://a"], ["--upstream", "http://a", "--context", "999"]])
def test_printed_settings_are_a_file_that_is_accepted(arguments: list[str], tmp_path: Path) -> None:
    printed, values = tmp_path / "config.toml", resolved(*arguments)
    printed.write_text(settings.as_toml(effective(values, os.environ)))
    again = resolved("--config", str(printed))
    check_upstream_settings(again)
    assert [each.value for each in again if each.setting.key in ("upstream", "model", "upstream_slots")] == [
        each.value for each in values if each.setting.key in ("upstream", "model", "upstream_slots")
    ]
    if arguments:
        (context,) = [each.value for each in again if each.setting.key == "context"]
        assert context == (999 if "--context" in arguments else 0)


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("sk-1234\n", 0o600, "sk-1234"),
        ("sk-1234", 0o644, "can be read by other users"),
        ("", 0o600, "must contain one key"),
        ("a b", 0o600, "must contain one key"),
        ("ä", 0o600, "characters other than ASCII"),
        ("s\0k\0", 0o600, "contains control characters"),  # UTF-16
    ],
)
def test_secret_file_has_one_line_for_its_owner(tmp_path: Path, text: str, mode: int, expected: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    try:
        found = read_secret(path)
    except ConfigError as error:
        found = str(error)
    assert expected in found
