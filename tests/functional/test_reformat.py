"""One iteration of REFORMAT, against loops over single numbers written from ``rtl/isa/``."""

import ml_dtypes
import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import BITS, Command, Format, Opcode, ReformatBody, ReformatOp, Status
from deepseek.sim.functional.checks import Fault
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.random_jobs import RandomJobs
from deepseek.sim.functional.reformat import FORMATS
from deepseek.sim.functional.units import execute

CONFIG = preset("tiny")
TOP = CONFIG.scratchpad_bytes
IN, OUT, INDEX = 0x1000, 0x5000, 0xC000


def run(body, operand, scratchpad):
    return execute(
        Opcode.REFORMAT,
        body,
        operand,
        memory=np.zeros(16, np.uint8),
        scratchpad=scratchpad,
        config=CONFIG,
    )


def plain(op, fmt, **changes):
    body = {"op": op.value, "in_format": fmt.value, "rows": 5, "length": 37, "batch": 2}
    body |= {"in_stride": 160, "in_batch_stride": -1600, "out_stride": 352}
    body |= {"out_batch_stride": 38 * 352, "index_stride": 64, "index_batch_stride": 512}
    return body | changes


def noise(seed):
    scratchpad = np.frombuffer(np.random.default_rng(seed).bytes(TOP), np.uint8).copy()
    scratchpad[np.random.default_rng(seed).random(TOP) < 0.4] = 0
    return scratchpad


def rows_of(body):
    """Yield block and row, and where the row lies, its results go and what tells of it lies."""
    for z, y in np.ndindex(body["batch"], body["rows"]):
        yield (
            (z, y),
            IN + z * body["in_batch_stride"] + y * body["in_stride"],
            OUT + z * body["out_batch_stride"] + y * body["out_stride"],
            INDEX + z * body["index_batch_stride"] + y * body["index_stride"],
        )


