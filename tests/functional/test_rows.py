"""One iteration of ROWS: where numbers lie, what is refused, and how long it takes.

The numbers themselves are those of ``sim/golden/rows.py``, which has tests of its own.
"""

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import BITS, Format, Opcode, RowsBody, RowsFlag, RowsOp, Status
from deepseek.sim.functional.checks import Fault
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.units import execute
from deepseek.sim.golden import rows as golden
from deepseek.sim.golden.formats import DTYPES

CONFIG = preset("ecp5")
TOP = CONFIG.scratchpad_bytes
ONE = 0x3F800000
TABLE, DEFER, RMS = (flag.value for flag in RowsFlag)
IN_FORMATS = [Format[name.upper()] for name in golden.IN_FORMATS]
OUT_FORMATS = [Format[name.upper()] for name in golden.OUT_FORMATS]


def run(body, operand, scratchpad):
    memory = np.zeros(16, np.uint8)
    return execute(Opcode.ROWS, body, operand, memory=memory, scratchpad=scratchpad, config=CONFIG)


def plain(op, **changes):
    body = {"op": op, "length": 21, "y": 3, "z": 2, "clamp_low": -128, "clamp_high": 127}
    body |= {"a_scale": ONE, "b_scale": ONE, "c_scale": ONE, "epsilon": ONE}
    body |= {"in_y_stride": 96, "in_z_stride": -288, "out_y_stride": -96, "out_z_stride": 304}
    body |= changes
    fields = {name: int(getattr(value, "value", value)) for name, value in body.items()}
    return unpack(RowsBody, 0) | fields


def number(scratchpad, at, index, fmt):
    """One number of a row, from its bits."""
    bits = BITS[fmt]
    raw = int.from_bytes(scratchpad[at : at + 256].tobytes(), "little") >> bits * index
    raw &= (1 << bits) - 1
    dtype = np.dtype(DTYPES[fmt.name.lower()])
    return raw - (1 << bits) * (raw >> bits - 1) if dtype.kind == "i" else raw


CASES = [
    (RowsOp.AFFINE, 0),
    (RowsOp.AFFINE, TABLE),
    (RowsOp.SOFTMAX, 0),
    (RowsOp.SOFTMAX, DEFER),
    (RowsOp.NORMALIZE, 0),
    (RowsOp.NORMALIZE, TABLE | RMS),
    (RowsOp.QUANTIZE, 0),
]


