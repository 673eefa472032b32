"""The tables of server/docs/configuration.md, made from the table of settings.

    python -m tests.support.settings_page

writes them into the page.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from server.config import settings
from server.config.table import GROUPS, PREFIX, SETTINGS, Setting

PAGE = Path(__file__).parents[2] / "server" / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"
COLUMNS = ("flag", "variable", "key", "default", "unit or values", "meaning")
UNITS = {
    "context": "tokens",
    "max_step_ms": "ms",
    "max_body_megabytes": "MB",
    "store_megabytes": "MB",
    "cache_megabytes": "MB",
    "kv_snapshot_megabytes": "MB",
    "store_days": "days",
}
"""Units of whole numbers that do not count things."""
VALUES = {
    "N": "number",
    "SECONDS": "seconds",
    "PATH": "path",
    "HOST": "list of addresses",
    "NAME": "list of names",
    "FILE": "list of paths",
    "REGEX": "list of patterns",
    None: "text",
}
"""Values by the placeholder of their type in the help."""


def tables() -> str:
    """Return a table for each group of settings, in the order of `--help`, and one of former names."""
    parts = [f"### {title.capitalize()}\n\n{''.join(_table(group))}" for title, group in GROUPS.items()]
    former = (_row((f"`{each.former_flag}`", f"`{each.flag}`")) for each in SETTINGS if each.former)
    head = _row(("former flag", "flag")) + _row(("---", "---"))
    return "\n".join([*parts, f"### Former names, accepted until 0.2.0\n\n{head}{''.join(former)}"])


def with_tables(page: str) -> str:
    """Return the page with the tables as they are now. Raises ValueError where it has no place for them."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _table(group: tuple[Setting, ...]) -> Iterator[str]:
    yield _row(COLUMNS)
    yield _row("---" for _ in COLUMNS)
    for setting in group:
        text = setting.help.format(settings.default_text(setting))
        meaning, _, rest = text.partition(" (default: ")
        default = rest.removesuffix(")") or "none"
        if "{}" in setting.help:
            default = f"`{default}`"
        variable = f"{PREFIX}{setting.key.upper()}"
        yield _row((f"`{setting.flag}`", f"`{variable}`", f"`{setting.key}`", default, _values(setting), meaning))


def _values(setting: Setting) -> str:
    if choices := re.fullmatch(r"\{(.*)\}", setting.type.metavar or ""):
        return ", ".join(f"`{choice}`" for choice in choices[1].split(","))
    return UNITS.get(setting.key) or VALUES[setting.type.metavar]


def _row(cells: Iterator[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
