"""The copy of a model file that is rewritten for ctransformers, made once."""

import errno
import fcntl
import logging
from pathlib import Path

from engine import gguf
from engine.backends.ctransformers import converter
from engine.gguf import GGUFError, Header
from engine.loader.probe_cache import ProbeCache
from engine.model import ModelError, TooLittleDisk
from engine.platform import atomic_write

log = logging.getLogger("responsed.engine")


def compatible_weights(path: Path, header: Header, probe_cache: ProbeCache, cache: Path) -> Path:
    """Return `path`, or a rewritten copy of it in the cache, made once. Raises GGUFError, ModelError, TooLittleDisk."""
    reasons = converter.rewrite_reasons(header)
    if not reasons:
        return path
    target = cache / "backport" / f"{probe_cache.sha256(path)}.gguf"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits here, then finds the copy
            if not _is_complete(target):
                for draft in target.parent.glob("*.draft"):  # of a process that a signal ended
                    draft.unlink()
                log.info("rewriting %s for ctransformers, once: %s", path.name, "; ".join(reasons))
                _rewrite(path, header, target)
    except OSError as error:
        fault = f"a copy of {path.name} cannot be written to {target.parent} ({error.strerror})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TooLittleDisk(f"{fault}: free some space, or set XDG_CACHE_HOME to another folder") from error
        raise ModelError(f"{fault}: make it writable, or set XDG_CACHE_HOME to another folder") from error
    return target


def _rewrite(path: Path, header: Header, target: Path) -> None:
    """Write the copy atomically."""
    with atomic_write(target, target.with_suffix(".draft")) as file:
        converter.write(path, header, file)


def _is_complete(target: Path) -> bool:
    """True if the copy can be read."""
    try:
        gguf.read(target)
    except GGUFError:
        return False
    return True
