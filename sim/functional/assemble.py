"""Commands and stream blobs made by hand: for tests and benches, not for the compiler."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import ABI_VERSION, Command, DirectoryEntry, Opcode, Queue
from .checks import BODIES
from .decode import dtype, pack

__all__ = ["blob", "command", "operand", "semaphore", "stream"]

DEFAULT_QUEUES = {
    Opcode.LOAD: Queue.LOAD0,
    Opcode.STORE: Queue.STORE,
    Opcode.MATMUL: Queue.COMPUTE,
    Opcode.POOL: Queue.VECTOR,
}

ONE = 0x3F800000


def operand(base: int, *, inner: int = 0, outer: int = 0, pong: int = 0) -> dict[str, int]:
    """Return the fields of an `Operand`."""
    return {"base": base, "inner": inner, "outer": outer, "pong": pong}


def semaphore(index: int, *, outer: bool = False) -> dict[str, int]:
    """Return the fields of an enabled `SemaphoreRef`."""
    return {"index": index, "outer": int(outer), "enable": 1}


def command(
    opcode: Opcode,
    body: Mapping[str, Any] | None = None,
    *,
    queue: Queue | int | None = None,
    operands: Sequence[Mapping[str, int] | int] = (),
    wait: Iterable[Mapping[str, int]] = (),
    signal: Iterable[Mapping[str, int]] = (),
    **header: int,
) -> bytes:
    """Return the 128 bytes of a command.

    Parameters
    ----------
    opcode : Opcode
    body : dict
        Fields of the opcode's body.
    queue : Queue
        By default the opcode's first one.
    operands : sequence
        Of `operand`, or a plain address.
    wait, signal : iterable
        Of `semaphore`.
    header : int
        Further fields of `Command`: ``inner`` and ``outer`` (1 by default), ``pong_outer``,
        ``version``.
    """
    fields = {
        "opcode": opcode,
        "version": ABI_VERSION,
        "queue": DEFAULT_QUEUES.get(opcode, 0) if queue is None else queue,
        "inner": 1,
        "outer": 1,
        "operand": [operand(item) if isinstance(item, int) else item for item in operands],
        "wait": list(wait),
        "signal": list(signal),
        "body": pack(BODIES[opcode], body or {}),
    }
    return pack(Command, fields | header)


def stream(weights: npt.NDArray, *, sparse: bool) -> tuple[bytes, int]:
    """Return one row's stream, in granules, and its count.

    Parameters
    ----------
    weights : ndarray
        ``int8`` or ``uint16`` (FP16 bits), K values. Sparse streams leave zeros out.
    """
    size = weights.dtype.itemsize
    if not sparse:
        raw = weights.tobytes()
        return raw + bytes(-len(raw) % GRANULE), len(weights)
    entries: list[tuple[int, int]] = []
    last = -1
    for index in np.flatnonzero(weights).tolist():
        while index - last > 256:
            entries.append((0, 255))
            last += 256
        entries.append((int(weights[index]), index - last - 1))
        last = index
    per_granule = 8 if size == 1 else 5
    raw = b""
    for start in range(0, len(entries), per_granule):
        part = entries[start : start + per_granule]
        values = np.array([value for value, _ in part], weights.dtype).tobytes()
        deltas = bytes(delta for _, delta in part)
        raw += values.ljust(per_granule * size, b"\0") + deltas.ljust(GRANULE - per_granule * size)
    return raw, len(entries)


def blob(
    weights: npt.NDArray,
    *,
    rows: int,
    sparse: bool = False,
    out_offset: npt.ArrayLike = 0,
    bias: npt.ArrayLike = 0,
    scale: npt.ArrayLike = ONE,
) -> tuple[bytes, int]:
    """Return the stream blob of A[M, K], and its visits: row m is visit m // rows of m % rows.

    Parameters
    ----------
    weights : ndarray
        ``int8`` or ``uint16`` (FP16 bits) [M, K].
    rows : int
        Row engines.
    sparse : bool
    out_offset, bias, scale : array of uint32
        Of each row, or of all.
    """
    count = len(weights)
    visits = -(-count // rows)
    directory = np.zeros(visits * rows, dtype(DirectoryEntry))
    directory["out_offset"][:count] = out_offset
    directory["bias"][:count] = bias
    directory["scale"][:count] = scale
    streams = b""
    for m, row in enumerate(weights):
        raw, length = stream(row, sparse=sparse)
        directory["stream"][m] = len(directory) + len(streams) // GRANULE
        directory["count"][m] = length
        streams += raw
    return directory.tobytes() + streams, visits
