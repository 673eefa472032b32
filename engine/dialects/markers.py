"""The markers that an answer of a dialect may contain. Pure."""

from collections.abc import Iterable

from engine.dialects.dialect import Dialect


class AnswerMarkers:
    """The markers of a dialect for the functions of one request."""

    def __init__(self, dialect: Dialect, names: Iterable[str]) -> None:
        """`names` are the offered functions, which replace `$name`."""
        names = tuple(names)

        def named(marker: str) -> Iterable[str]:
            return dict.fromkeys(marker.replace("$name", name) for name in names)

        self.blocks = {marker: block for block in dialect.blocks for marker in named(block.open)}
        """Block of calls by its opening marker."""
        ignored = [marker for each in dialect.ignored_markers for marker in named(each)]
        self.reasoning = {tags.open: tags for tags in dialect.reasoning_tags}
        """Reasoning tags by their opening marker."""
        self.reasoning_ends = {tags.close for tags in dialect.reasoning_tags} - {*ignored, *dialect.content_markers}
        self.wraps = {wrap.open: wrap.close for wrap in dialect.wraps}
        """Closing marker of a wrap by its opening one."""
        self.all = (
            *self.blocks,
            *ignored,
            *dialect.content_markers,
            *self.reasoning,
            *self.reasoning_ends,
            *self.wraps,
            *self.wraps.values(),
        )
