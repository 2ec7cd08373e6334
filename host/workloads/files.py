"""The workloads' data files, checked as they are read."""

import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["DATA", "DataError", "load_arrays"]

DATA = Path(__file__).resolve().parent / "data"
"""Folder of the shipped files, with their digests in SHA256SUMS."""


class DataError(ValueError):
    """A data file is missing or not the one that was shipped."""


def load_arrays(name: str, *, folder: Path = DATA) -> dict[str, npt.NDArray]:
    """Return the arrays in the file ``name`` (.npz) of ``folder``.

    Raises
    ------
    DataError
        If the file is missing or its digest is not the one in SHA256SUMS: one line that says
        which file, what is wrong and what to do.
    """
    cure = "restore the file (git checkout) or install deepseek-card again"
    path = folder / name
    try:
        content = path.read_bytes()
        listed = (folder / "SHA256SUMS").read_text().split()
    except OSError as error:
        raise DataError(
            f"cannot read data file {error.filename or path} ({error.strerror}); {cure}"
        ) from None
    digests = dict(zip(listed[1::2], listed[::2], strict=False))
    digest = hashlib.sha256(content).hexdigest()
    if digests.get(name) != digest:
        raise DataError(
            f"data file {path} is corrupt: its SHA-256 is {digest[:16]}..., "
            f"SHA256SUMS lists {digests.get(name, 'none')[:16]}...; {cure}"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
