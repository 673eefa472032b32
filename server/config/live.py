"""The settings in force. SIGHUP replaces all of them but those of `NEEDS_RESTART`."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from server.config.config import Config
from server.config.groups import SETTINGS


def _same(reason: str, *keys: str) -> dict[str, str]:
    return dict.fromkeys(keys, reason)


NEEDS_RESTART: Mapping[str, str] = MappingProxyType(
    {
        **_same("the model is loaded with them", "model", "context", "engine", "libllama", "chat_template"),
        **_same("the model is loaded with them", "threads", "threads_batch", "flash_attention", "kv_type", "slots"),
        **_same("addresses are bound and checked at start", "host", "port", "insecure"),
        **_same("memory is divided at start, and the unit's `MemoryMax=` counts it", "cache_megabytes"),
        **_same("files are opened at start", "state_dir", "store", "advertise", "kv_snapshot_megabytes"),
        **_same("prompts are evaluated before the server is ready", "prewarm"),
        **_same("a conversation in progress keeps its form", "volatile", "reasoning_events"),
        **_same("the upstreams are asked at start", "upstream", "upstream_model"),
        **_same("the upstreams are asked at start", "upstream_api", "tokenizer"),
        **_same("the upstreams are asked at start", "upstream_slots", "upstream_connect_timeout"),
        **_same("the upstreams are asked at start", "upstream_first_byte_timeout", "upstream_idle_timeout"),
        **_same("counters begin at start", "metrics"),
        **_same("the log begins at start", "log_format"),
    }
)
"""Key of a setting that a reload leaves alone -> reason."""


class LiveConfig:
    """The settings in force. Readers ask for `now` at each use, so that a reload reaches the next request."""

    def __init__(self, config: Config) -> None:
        self.now = config

    def reload(self, config: Config) -> None:
        """Take over all settings that need no restart."""
        chosen = [setting.field for setting in SETTINGS if setting.key not in NEEDS_RESTART]
        self.now = replace(self.now, **{field: getattr(config, field) for field in chosen})
