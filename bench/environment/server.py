"""Facts that a server reports about itself: its version, its engine and the model."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Get = Callable[[str], Any]
"""Return the JSON that a server has at a path; None if it has none."""

_VERSION_PATHS = (("/version", "version"), ("/props", "build_info"), ("/api/version", "version"))
"""Path and key of a server's version: responsed and vLLM, llama.cpp, Ollama."""
_HASHES = ("sha256", "digest", "hash", "revision")


def server(get: Get, model: str) -> dict[str, Any]:
    """Return the facts that a server reports about itself and about a model."""
    facts: dict[str, Any] = {"version": None, "engine": None, "model_hash": None}
    for path, key in _VERSION_PATHS:
        if isinstance(found := get(path), dict) and found.get(key):
            facts |= {"version": str(found[key]), "engine": found.get("engine")}
            break
    about = _about(get("/v1/models"), model)
    facts["model_hash"] = next((str(about[name]) for name in _HASHES if about.get(name)), None)
    return facts | {"model": {name: value for name, value in about.items() if isinstance(value, str | int | float)}}


def is_local(url: str) -> bool:
    """True if a URL is of this machine, so that the machine's facts are the server's, too."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.") or not urlsplit(url).scheme.startswith("http")


def _about(models: Any, model: str) -> dict[str, Any]:
    """Return the entry of a model in the list of models, with its `meta`."""
    entries = models.get("data") if isinstance(models, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("id") == model:
            meta = entry.get("meta")
            return entry | (meta if isinstance(meta, dict) else {})
    return {}
