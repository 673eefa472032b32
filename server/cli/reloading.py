"""Settings that change while the server runs, at SIGHUP. Streams in progress go on."""

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.model import OptionError
from server.cli.serve import check_mcp
from server.config import (
    NEEDS_RESTART,
    Config,
    ConfigError,
    EffectiveValue,
    api_keys,
    check_upstream_settings,
    settings,
)
from server.listening import HTTPOptions, http_options

if TYPE_CHECKING:
    from server.api import App

log = logging.getLogger("responsed")


def nothing_to_reload(config: Config) -> None:
    """Leave a loaded model as it is: its settings need a restart."""


class Reloading:
    """The settings in force, and how to replace them."""

    def __init__(
        self,
        flags: argparse.Namespace,
        values: Sequence[EffectiveValue],
        options: HTTPOptions,
        reload_model: Callable[[Config], None] = nothing_to_reload,
    ) -> None:
        """`reload_model` applies the settings that concern the model, or raises ConfigError."""
        self._flags = flags
        self._reload_model = reload_model
        self._options = options
        self._values = {value.setting.key: value.value for value in values}

    def reload(self, app: "App") -> None:
        """Apply the reloadable settings and name the others that changed. An error leaves everything as it was."""
        try:
            values = settings.resolve(self._flags, os.environ)
            check_upstream_settings(values)
            config = settings.config(values)
            check_mcp(config)
            keys = api_keys(config)
            if keys is None and app.keys is not None:
                raise ConfigError("the API keys are gone; restart the server to serve without keys")
            options = self._new_options(config)
            self._reload_model(config)
        except (ConfigError, OptionError) as error:
            log.error("the settings stay as they are: %s", error)
            return
        changed = {value.setting.key: value.value for value in values if value.value != self._values[value.setting.key]}
        self._values |= {key: value for key, value in changed.items() if key not in NEEDS_RESTART}
        app.reload(config, keys)
        self._options.limits, self._options.proxies = options.limits, options.proxies
        self._options.tls = options.tls
        logging.getLogger().setLevel(config.log_level.upper())
        log.info("reloaded the settings and API keys; changed: %s", ", ".join(sorted(changed)) or "none")
        if ignored := sorted(changed.keys() & NEEDS_RESTART.keys()):
            log.warning("these settings need a restart: %s", ", ".join(ignored))

    def _new_options(self, config: Config) -> HTTPOptions:
        """Return the listener's options. Raises ConfigError for a change that needs a restart."""
        options = http_options(config)
        if (options.tls is None) != (self._options.tls is None):
            raise ConfigError("restart the server to turn TLS on or off")
        return options
