"""Where commands write: what is wrong with a path is said before the work, not after it."""

import tempfile
from pathlib import Path

__all__ = ["check_file", "check_folder"]


def check_file(option: str, path: Path, suffix: str = "") -> None:
    """Check that a file can be written; what is there stays as it is.

    Parameters
    ----------
    option : str
        What named it, for the message.
    suffix : str
        How its name has to end.

    Raises
    ------
    ValueError
        If the path is a folder, has no folder, ends otherwise, or cannot be written.
    """
    if path.is_dir():
        raise ValueError(f"{option} must name a file, and {path} is a folder")
    if not path.name.endswith(suffix):
        raise ValueError(f"{option} must name a file that ends in {suffix}, not {path.name!r}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} for {option}; make it first")
    new = not path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise _not_written(option, path, error) from None
    if new:
        path.unlink()


def check_folder(option: str, path: Path) -> None:
    """Check that a folder can be made, or be written to; raise `ValueError` if not."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise ValueError(f"{option} must name a folder, and {there} is a file")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _not_written(option, path, error) from None


def _not_written(option: str, path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"{option} cannot write {path}: {error.strerror}; next: choose another folder, or correct "
        "its permissions"
    )
