"""Names that `--model` cannot take, and the table of models."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.loader import catalog
from engine.loader.catalog import CatalogError
from server.cli import main, models
from server.cli.console.exit_status import ExitStatus
from tests.support import model_files

NAMES = [
    ("https://example.org/m.gguf", "is a URL, which responsed does not download; download the file and name its path"),
    ("HTTPS://example.org/m", "is a URL, which responsed does not download; download"),
    ("s3://bucket/m.gguf", "is a URL, which responsed does not download; download"),
    ("file:///models/m.gguf", "is a URL; name the file by its path"),
    ("org/Model-1B-GGUF", "responsed does not download from hubs; download its .gguf file and name its path"),
    ("org/Model-1B-GGUF:Q4_K_M", "responsed does not download from hubs; download its .gguf file and name its path"),
    ("hf.co/org/Model-1B-GGUF", "responsed does not download from hubs; download its .gguf file and name its path"),
    ("hf:org/Model", "responsed does not download from hubs; download its .gguf file and name its path"),
    ("full", "'full' is a folder; name a .gguf file in it (one of a.gguf, b.GGUF)"),
    ("./full/", "'./full/' is a folder; name a .gguf file in it (one of a.gguf, b.GGUF)"),
    ("org/folder", "'org/folder' is a folder; name a .gguf file in it (it has none)"),
    ("/dev/null", "'/dev/null' is not a regular file; name a .gguf file"),
    ("org/m.gguf", "there is no file and no model 'org/m.gguf'; `responsed models` lists"),
    ("llama3.2:1b", "there is no file and no model 'llama3.2:1b'; `responsed models` lists"),
    ("", "there is no file and no model ''"),
    ("a\0b", "there is no file and no model 'a\\x00b'"),
]


@pytest.mark.parametrize(("model", "sentence"), NAMES)
def test_find_or_pull_of_an_unknown_name_names_the_remedy(
    model: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("full/a.gguf", "full/b.GGUF", "full/notes.txt", "org/folder/notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    with pytest.raises(CatalogError) as caught:
        models.find_or_pull(model, tmp_path / "models")
    assert sentence in str(caught.value)


def test_models_marks_a_projector_as_not_servable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    folder = catalog.cache_folder({"XDG_CACHE_HOME": str(tmp_path)})
    folder.mkdir(parents=True)
    model_files.spm(folder / "chat.gguf")
    model_files.spm(folder / "mmproj.gguf", architecture="clip")
    assert main(["models"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "llamacpp (it reads current GGUF files)" in rows["chat"]
    assert "none: it is a projector for images or sound (mmproj)" in rows["mmproj"]


def test_pull_without_disk_space_ends_with_the_status_of_missing_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd starts the server again after this status: another program may free the space."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["pull", "smollm2"]) == ExitStatus.RESOURCES
    folder = tmp_path / "responsed/models"
    assert f"smollm2 needs 192 MB free in {folder}, which has 1: free some space" in capsys.readouterr().err
    assert [each.name for each in folder.iterdir()] == [".lock"]
