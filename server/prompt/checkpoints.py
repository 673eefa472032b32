"""Places in a prompt where a later one may part from it: models whose state cannot be cut save it there. Pure.

A turn ends where the template writes control tokens: `text<|im_end|>\\n<|im_start|>user\\n`. The checkpoint is before
the first of them, since the next prompt may have others (an answer without its reasoning).
"""

from collections.abc import Container, Sequence

MIN_CHECKPOINT_TOKENS = 16
"""Minimum tokens between two checkpoints: fewer are evaluated as fast as a state is restored."""
MAX_MARKER_TOKENS = 3
"""Maximum distance of two control tokens without text between them: `<|im_start|>`, `user`, a line break."""
MAX_LAST_TURNS = 2
"""Number of turns at a prompt's end: the last question, and the answer before it, from which an edited question
parts."""


def turn_ends(prompt: Sequence[int], control_tokens: Container[int]) -> tuple[int, ...]:
    """Return the ends of the first turn (mostly the system prompt) and of the last ones, in ascending order."""
    ends = [0]
    last = 0
    for position, token in enumerate(prompt):
        if token in control_tokens:
            if position - last > MAX_MARKER_TOKENS and position - ends[-1] >= MIN_CHECKPOINT_TOKENS:
                ends.append(position)
            last = position
    return tuple(dict.fromkeys((*ends[1:2], *ends[1:][-MAX_LAST_TURNS:])))
