"""What a GEMM's results have to be, by the golden models."""

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ...sim.golden import epilogue, exact
from .job import GemmJob, Operands

__all__ = ["expected", "raw"]


def raw(array: npt.NDArray) -> npt.NDArray:
    """Return numbers as the golden models hold them: floats as their bits, INT4 as INT8."""
    if array.dtype == ml_dtypes.int4:
        return array.astype(np.int8)
    if array.dtype.kind in "iu":
        return array
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def expected(job: GemmJob, operands: Operands) -> npt.NDArray:
    """Return raw numbers C[M, N]."""
    a, x = raw(operands.a), raw(operands.x)
    if job.streams_b:
        # Rows of the streams have the scales.
        return _finish(job, x, a, operands).T
    return _finish(job, a, x, operands)


def _finish(
    job: GemmJob, stream: npt.NDArray, resident: npt.NDArray, operands: Operands
) -> npt.NDArray:
    formats = (job.resident_name, job.dtype) if job.streams_b else (job.dtype, job.resident_name)
    size = job.k if job.block_scale is None else job.block_scale
    sums = [
        exact.gemm(
            np.ascontiguousarray(stream[:, start : start + size]),
            np.ascontiguousarray(resident[:, start : start + size]),
            *formats,  # type: ignore[arg-type]
            anchor=job.anchor,
        )
        for start in range(0, job.k, size)
    ]
    rows = (len(stream), job.blocks)
    scale = np.ascontiguousarray(np.broadcast_to(operands.scale, rows).T).view(np.uint32)
    return epilogue.finish(
        sums if job.block_scale is not None else sums[0],
        bias=np.zeros(len(stream), np.uint32),
        scale=scale if job.block_scale is not None else scale[0],
        out_format=job.out_name,  # type: ignore[arg-type]
    ).values
