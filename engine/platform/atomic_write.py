"""Files that are complete or absent, whatever ends the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, draft: Path, mode: int = 0o666, *, syncs: bool = True) -> Iterator[BinaryIO]:
    """Open `draft` for writing; when the block ends well, sync it and rename it to `path`, else remove it.

    A file that is not synced may be damaged by a power cut, so its reader must be able to see that.

    Both are in one folder; `mode` are the permissions of a new file, less the umask. Callers that may write `path` at
    the same time need drafts of their own. Raises OSError.
    """
    try:
        with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            if syncs:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
