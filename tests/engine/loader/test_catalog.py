"""Folders of models and of state, and files by their names."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from engine.loader.catalog import CatalogError, cache_folder, find, installed, state_folder


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/a"}, "/home/a/.cache/responsed/models"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/x"}, "/x/responsed/models"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "x"}, "/home/a/.cache/responsed/models"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": ""}, "/home/a/.cache/responsed/models"),
        ({"HOME": "/", "XDG_CACHE_HOME": "/x", "CACHE_DIRECTORY": "/var/cache/r:/b"}, "/var/cache/r/models"),
        ({"HOME": "/home/a", "CACHE_DIRECTORY": ""}, "/home/a/.cache/responsed/models"),
    ],
)
def test_cache_folder_follows_systemd_and_xdg(environ: dict[str, str], expected: str) -> None:
    assert cache_folder(environ) == Path(expected)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/state/responsed"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/x"}, "/x/responsed"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "x"}, "/home/a/.local/state/responsed"),
        ({"HOME": "/", "STATE_DIRECTORY": "/var/lib/r:/b"}, "/var/lib/r"),
    ],
)
def test_state_folder_follows_systemd_and_xdg(environ: dict[str, str], expected: str) -> None:
    assert state_folder(environ) == Path(expected)


HOMES: list[dict[str, str]] = [{}, {"HOME": ""}, {"HOME": "relative"}, {"XDG_CACHE_HOME": "x", "XDG_STATE_HOME": "x"}]


@pytest.mark.parametrize("environ", HOMES)
def test_cache_folder_without_home_variable_uses_the_user_database(environ: dict[str, str]) -> None:
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert cache_folder(environ) == Path(home, ".cache/responsed/models")
    assert state_folder(environ) == Path(home, ".local/state/responsed")


@pytest.mark.parametrize("environ", HOMES)
def test_cache_folder_without_any_home_raises_with_the_remedy(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)  # a user of a container, who has no name
    with pytest.raises(CatalogError, match=r"^there is no home folder: set XDG_CACHE_HOME to a folder for models$"):
        cache_folder(environ)
    with pytest.raises(
        CatalogError, match=r"^there is no home folder: name a folder with --state-dir, or set XDG_STATE_HOME$"
    ):
        state_folder(environ)
    assert cache_folder(environ | {"XDG_CACHE_HOME": "/x"}) == Path("/x/responsed/models")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("smollm2", "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("SmolLM2", "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("smollm2-135m-instruct.q4_1", "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("smollm2-135m-instruct.q4_1.GGUF", "models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("Qwen", "models/Qwen.GGUF"),
        ("qwen.gguf", "models/Qwen.GGUF"),
        ("both", "models/both.gguf"),  # a name before a file of that name
        ("both.gguf", "both.gguf"),  # a path before a name
        ("./both.gguf", "both.gguf"),
        ("models/both.gguf", "models/both.gguf"),
        ("twin", "models/twin.gguf"),  # the exact spelling
        ("Twin", "models/Twin.gguf"),
        ("loose", "loose"),
        ("notes", None),  # a text file among the models
        ("folder.gguf", None),
        ("elsewhere/qwen.gguf", None),
        ("nothing", None),
        ("", None),
        ("a\0b", None),
        ("x" * 5000, None),
    ],
)
def test_find_accepts_paths_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    models = [
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "Qwen.GGUF",
        "both.gguf",
        "twin.gguf",
        "Twin.gguf",
        "notes.txt",
    ]
    Path("models/folder.gguf").mkdir(parents=True)
    for name in ["both", "both.gguf", "loose", *(f"models/{name}" for name in models)]:
        Path(name).touch()
    assert find(model, Path("models")) == (None if expected is None else Path(expected))


def test_installed_returns_only_models(tmp_path: Path) -> None:
    assert installed(tmp_path / "missing") == []
    for name in ["b.gguf", "a.GGUF", "notes.txt", ".lock"]:
        (tmp_path / name).touch()
    (tmp_path / ".pull-x").mkdir()
    assert [path.name for path in installed(tmp_path)] == ["a.GGUF", "b.gguf"]
    assert find("smollm2", tmp_path) is None