@pytest.mark.parametrize("fmt", FORMATS[ReformatOp.TRANSPOSE])
def test_transpose(fmt):
    body = plain(ReformatOp.TRANSPOSE, fmt, in_batch_stride=1600, out_stride=48)
    size = BITS[fmt] // 8
    body |= {"rows": 9, "out_batch_stride": 38 * 48}
    before = noise(fmt.value)
    got, want = before.copy(), before.copy()
    run(body, (3, IN, OUT), got)
    for z, x in np.ndindex(body["batch"], body["length"]):
        at = OUT + z * body["out_batch_stride"] + x * 48
        want[at : at + -(-9 * size // 16) * 16] = 0
        for y in range(9):
            source = IN + z * 1600 + y * 160 + x * size
            want[at + y * size : at + (y + 1) * size] = before[source : source + size]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fmt", FORMATS[ReformatOp.COMPRESS])
def test_compress(fmt):
    body = plain(ReformatOp.COMPRESS, fmt, length=75, index_stride=6, in_batch_stride=1600)
    size = BITS[fmt] // 8
    before = noise(fmt.value)
    got, want = before.copy(), before.copy()
    run(body, (INDEX, IN, OUT), got)
    per_granule = 8 if size == 1 else 5
    for _, source, out, index in rows_of(body):
        entries, last = [], -1
        for x in range(75):
            number = int.from_bytes(before[source + x * size : source + (x + 1) * size], "little")
            top = 0 if fmt is Format.INT8 else 1 << 8 * size - 1
            if number & ~top:
                entries.append((number, x - last - 1))
                last = x
        entries = entries or [(0, 0)]
        for start in range(0, len(entries), per_granule):
            part = entries[start : start + per_granule]
            values = b"".join(number.to_bytes(size, "little") for number, _ in part)
            values += bytes(size * (per_granule - len(part)))
            granule = (values + bytes(delta for _, delta in part)).ljust(16, b"\0")
            want[out : out + 16] = np.frombuffer(granule, np.uint8)
            out += 16
        want[index : index + 2] = len(entries), 0
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fmt", FORMATS[ReformatOp.EXPAND])
def test_expand(fmt):
    types = {Format.E4M3: ml_dtypes.float8_e4m3fn, Format.E5M2: ml_dtypes.float8_e5m2}
    body = plain(ReformatOp.EXPAND, fmt, in_batch_stride=1600)
    before = noise(fmt.value)
    got, want = before.copy(), before.copy()
    run(body, (INDEX, IN, OUT), got)
    for _, source, out, index in rows_of(body):
        want[out : out + 80] = 0
        for x in range(37):
            raw = before[source + x * BITS[fmt] // 8]
            if fmt is Format.E2M1:
                nibble = raw >> 4 if x % 2 else raw & 15
                value = float(nibble.view(ml_dtypes.float4_e2m1fn))
            elif fmt is Format.INT8:
                value = int(raw.view(np.int8)) / 64
            else:
                value = float(raw.view(types[fmt]))
            scale = before[index + x // 32]
            value = np.float64(value) * (np.nan if scale == 255 else 2.0 ** (int(scale) - 127))
            with np.errstate(over="ignore"):
                bits = value.astype(ml_dtypes.bfloat16).view(np.uint16)
            bits = 0x7FC0 if np.isnan(value) else int(bits)
            want[out + 2 * x : out + 2 * x + 2] = bits & 0xFF, bits >> 8
    np.testing.assert_array_equal(got, want)


def refused(body, operand, status, scratchpad=None):
    with pytest.raises(Fault) as fault:
        run(body, operand, np.zeros(TOP, np.uint8) if scratchpad is None else scratchpad)
    assert fault.value.status is status


@pytest.mark.parametrize("op", ReformatOp)
def test_refuses(op):
    fine = plain(op, Format.INT8, rows=3, length=16, in_batch_stride=1600)
    where = (INDEX, IN, OUT)
    run(fine, where, np.zeros(TOP, np.uint8))
    for name in ("rows", "length", "batch"):
        refused(fine | {name: 0, "op": 9}, where, Status.BAD_LENGTH)
    refused(fine | {"op": 3, "in_stride": 8}, where, Status.BAD_FORMAT)
    for fmt in Format:
        if fmt not in FORMATS[op]:
            refused(fine | {"in_format": fmt.value, "in_stride": 8}, where, Status.BAD_FORMAT)
    refused(fine | {"in_format": 9}, where, Status.BAD_FORMAT)
    for name in ("in_stride", "in_batch_stride", "out_stride", "out_batch_stride"):
        refused(fine | {name: 8}, (INDEX, TOP, OUT), Status.BAD_ALIGNMENT)
    refused(fine, (INDEX, IN + 4, OUT), Status.BAD_ALIGNMENT)
    refused(fine, (INDEX, IN, OUT + 8), Status.BAD_ALIGNMENT)
    for change, operand in (
        ({}, (INDEX, TOP - 16, OUT)),
        ({}, (INDEX, IN, TOP - 16)),
        ({"in_batch_stride": -(1 << 16)}, where),
        ({"out_stride": 1 << 30}, where),
    ):
        refused(fine | change, operand, Status.BAD_ADDRESS)
    unit = {ReformatOp.COMPRESS: 2, ReformatOp.EXPAND: 16}.get(op)
    if unit is None:
        run(fine | {"index_stride": 1, "index_batch_stride": 3}, (TOP + 1, IN, OUT), noise(0))
        return
    for name in ("index_stride", "index_batch_stride"):
        refused(fine | {name: unit // 2}, where, Status.BAD_ALIGNMENT)
    refused(fine, (INDEX + unit // 2, IN, OUT), Status.BAD_ALIGNMENT)
    refused(fine, (TOP, IN, OUT), Status.BAD_ADDRESS)
    refused(fine | {"index_batch_stride": -(1 << 20)}, where, Status.BAD_ADDRESS)


def test_streams_must_end_inside():
    body = plain(ReformatOp.COMPRESS, Format.INT8, rows=1, length=16, batch=1)
    scratchpad = np.ones(TOP, np.uint8)
    refused(body, (INDEX, IN, TOP - 16), Status.BAD_ADDRESS, scratchpad)
    scratchpad[IN : IN + 8] = 0
    run(body, (INDEX, IN, TOP - 16), scratchpad)


def test_modelled_cycles():
    scratchpad = np.zeros(TOP, np.uint8)
    scratchpad[IN : IN + 3] = 1
    shape = {"rows": 1, "length": 40, "batch": 1}
    for op, cycles in (
        (ReformatOp.TRANSPOSE, 48),
        (ReformatOp.COMPRESS, 5),
        (ReformatOp.EXPAND, 5),
    ):
        assert run(plain(op, Format.INT8, **shape), (INDEX, IN, OUT), scratchpad).busy == cycles


def test_random_jobs_have_every_operation_and_format():
    jobs = RandomJobs(CONFIG, np.random.default_rng(1), base=1 << 22, nbytes=1 << 23)
    seen, many = set(), 0
    for _ in range(60):
        for raw in jobs.job(8).commands:
            command = unpack(Command, raw)
            if command["opcode"] == Opcode.REFORMAT.value:
                body = unpack(ReformatBody, command["body"])
                seen.add((ReformatOp(body["op"]), Format(body["in_format"])))
                many += command["inner"] > 1 and body["batch"] > 1 and body["rows"] > 1
    assert seen == {(op, fmt) for op, formats in FORMATS.items() for fmt in formats}
    assert many > 5
