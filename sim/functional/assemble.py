"""Commands and stream blobs made by hand: for tests and benches, not for the compiler."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE
from ...rtl.isa import ABI_VERSION, Command, DirectoryEntry, Encoding, Format, Opcode, Queue
from .checks import BODIES
from .decode import dtype, pack
from .streams import entries_of, pack_entries

__all__ = ["blob", "command", "operand", "semaphore"]

DEFAULT_QUEUES = {
    Opcode.LOAD: Queue.LOAD0,
    Opcode.STORE: Queue.STORE,
    Opcode.MATMUL: Queue.COMPUTE,
    Opcode.VECTOR: Queue.VECTOR,
    Opcode.ROWS: Queue.VECTOR,
    Opcode.REFORMAT: Queue.VECTOR,
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


def blob(
    weights: npt.NDArray,
    *,
    fmt: Format = Format.INT8,
    encoding: Encoding = Encoding.DENSE,
    slice: int | None = None,
    out_offset: npt.ArrayLike = 0,
    bias: npt.ArrayLike = 0,
    scale: npt.ArrayLike = ONE,
) -> bytes:
    """Return the stream blob of A[M, K]: a directory of M entries a slice, and the streams.

    Parameters
    ----------
    weights : ndarray
        Raw numbers [M, K], as the golden models take them. Compressed streams leave zeros out.
    fmt : Format
    encoding : Encoding
    slice : int, optional
        Numbers in a slice of K; by default all.
    out_offset, bias, scale : array of uint32
        Of each row [M] or each entry [slices, M], or of all.
    """
    m, k = weights.shape
    length = k if slice is None else slice
    starts = range(0, k, length)
    directory = np.zeros((len(starts), m), dtype(DirectoryEntry))
    directory["out_offset"] = out_offset
    directory["bias"] = bias
    directory["scale"] = scale
    streams = b""
    for s, start in enumerate(starts):
        for row, part in enumerate(weights[:, start : start + length]):
            keep = part != 0
            keep[0] |= not keep.any()  # a count of 0 would say that there is no row
            values, places = entries_of(part, keep, encoding)
            directory[s, row]["stream"] = directory.size + len(streams) // GRANULE
            directory[s, row]["count"] = len(values)
            streams += pack_entries(values, places, fmt, encoding).tobytes()
    return directory.tobytes() + streams
