"""Versions of the tables, and the steps from each version to the next. Pure."""

from msgspec import Struct


class Schema(Struct, frozen=True):
    """Tables of the current version, and all steps that lead there from the first released version, which is 1.

    A released step never changes. Each runs in one transaction with its version number, so a crash leaves the file in
    the version before or after it.
    """

    tables: str
    """Statements that create the tables of the current version."""
    steps: tuple[str, ...] = ()
    """Statements from version 1 to 2, from 2 to 3, and so on."""

    @property
    def version(self) -> int:
        return 1 + len(self.steps)

    def steps_after(self, version: int) -> list[tuple[int, str]]:
        """Return (version after the step, step) from `version` to the current one."""
        return list(enumerate(self.steps[version - 1 :], version + 1))
