"""The settings of Config, and their groups by subject."""

from server.config.config import Config
from server.config.setting import annotated, grouped

SETTINGS = tuple(annotated(Config))

GROUPS = grouped(
    SETTINGS,
    {
        "model": "model",
        "upstreams": "upstream",
        "network": "host",
        "limits": "slots",
        "storage": "state_dir",
        "behavior": "prewarm",
        "logging": "metrics",
    },
)
"""Settings by subject, in the order in which `--help` and `--print-config` list them."""
