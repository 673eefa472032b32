"""Settings of a model in this process and of upstream servers, which exclude each other."""

from collections.abc import Mapping, Sequence

from server.config.file import ConfigError
from server.config.settings import EffectiveValue

EMBEDDED_ONLY = (
    *("model", "engine", "libllama", "threads", "threads_batch", "flash_attention", "kv_type"),
    *("slots", "cache_megabytes", "max_step_ms", "kv_snapshot_megabytes", "snapshot_unstored", "prewarm"),
)
"""Keys of settings that have a meaning for a model in this process only."""


TOKEN_FORM = ("tokenizer", "chat_template")
"""Keys of settings that upstreams need only if they get tokens."""


def check_upstream_settings(values: Sequence[EffectiveValue]) -> None:
    """Raise ConfigError for settings that have no effect together, or of which one is missing.

    Defaults may be written out, as `--print-config` does.
    """
    given = {value.setting.key: value.source for value in values if value.value != value.setting.default}
    if "upstream" in given:
        _check_form(given)
        for key in EMBEDDED_ONLY:
            if key in given:
                raise ConfigError(
                    f"{given[key]}: {key} is for a model in this process, --upstream for other servers; leave one "
                    "of them out"
                )
        return
    for key, source in given.items():
        if key.startswith("upstream_") or key == "tokenizer":
            raise ConfigError(f"{source}: {key} needs --upstream URL")


def _check_form(given: Mapping[str, str]) -> None:
    if "upstream_api" in given:
        if "tokenizer" not in given:
            raise ConfigError(
                f"{given['upstream_api']}: --upstream-api completions needs --tokenizer FILE, the GGUF file or the "
                "tokenizer.json of the upstreams' model"
            )
        return
    for key in TOKEN_FORM:
        if key in given:
            raise ConfigError(f"{given[key]}: {key} has an effect with --upstream-api completions only")
