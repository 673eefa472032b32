"""server/docs/configuration.md has the settings as they are."""

from tests.support.settings_page import PAGE, with_tables


def test_page_has_each_setting_as_the_table_does() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), "run `python -m tests.support.settings_page`"
