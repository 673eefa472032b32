"""How long a model may think, by `reasoning.effort`. Data, and pure.

An edge machine writes five to twenty tokens a second, and a context of 4096 has to hold prompt, thoughts and answer:
what OpenAI's models spend on an effort is more than there is. What a template is told of the effort is a wish; this
holds.
"""

from collections.abc import Mapping

TOKENS: Mapping[str, int] = {"none": 0, "minimal": 128, "low": 512, "medium": 2048}
"""Of thought; efforts above are without bounds of their own."""


def reasoning_budget(effort: str | None, room: int) -> int | None:
    """Tokens of thought, after which it is closed; None: as many as the model likes, which is also what it gets where
    nobody said anything. `room`: the tokens that thought and answer may have together, of which no bounded thought
    takes more than half.
    """
    tokens = TOKENS.get(effort or "")
    return None if tokens is None else min(tokens, room // 2)
