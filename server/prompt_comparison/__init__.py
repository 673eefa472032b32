"""Recent prompts, and the place at which a new one differs.

Imports `generation`, `prompt`, `protocol`, `store` and `work_thread`.
"""

from server.prompt_comparison.prompt_comparisons import Compared, PromptComparisons

__all__ = [
    "Compared",
    "PromptComparisons",
]
