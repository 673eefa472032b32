"""The settings in force, for `serve --print-config`."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine import gguf, loader
from engine.loader import catalog
from server.config import EffectiveValue
from server.store import sqlite


def effective(values: Sequence[EffectiveValue], environ: Mapping[str, str]) -> list[EffectiveValue]:
    """Return the settings with the values that the server chooses for unset ones.

    Raises ModelError, GGUFError, CatalogError.
    """
    given = {value.setting.key: value.value for value in values}
    state_dir = given["state_dir"] or catalog.state_folder(environ)
    chosen: dict[str, Any] = {"state_dir": state_dir, "store": given["store"] or str(state_dir / sqlite.NAME)}
    if not given["upstream"]:
        chosen |= _of_model(given, environ)
    return [replace(value, value=chosen.get(value.setting.key, value.value)) for value in values]


def _of_model(given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values for the model in this process. A model that is not installed has no known context."""
    threads = loader.thread_counts(given["threads"], given["threads_batch"])
    path = catalog.find(given["model"], catalog.cache_folder(environ))
    context = loader.context(gguf.read(path), given["context"]) if path else given["context"] or None
    return {"threads": threads.decode, "threads_batch": threads.batch, "context": context}
