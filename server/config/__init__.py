"""Settings: flags, variables and the configuration file."""

from server.config.config import Config
from server.config.file import ConfigError
from server.config.settings import EffectiveValue

__all__ = [
    "Config",
    "ConfigError",
    "EffectiveValue",
]
