"""The tables of server/docs/configuration.md, made from the annotations of Config.

    python -m tests.support.settings_page

writes them into the page.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from server.config.groups import GROUPS, SETTINGS
from server.config.live import NEEDS_RESTART
from server.config.setting import Setting

PAGE = Path(__file__).parents[2] / "server" / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"
COLUMNS = ("flag", "variable", "key", "default", "unit or values", "meaning")


def tables() -> str:
    """Return a table for each group of settings, in the order of `--help`, and one of former names."""
    parts = [f"### {title.capitalize()}\n\n{''.join(_table(group))}" for title, group in GROUPS.items()]
    former = (_row((f"`{each.former_flag}`", f"`{each.flag}`")) for each in SETTINGS if each.former)
    head = _row(("former flag", "flag")) + _row(("---", "---"))
    parts.append(f"### Settings that need a restart\n\nSIGHUP reloads all others.\n\n{''.join(_restarts())}")
    return "\n".join([*parts, f"### Former names, accepted until 0.2.0\n\n{head}{''.join(former)}"])


def with_tables(page: str) -> str:
    """Return the page with the tables as they are now. Raises ValueError where it has no place for them."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _restarts() -> Iterator[str]:
    """Yield a row for each reason to restart."""
    yield _row(("keys", "reason"))
    yield _row(("---", "---"))
    for reason, keys in itertools.groupby(NEEDS_RESTART, key=NEEDS_RESTART.__getitem__):
        yield _row((", ".join(f"`{key}`" for key in keys), reason))


def _table(group: tuple[Setting, ...]) -> Iterator[str]:
    yield _row(COLUMNS)
    yield _row("---" for _ in COLUMNS)
    for setting in group:
        meaning, _, rest = setting.help_text.partition(" (default: ")
        default = rest.removesuffix(")") or "none"
        if "{}" in setting.help:
            default = f"`{default}`"
        names = (f"`{name}`" for name in (setting.flag, setting.variables[0], setting.key))
        yield _row((*names, default, setting.type.unit, meaning))


def _row(cells: Iterator[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
