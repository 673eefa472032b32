"""A hook of the wheel's build: the bench's files become `server/bench`, for `responsed bench`.

A package of its own would be a third name at the top of site-packages. An editable installation finds them in the
checkout; a copy beside it would hide the package `server`. https://hatch.pypa.io/latest/plugins/build-hook/custom/
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BenchFiles(BuildHookInterface):  # type: ignore[misc]  # hatchling is there during a build only
    """Adds the files to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Map each file to its place, unless the installation is editable."""
        folder = Path(self.root) / "bench"
        if version == "standard":
            for path in (*folder.rglob("*.py"), *folder.rglob("*.css")):
                if path.name != Path(__file__).name:
                    build_data["force_include"][str(path)] = f"server/bench/{path.relative_to(folder)}"
