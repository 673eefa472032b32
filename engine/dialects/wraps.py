"""Markers around the whole answer, which some families write after their reasoning. Data."""

from msgspec import Struct


class Wrap(Struct, frozen=True):
    """A pair of markers around an answer."""

    open: str
    close: str
    template_signatures: tuple[str, ...]
    """Texts that the template contains; all of them must match."""


WRAPS = (
    Wrap("<response>", "</response>", ("<response></response>",)),  # Granite 3.3; MiniMax has outputs in such tags
    Wrap("<answer>", "</answer>", ("<answer>", "</answer>")),  # Hunyuan
)


def wraps_in(template: str) -> tuple[Wrap, ...]:
    """Return the wraps that a chat template contains."""
    return tuple(wrap for wrap in WRAPS if all(text in template for text in wrap.template_signatures))
