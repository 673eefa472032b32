"""Limits of memory for the unit, from the estimate for the configured model."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from engine import gguf, loader
from engine.gguf import GGUFError
from engine.loader import catalog, footprint, machine
from engine.model import ModelError
from server.cli.serve import options
from server.config import PREFIX, Config, settings

SERVICE_CACHE = "/var/cache/responsed"
"""CacheDirectory= of the unit."""
HIGH, MAX = 1.10, 1.25
"""MemoryHigh= and MemoryMax= as multiples of the estimate, which is right within 10 %."""
MIB = 1 << 20


class MemoryLimits(Struct, frozen=True):
    """Limits in MiB, which systemd calls M."""

    high: int
    max: int

    def __str__(self) -> str:
        return f"MemoryHigh={self.high}M\nMemoryMax={self.max}M"


def memory_limits(user: bool, environ: Mapping[str, str]) -> MemoryLimits | str:
    """Return the limits for the service's settings, or the reason why there are none. Raises ConfigError."""
    # The service has none of this shell's variables for settings; that of the system has no home folder either.
    own = {name: value for name, value in environ.items() if user and not name.startswith(PREFIX)}
    config = settings.config(settings.resolve(argparse.Namespace(config=None), own))
    path = _find(config.model, environ if user else {"CACHE_DIRECTORY": SERVICE_CACHE}, environ)
    if path is None:
        return f"{config.model} is not here yet"
    try:
        return _limits(path, config)
    except (GGUFError, ModelError) as error:
        return str(error)


def _find(model: str, *places: Mapping[str, str]) -> Path | None:
    """Return the model's file in the first cache folder that has it."""
    return next((path for each in places if (path := catalog.find(model, catalog.cache_folder(each)))), None)


def _limits(path: Path, config: Config) -> MemoryLimits:
    header, wanted = gguf.read(path), options(config)
    plan = footprint.LoadPlan(
        path,
        header,
        loader.context(header, wanted.n_ctx),
        wanted.n_slots,
        wanted.backend_options,
        machine.resident(),
        wanted.prefix_cache,
    )
    total = footprint.estimate(plan).total
    if config.cache_megabytes is None:
        total += machine.prefix_cache_bytes(reserved=total)
    return MemoryLimits(high=_mib(HIGH * total), max=_mib(MAX * total))


def _mib(n_bytes: float) -> int:
    return -int(-n_bytes // MIB)
