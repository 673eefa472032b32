"""Facts about a prompt, for the response and the log. Pure."""

from msgspec import UNSET

from server.prompt_comparison import Compared
from server.served_model import OutputConstraints
from server.stream import PromptMade

MAX_UNENFORCED = 100
"""Number of unenforced places in schemas that a response names."""
NOT_COMPARED = Compared()


def prompt_made(constraints: OutputConstraints, compared: Compared = NOT_COMPARED) -> PromptMade:
    """Return the facts for a response that began without its prompt."""
    diagnostics = None if compared.diagnostics is UNSET else compared.diagnostics
    return PromptMade(constraints.unenforced[:MAX_UNENFORCED], compared.cache, diagnostics)