@pytest.mark.parametrize("op, flags", CASES)
@pytest.mark.parametrize("in_format", IN_FORMATS)
def test_rows_lie_where_they_should(op, flags, in_format):
    for out_format in OUT_FORMATS:
        rng = np.random.default_rng([op.value, flags, in_format.value, out_format.value])
        body = plain(op, flags=flags, in_format=in_format, out_format=out_format, in_zero=-3)
        body |= {"scale_y_stride": -12, "scale_z_stride": 40, "zero_point": 2}
        body |= {"valid": 4, "valid_step": 10} if op is RowsOp.SOFTMAX else {}
        operand = (1 << 12, 1 << 13, 1 << 14)
        scratchpad = rng.integers(0, 256, TOP, np.uint8)
        want = scratchpad.copy()

        def place(base, side, z, y, body=body):
            return base + z * body[f"{side}_z_stride"] + y * body[f"{side}_y_stride"]

        fmt, output = in_format.name.lower(), golden.Output(out_format.name.lower(), 2, -128, 127)
        at = [[place(operand[1], "in", z, y) for y in range(3)] for z in range(2)]
        x = [[[number(want, row, i, in_format) for i in range(21)] for row in rows] for rows in at]
        x = np.array(x, DTYPES[fmt])
        scales = None
        pairs = [
            [number(want, operand[0], 2 * i + j, Format.FP32) for j in (0, 1)] for i in range(21)
        ]
        table = golden.Table(*np.array(pairs, np.uint32).T)
        rest = {"table": table} if flags & TABLE else {"b_scale": ONE}
        if op is RowsOp.AFFINE:
            values = golden.affine(x, fmt, output, in_zero=-3, a_scale=ONE, **rest)
        elif op is RowsOp.SOFTMAX:
            valid = [4, 14, 24]
            rest |= {"c_scale": ONE} if flags else {}
            values, scales = golden.softmax(
                x, fmt, output, in_zero=-3, a_scale=ONE, valid=valid, **rest
            )
        elif op is RowsOp.NORMALIZE:
            rest |= {"rms": bool(flags & RMS), "c_scale": ONE, "epsilon": ONE}
            values = golden.normalize(x, fmt, output, in_zero=-3, **rest)
        else:
            values, scales = golden.quantize(x, fmt, output, in_zero=-3, c_scale=ONE, **rest)

        run(body, operand, scratchpad)
        bits = BITS[out_format]
        for z, y in np.ndindex(2, 3):
            packed = sum(
                (int(value) & (1 << bits) - 1) << bits * i for i, value in enumerate(values[z, y])
            )
            nbytes = -(-21 * bits // 128) * 16
            start = place(operand[2], "out", z, y)
            raw = packed.to_bytes(nbytes, "little")
            want[start : start + nbytes] = np.frombuffer(raw, np.uint8)
            if op is RowsOp.QUANTIZE or flags & DEFER:
                start = place(operand[0], "scale", z, y)
                raw = int(scales[z, y]).to_bytes(4, "little")
                want[start : start + 4] = np.frombuffer(raw, np.uint8)
        np.testing.assert_array_equal(scratchpad, want)


def test_results_may_take_the_rows_places():
    rng = np.random.default_rng(1)
    scratchpad = rng.integers(0, 256, TOP, np.uint8)
    body = plain(RowsOp.SOFTMAX, in_format=Format.INT32, out_format=Format.INT8, b_scale=0x42FE0000)
    apart = scratchpad.copy()
    run(body, (0, 1 << 13, 1 << 14), apart)
    body |= {"out_y_stride": 96, "out_z_stride": -288}
    run(body, (0, 1 << 13, 1 << 13), scratchpad)
    for z, y in np.ndindex(2, 3):
        here, there = (1 << 13) + 96 * y - 288 * z, (1 << 14) - 96 * y + 304 * z
        assert np.array_equal(scratchpad[here : here + 32], apart[there : there + 32])


INT8 = {"in_format": Format.INT8, "out_format": Format.INT8}
BAD = (0, 0x007FFFFF, 0x7F800000, 0x7FC00000, 0xFF800000, 1 << 31)


@pytest.mark.parametrize(
    "op, change, operand, status",
    [
        *(
            (
                RowsOp.AFFINE,
                {name: 0, "op": 9, "in_y_stride": 1},
                (0, 0, 1 << 14),
                Status.BAD_LENGTH,
            )
            for name in ("length", "y", "z")
        ),
        (RowsOp.AFFINE, {"op": 4, "in_y_stride": 1}, (0, 0, 0), Status.BAD_FORMAT),
        *(
            (op, {"flags": bit, "out_y_stride": 4}, (0, 1 << 13, 1 << 14), Status.BAD_FORMAT)
            for op, known in (
                (RowsOp.AFFINE, TABLE),
                (RowsOp.SOFTMAX, DEFER),
                (RowsOp.NORMALIZE, TABLE | RMS),
                (RowsOp.QUANTIZE, 0),
            )
            for bit in (1 << i for i in range(8))
            if not bit & known
        ),
        *(
            (RowsOp.QUANTIZE, {name: value}, (2, 1 << 13, 1 << 14), Status.BAD_FORMAT)
            for name, values in (("in_format", (4, 6, 7, 8, 255)), ("out_format", (2, 8, 128)))
            for value in values
        ),
        *(
            (RowsOp.AFFINE, {name: 8, "a_scale": 0}, (0, 1 << 13, 1 << 14), Status.BAD_ALIGNMENT)
            for name in ("in_y_stride", "in_z_stride", "out_y_stride", "out_z_stride")
        ),
        (RowsOp.AFFINE, {"a_scale": 0}, (0, 8, 1 << 14), Status.BAD_ALIGNMENT),
        (RowsOp.AFFINE, {"a_scale": 0}, (0, 16, 8), Status.BAD_ALIGNMENT),
        (RowsOp.AFFINE, {"flags": TABLE}, (4, 1 << 13, 1 << 14), Status.BAD_ALIGNMENT),
        (RowsOp.SOFTMAX, {"flags": DEFER}, (2, 1 << 13, 1 << 14), Status.BAD_ALIGNMENT),
        (RowsOp.QUANTIZE, {"scale_y_stride": 6}, (4, 1 << 13, 1 << 14), Status.BAD_ALIGNMENT),
        (RowsOp.QUANTIZE, {"scale_z_stride": 1}, (4, 1 << 13, 1 << 14), Status.BAD_ALIGNMENT),
        *(
            (op, {name: bad, "flags": flags}, (0, TOP, 1 << 14), Status.BAD_SCALE)
            for op, flags, names in (
                (RowsOp.AFFINE, 0, ("a_scale", "b_scale")),
                (RowsOp.AFFINE, TABLE, ("a_scale",)),
                (RowsOp.SOFTMAX, 0, ("a_scale", "b_scale")),
                (RowsOp.SOFTMAX, DEFER, ("a_scale", "b_scale", "c_scale")),
                (RowsOp.NORMALIZE, 0, ("b_scale", "c_scale", "epsilon")),
                (RowsOp.NORMALIZE, TABLE, ("c_scale", "epsilon")),
                (RowsOp.QUANTIZE, 0, ("b_scale", "c_scale")),
            )
            for name in names
            for bad in BAD
        ),
        (RowsOp.SOFTMAX, {"a_scale": ONE | 1 << 31}, (0, 1 << 13, 1 << 14), Status.BAD_SCALE),
        (RowsOp.NORMALIZE, {"epsilon": ONE | 1 << 31}, (0, 1 << 13, 1 << 14), Status.BAD_SCALE),
        (RowsOp.QUANTIZE, {"b_scale": ONE | 1 << 31}, (0, 1 << 13, 1 << 14), Status.BAD_SCALE),
        (RowsOp.AFFINE, {}, (0, TOP - 96, 1 << 14), Status.BAD_ADDRESS),
        (RowsOp.AFFINE, {}, (0, 1 << 13, 0), Status.BAD_ADDRESS),
        (RowsOp.AFFINE, {"flags": TABLE}, (TOP - 160, 1 << 13, 1 << 14), Status.BAD_ADDRESS),
        (RowsOp.QUANTIZE, {"scale_y_stride": -4}, (4, 1 << 13, 1 << 14), Status.BAD_ADDRESS),
    ],
)
def test_refused(op, change, operand, status):
    scratchpad = np.zeros(TOP, np.uint8)
    with pytest.raises(Fault) as fault:
        run(plain(op, **INT8) | change, operand, scratchpad)
    assert fault.value.status is status
    assert not scratchpad.any()


@pytest.mark.parametrize(
    "op, change, operand",
    [
        (RowsOp.AFFINE, {"scale_y_stride": 3, "c_scale": 0, "epsilon": 0}, (5, 1 << 13, 1 << 14)),
        (RowsOp.AFFINE, {"flags": TABLE, "b_scale": 0}, (TOP - 176, 1 << 13, 1 << 14)),
        (RowsOp.AFFINE, {"a_scale": ONE | 1 << 31}, (0, 1 << 13, 1 << 14)),
        (RowsOp.SOFTMAX, {"scale_y_stride": 3, "c_scale": 0}, (5, 1 << 13, 1 << 14)),
        (RowsOp.QUANTIZE, {"a_scale": 0}, (TOP - 4, 1 << 13, 1 << 14)),
        (RowsOp.QUANTIZE, {"c_scale": ONE | 1 << 31}, (TOP - 4, 1 << 13, 1 << 14)),
    ],
)
def test_what_is_not_used_may_be_anything(op, change, operand):
    run(plain(op, **INT8) | change, operand, np.zeros(TOP, np.uint8))


def test_cycles():
    shape = {"length": 256, "y": 4, "z": 1, **INT8}
    operand = (0, 1 << 13, 1 << 14)
    for op, flags, cycles in (
        (RowsOp.AFFINE, 0, 128),
        (RowsOp.AFFINE, TABLE, 144),
        (RowsOp.SOFTMAX, DEFER, 128),
        (RowsOp.SOFTMAX, 0, 256),
        (RowsOp.NORMALIZE, 0, 256),
        (RowsOp.QUANTIZE, 0, 128),
    ):
        strides = {"in_z_stride": 0, "in_y_stride": 256, "out_y_stride": 256, "out_z_stride": 0}
        body = plain(op, flags=flags, **shape, **strides, scale_y_stride=4)
        assert run(body, operand, np.zeros(TOP, np.uint8)).busy == 4 * cycles
