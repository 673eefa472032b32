"""Settings: flags, variables and the configuration file."""

from server.config.api_keys import api_keys, credential, read_api_keys
from server.config.config import Config
from server.config.file import ConfigError
from server.config.groups import GROUPS
from server.config.live import NEEDS_RESTART, LiveConfig
from server.config.prewarm_files import PrewarmFile, read_prewarm_files
from server.config.secret import read_secret
from server.config.setting import PREFIX
from server.config.settings import EffectiveValue
from server.config.upstream_settings import check_upstream_settings
from server.config.values import DATABASES

__all__ = [
    "DATABASES",
    "GROUPS",
    "NEEDS_RESTART",
    "PREFIX",
    "Config",
    "ConfigError",
    "EffectiveValue",
    "LiveConfig",
    "PrewarmFile",
    "api_keys",
    "check_upstream_settings",
    "credential",
    "read_api_keys",
    "read_prewarm_files",
    "read_secret",
]
