"""Settings of a model in this process and of upstream servers, which exclude each other."""

from collections.abc import Sequence

from server.config.file import ConfigError
from server.config.settings import EffectiveValue

EMBEDDED_ONLY = (
    *("model", "engine", "libllama", "chat_template", "threads", "threads_batch", "flash_attention", "kv_type"),
    *("slots", "cache_megabytes", "max_step_ms", "kv_snapshot_megabytes", "snapshot_unstored", "prewarm"),
)
"""Keys of settings that have a meaning for a model in this process only."""


def check_upstream_settings(values: Sequence[EffectiveValue]) -> None:
    """Raise ConfigError for settings that have no effect together.

    Defaults may be written out, as `--print-config` does.
    """
    given = {value.setting.key: value.source for value in values if value.value != value.setting.default}
    if "upstream" in given:
        for key in EMBEDDED_ONLY:
            if key in given:
                raise ConfigError(
                    f"{given[key]}: {key} is for a model in this process, --upstream for other servers; leave one "
                    "of them out"
                )
        return
    for key, source in given.items():
        if key.startswith("upstream_"):
            raise ConfigError(f"{source}: {key} needs --upstream URL")
