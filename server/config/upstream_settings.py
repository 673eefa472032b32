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
    given = {value.setting.key: _place(value) for value in values if value.value != value.setting.default}
    if "upstream" in given:
        _check_form(given)
        for key in EMBEDDED_ONLY:
            if key in given:
                raise ConfigError(
                    f"{given[key]} is for a model in this process, --upstream for other servers: leave one of them out"
                )
        return
    for key, place in given.items():
        if key.startswith("upstream_") or key == "tokenizer":
            raise ConfigError(f"{place} needs --upstream URL")


def _place(value: EffectiveValue) -> str:
    """Return the flag, the variable, or the file and the key in it."""
    setting, source = value.setting, value.source
    return source if source in (setting.flag, *setting.variables) else f"{source}: {setting.key}"


def _check_form(given: Mapping[str, str]) -> None:
    if "upstream_api" in given:
        if "tokenizer" not in given:
            raise ConfigError(
                f"{given['upstream_api']}: completions needs --tokenizer FILE, the GGUF file or the tokenizer.json of "
                "the upstreams' model"
            )
        return
    for key in TOKEN_FORM:
        if key in given:
            raise ConfigError(f"{given[key]} has an effect with --upstream-api completions only")
