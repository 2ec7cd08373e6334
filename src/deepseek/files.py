"""Files that are made: where they are kept, how they are written, and when they are removed."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

__all__ = ["cache_dir", "locked", "prune", "write_whole"]


def cache_dir() -> Path:
    """Return the folder for everything built, from ``$DEEPSEEK_CACHE`` or the user's cache."""
    override = os.environ.get("DEEPSEEK_CACHE")
    if override:
        return Path(override).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("deepseek-card", appauthor=False))


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, all of it or nothing; make its folder where that is missing. Text is UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, progress: Callable[[str, float], None] | None = None) -> Iterator[None]:
    """Let one process at a time build what the file ``path`` is the lock of; ``progress`` is told
    if another one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # `prune` in another process leaves it alone, then
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            progress("wait for another build of the same card", 0.0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def prune(folder: Path, days: float, *, stamp: str = "") -> None:
    """Remove what is in ``folder`` and was not used for ``days``.

    The time of use is that of the file ``stamp`` in a folder. Where there is none it is the entry's
    own, which is new as long as something is built there.
    """
    limit = time.time() - days * 86400
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            used = entry / stamp
            if (used if used.exists() else entry).stat().st_mtime >= limit:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
        except OSError:
            continue  # removed by another process
