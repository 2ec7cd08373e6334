"""What one iteration of VECTOR does to the scratchpad."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import VectorOp
from ..golden import vector as golden
from .checks import PAIRS
from .work import Bytes, Fields, Work

__all__ = ["vector"]

Granules = npt.NDArray[np.int8]


def vector(body: Fields, operand: Sequence[int], scratchpad: Bytes, config: CardConfig) -> Work:
    """Execute an iteration that `check_vector` has passed; all reads come before all writes."""
    words = scratchpad.view(np.int8).reshape(-1, GRANULE)
    out_y, out_x = np.arange(body["out_y"])[:, np.newaxis], np.arange(body["out_x"])

    def addresses(base: int, side: str) -> npt.NDArray[np.int64]:
        """Return where the granules [y, x, c] of a tensor lie, in granules."""
        y_stride, x_stride = (body[f"{side}{axis}_stride"] for axis in "yx")
        corner = base + out_y * y_stride + out_x * x_stride
        return corner[..., np.newaxis] // GRANULE + np.arange(body["granules"])

    places = addresses(operand[1], "in_")
    op, reads = VectorOp(body["op"]), body["kernel_y"] * body["kernel_x"]
    if body["op"] in PAIRS:
        reads = 2
        result = _combine(op, body, words[places], words[addresses(operand[0], "in_k")])
    elif op is VectorOp.MAX:
        result = np.full((*places.shape, GRANULE), -128, np.int8)
        for offset in _kernel_offsets(body):
            np.maximum(result, words[places + offset // GRANULE], out=result)
    else:
        sums = np.zeros((*places.shape, GRANULE), np.int64)
        for offset in _kernel_offsets(body):
            sums += words[places + offset // GRANULE]
        sums -= reads * body["a_zero"]
        result = golden.average(sums, scale=body["a_scale"], **_output(body))
    words[addresses(operand[2], "out_")] = result
    cycles = reads if op is VectorOp.MAX else max(reads, GRANULE // config.vector_lanes)
    return Work(busy=places.size * cycles)


def _combine(op: VectorOp, body: Fields, a: Granules, b: Granules) -> Granules:
    zeros = {"a_zero": body["a_zero"], "b_zero": body["b_zero"]}
    if op is VectorOp.MULTIPLY:
        return golden.multiply(a, b, scale=body["a_scale"], **zeros, **_output(body))
    scales = {"a_scale": body["a_scale"], "b_scale": body["b_scale"]}
    return golden.add(a, b, **scales, **zeros, **_output(body))


def _output(body: Fields) -> dict[str, int]:
    return {name: body[name] for name in ("zero_point", "clamp_low", "clamp_high")}


def _kernel_offsets(body: Fields) -> Iterator[int]:
    for y in range(body["kernel_y"]):
        for x in range(body["kernel_x"]):
            yield y * body["in_ky_stride"] + x * body["in_kx_stride"]
