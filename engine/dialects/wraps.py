"""Markers around the whole answer, which some families write behind a thought. Data."""

from msgspec import Struct


class Wrap(Struct, frozen=True):
    open: str
    close: str
    signs: tuple[str, ...]
    """All of them stand in the template."""


WRAPS = (
    Wrap("<response>", "</response>", ("<response></response>",)),  # Granite 3.3; MiniMax has outputs in such tags
    Wrap("<answer>", "</answer>", ("<answer>", "</answer>")),  # Hunyuan
)


def wraps_in(template: str) -> tuple[Wrap, ...]:
    """Return the wraps that a chat template knows."""
    return tuple(wrap for wrap in WRAPS if all(sign in template for sign in wrap.signs))
