"""Version of a build: the release, and the commit unless it is the release's own. The build backend runs this file.

Local parts (`+g...`): PEP 440, "Local version identifiers".
"""

import re
import subprocess
from pathlib import Path

RELEASE = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent


def version(root: Path = ROOT) -> str:
    """Return the version, for example `0.1.0+g1b3b434` or `0.1.0+g1b3b434.changed`; the release alone without Git."""
    if (packed := root / "PKG-INFO").is_file():  # a source distribution
        return str(re.findall(r"^Version: (.+)$", packed.read_text(encoding="utf-8"), re.MULTILINE)[0])
    if not (root / ".git").exists():  # the folder may lie inside another repository
        return RELEASE
    commit = _git(root, "rev-parse", "--short=7", "HEAD")
    if not commit or f"v{RELEASE}" in _git(root, "tag", "--points-at", "HEAD").split():
        return RELEASE
    changed = ".changed" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{RELEASE}+g{commit}{changed}"


def _git(root: Path, *arguments: str) -> str:
    """Return Git's output; empty if Git is missing or fails."""
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
