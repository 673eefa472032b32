"""The scenarios: the requests of one round, and which answers are counted together.

A scenario is a function that sends requests to one target and returns its groups by name. `run.py` adds up the rounds.
"""

from collections.abc import Callable

from target import Target
from texts import Texts

from scenarios.concurrency import concurrent, shared_prefix, single
from scenarios.conversations import multi_turn, rotation, warm_restart
from scenarios.departures import abandoned_prompt, hang_up
from scenarios.groups import Groups, Size
from scenarios.process import cold_start, idle_connections, restart
from scenarios.schemas import constrained, forms
from scenarios.streams import interference, large_body

__all__ = ["COMPARED", "SCENARIOS", "Groups", "Size"]

SCENARIOS: dict[str, Callable[[Target, Texts, Size], Groups]] = {
    "single": single,
    "concurrent": concurrent,
    "shared-prefix": shared_prefix,
    "interference": interference,
    "large-body": large_body,
    "multi-turn": multi_turn,
    "rotation": rotation,
    "warm-restart": warm_restart,
    "abandoned-prompt": abandoned_prompt,
    "hang-up": hang_up,
    "constrained": constrained,
    "forms": forms,
    "idle-connections": idle_connections,
    "cold-start": cold_start,
    "restart": restart,
}

COMPARED: dict[str, tuple[str, str]] = {
    "interference": ("during", "calm"),
    "large-body": ("during", "calm"),
    "rotation": ("restarted", "turn 1"),
    "warm-restart": ("restarted", "cold"),
    "abandoned-prompt": ("behind", "alone"),
    "hang-up": ("behind", "quiet"),
    "constrained": ("constrained", "free"),
    "forms": ("form", "free"),
    "idle-connections": ("beside", "alone"),
    "cold-start": ("first token", "next"),
    "restart": ("after", "before"),
}
"""Two groups of one server whose ratio is the result of a scenario."""
