"""What MATMUL refuses, status by status, and what it just accepts."""

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import Encoding, Format, MatmulFlag, Opcode, Status
from deepseek.sim.functional.assemble import blob
from deepseek.sim.functional.checks import Fault
from deepseek.sim.functional.testing import matmul_body
from deepseek.sim.functional.units import execute

CONFIG = preset("tiny")
TOP = CONFIG.scratchpad_bytes
MOST = CONFIG.rows * CONFIG.partial_rows


def run(body, operand, scratchpad):
    memory = np.zeros(16, np.uint8)
    return execute(
        Opcode.MATMUL, body, operand, memory=memory, scratchpad=scratchpad, config=CONFIG
    )


def good_matmul(**fields):
    """A MATMUL without a fault: FP16, 2 rows, K 8 in runs of 4, 6 columns."""
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(2, 8)).astype(np.float16).view(np.uint16)
    raw = blob(weights, fmt=Format.FP16, out_offset=[0, 64], encoding=Encoding.DELTA)
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    scratchpad[: len(raw)] = np.frombuffer(raw, np.uint8)
    body = matmul_body(
        k=8,
        n=6,
        n_inner=4,
        entries=2,
        run_bytes=8,
        runs_inner=2,
        slice=8,
        x_run_stride=16,
        x_inner_stride=2,
        x_outer_stride=32,
        out_inner_stride=4,
        out_outer_stride=16,
        stream_format=Format.FP16,
        encoding=Encoding.DELTA,
        in_format=Format.FP16,
        out_format=Format.FP32,
    )
    return body | fields, [0, 1024, 2048], scratchpad


def refused(body, operand, scratchpad):
    """The status with which an iteration is refused, or OK."""
    try:
        run(body, operand, scratchpad)
    except Fault as fault:
        return fault.status
    return Status.OK


INT4 = {"stream_format": Format.INT4.value, "in_format": Format.INT4.value}
BF16 = {"stream_format": Format.BF16.value, "in_format": Format.BF16.value}
SCALED = MatmulFlag.BLOCK_SCALE.value

BAD_COMMANDS = [
    *(
        ({name: 0}, {}, Status.BAD_LENGTH)
        for name in ("k", "n", "n_inner", "entries", "run_bytes", "runs_inner", "slice")
    ),
    ({"k": 32772}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 6}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 32}, {}, Status.BAD_LENGTH),
    ({"run_bytes": 32, "out_format": 9}, {}, Status.BAD_LENGTH),
    ({**INT4, "k": 9, "run_bytes": 5}, {}, Status.BAD_LENGTH),
    ({"k": 1028, "slice": 1028, "entries": 5}, {}, Status.BAD_LENGTH),
    ({"k": 1040, "slice": 1040, "entries": 5}, {}, Status.BAD_LENGTH),
    ({"k": 2048, "slice": 1040, "entries": 5}, {}, Status.BAD_LENGTH),
    ({"k": 32, "slice": 8}, {}, Status.BAD_LENGTH),
    ({"k": 32, "slice": 31}, {}, Status.BAD_LENGTH),
    ({"k": 32, "slice": 16, "entries": MOST + 1}, {}, Status.BAD_LENGTH),
    (
        {**INT4, "k": 32, "slice": 16, "entries": MOST // 2 + 1, "flags": SCALED},
        {},
        Status.BAD_LENGTH,
    ),
    ({"in_format": 2}, {}, Status.BAD_FORMAT),
    ({"in_format": 2, "run_bytes": 7}, {}, Status.BAD_FORMAT),
    ({"in_format": 9}, {}, Status.BAD_FORMAT),
    ({"stream_format": 3}, {}, Status.BAD_FORMAT),
    ({"stream_format": Format.BF16.value}, {}, Status.BAD_FORMAT),
    ({"out_format": 8}, {}, Status.BAD_FORMAT),
    ({"out_format": Format.INT32.value}, {}, Status.BAD_FORMAT),
    (
        {**INT4, "run_bytes": 4, "out_format": Format.INT32.value, "flags": SCALED},
        {},
        Status.BAD_FORMAT,
    ),
    ({"encoding": 5}, {}, Status.BAD_FORMAT),
    ({"flags": 4}, {}, Status.BAD_FORMAT),
    ({"function": 2}, {}, Status.BAD_FORMAT),
    ({"anchor": 1}, {}, Status.BAD_FORMAT),
    ({**BF16, "anchor": 33}, {}, Status.BAD_FORMAT),
    ({**BF16, "anchor": -127}, {}, Status.BAD_FORMAT),
    ({"out_format": Format.INT4.value, "n_inner": 5}, {}, Status.BAD_FORMAT),
    ({"flags": 5}, {0: 8}, Status.BAD_FORMAT),
    ({}, {0: 8}, Status.BAD_ALIGNMENT),
    ({}, {1: 1025}, Status.BAD_ALIGNMENT),
    *(
        ({f"x_{name}_stride": 3}, {}, Status.BAD_ALIGNMENT)
        for name in ("run", "run_outer", "inner", "outer")
    ),
    ({"k": 3, "run_bytes": 3, "slice": 3}, {}, Status.BAD_ALIGNMENT),
    ({}, {2: 2050}, Status.BAD_ALIGNMENT),
    ({"out_inner_stride": 2}, {}, Status.BAD_ALIGNMENT),
    ({"out_outer_stride": 2, "n": 1}, {}, Status.BAD_ALIGNMENT),
    ({}, {0: TOP}, Status.BAD_ADDRESS),
    ({}, {0: TOP - 16}, Status.BAD_ADDRESS),
    ({"entries": 65535}, {}, Status.BAD_ADDRESS),
    ({}, {1: TOP - 56}, Status.BAD_ADDRESS),
    ({"x_outer_stride": -1026}, {}, Status.BAD_ADDRESS),
    ({"x_run_stride": 1 << 30}, {}, Status.BAD_ADDRESS),
    ({"x_run_stride": -1026}, {}, Status.BAD_ADDRESS),
    ({"runs_inner": 1, "x_run_outer_stride": -1026}, {}, Status.BAD_ADDRESS),
    ({}, {2: TOP - 84}, Status.BAD_ADDRESS),
    ({"out_outer_stride": -2064}, {2: 2060}, Status.BAD_ADDRESS),
]


@pytest.mark.parametrize("change, operands, status", BAD_COMMANDS)
def test_refused_commands(change, operands, status):
    body, operand, scratchpad = good_matmul(**change)
    for index, value in operands.items():
        operand[index] = value
    assert refused(body, operand, scratchpad) is status


@pytest.mark.parametrize(
    "patch, status",
    [
        ({4: b"\x02"}, Status.BAD_ALIGNMENT),
        ({16 + 4: b"\x01", 7: b"\xff"}, Status.BAD_ALIGNMENT),
        ({7: b"\xff"}, Status.BAD_ADDRESS),
        ({0: b"\xff\xff"}, Status.BAD_ADDRESS),
        ({0: b"\xff\xff", 14: bytes(2)}, Status.BAD_ADDRESS),
        *(
            ({12: scale.to_bytes(4, "little")}, Status.BAD_SCALE)
            for scale in (0, 1 << 31, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000)
        ),
        ({14: bytes(2), 32 + 10: b"\xff"}, Status.BAD_SCALE),
        ({32 + 10: b"\xff"}, Status.BAD_INDEX),
        ({2: bytes(2), 4: b"\xff", 12: bytes(4)}, Status.OK),  # an empty row
    ],
)
def test_refused_entries(patch, status):
    body, operand, scratchpad = good_matmul()
    for address, raw in patch.items():
        scratchpad[address : address + len(raw)] = np.frombuffer(raw, np.uint8)
    assert refused(body, operand, scratchpad) is status


def test_last_bytes_are_accepted():
    body, _, scratchpad = good_matmul()
    x_end = 32 + 2 + 16 + 8  # the last outer step has two columns, the full one four
    out_end = 64 + 16 + 4 + 4
    run(body, (0, TOP - x_end, 2048), scratchpad)
    run(body, (0, 1024, TOP - out_end), scratchpad)
    for operand in ((0, TOP - x_end + 2, 2048), (0, 1024, TOP - out_end + 4)):
        assert refused(body, operand, scratchpad) is Status.BAD_ADDRESS


def sliced(encoding, weights, length, fmt=Format.INT8, **fields):
    """An iteration of INT8 weights [M, K] in slices, for one column."""
    m, k = weights.shape
    raw = blob(weights, fmt=fmt, encoding=encoding, slice=length, out_offset=np.arange(m) * 4)
    scratchpad = np.zeros(CONFIG.scratchpad_bytes, np.uint8)
    scratchpad[: len(raw)] = np.frombuffer(raw, np.uint8)
    body = matmul_body(k=k, n=1, n_inner=1, entries=m, run_bytes=k, runs_inner=1, slice=length)
    body |= {"stream_format": fmt.value, "encoding": encoding.value}
    body |= {"out_format": Format.INT32.value, **fields}
    return body, (0, 40000, 60000), scratchpad


def test_longest_slices():
    """K beyond the ring in one slice, for as many rows as there are engines."""
    weights = np.zeros((5, 2048), np.int8)
    weights[:, 5] = 1
    for rows, length, status in (
        (4, 2048, Status.OK),
        (4, 1040, Status.OK),
        (5, 1024, Status.OK),
        (5, 1040, Status.BAD_LENGTH),
    ):
        assert refused(*sliced(Encoding.DELTA, weights[:rows], length)) is status
    assert refused(*sliced(Encoding.DELTA, weights[:, :1024], 65535)) is Status.OK


def test_as_many_rows_as_partial_sums():
    weights = np.ones((MOST, 32), np.int8)
    body, operand, scratchpad = sliced(Encoding.SPARSE_1_8, np.where(weights, 0, 0), 16)
    assert refused(body, operand, scratchpad) is Status.OK
    body, operand, scratchpad = sliced(
        Encoding.SPARSE_1_8,
        np.zeros((MOST // 2, 32), np.int8),
        16,
        fmt=Format.INT4,
        **INT4,
        run_bytes=16,
        flags=SCALED,
        out_format=Format.INT8.value,
    )
    assert refused(body, operand, scratchpad) is Status.OK


def test_every_slice_has_its_own_length():
    """A count or an index is compared with the slice's length, not with K."""
    weights = np.zeros((1, 40), np.int8)
    weights[0, [3, 20, 39]] = 1
    assert refused(*sliced(Encoding.DENSE, weights, 16)) is Status.OK
    for entry, count in ((0, 15), (1, 17), (2, 16), (2, 7)):
        body, operand, scratchpad = sliced(Encoding.DENSE, weights, 16)
        scratchpad[16 * entry + 2] = count
        assert refused(body, operand, scratchpad) is Status.BAD_INDEX
    for entry, delta, status in ((0, 15, Status.OK), (0, 16, Status.BAD_INDEX)):
        body, operand, scratchpad = sliced(Encoding.DELTA, weights, 16)
        scratchpad[48 + 16 * entry + 8] = delta
        assert refused(body, operand, scratchpad) is status
    for delta, status in ((7, Status.OK), (8, Status.BAD_INDEX)):
        body, operand, scratchpad = sliced(Encoding.DELTA, weights, 16)
        scratchpad[48 + 32 + 8] = delta
        assert refused(body, operand, scratchpad) is status


def test_escape_beyond_the_slice_is_refused():
    weights = np.array([[1] + [0] * 299], np.int8)
    for k, status in ((300, Status.OK), (256, Status.BAD_INDEX)):
        body, operand, scratchpad = sliced(Encoding.DELTA, weights[:, :k], k)
        scratchpad[2] = 2  # one more entry: value 0, delta 255, index 256
        scratchpad[16 + 9] = 255
        assert refused(body, operand, scratchpad) is status


def test_places_of_a_group_ascend():
    """2:4, two groups of 4; entries 0 and 1 share the first."""
    weights = np.array([[1, 2, 0, 0, 3, 4, 0, 0]], np.int8)
    for first, second in np.ndindex(4, 4):
        body, operand, scratchpad = sliced(Encoding.SPARSE_2_4, weights, 8)
        assert scratchpad[16 + 12] == 0b0100_0100
        scratchpad[16 + 12] = 0b0100_0000 | second << 2 | first
        want = Status.OK if first < second else Status.BAD_INDEX
        assert refused(body, operand, scratchpad) is want


@pytest.mark.parametrize("encoding, k", [(Encoding.SPARSE_1_4, 6), (Encoding.SPARSE_1_8, 14)])
def test_places_are_inside_the_slice(encoding, k):
    weights = np.zeros((1, k), np.int8)
    weights[0, -1] = 1
    body, operand, scratchpad = sliced(encoding, weights, k)
    assert refused(body, operand, scratchpad) is Status.OK
    group = 4 if encoding is Encoding.SPARSE_1_4 else 8
    bits = 2 if encoding is Encoding.SPARSE_1_4 else 3
    start = 16 + (12 if encoding is Encoding.SPARSE_1_4 else 11)
    assert scratchpad[start] >> bits & (1 << bits) - 1 == (k - 1) % group
    scratchpad[start] += 1 << bits
    assert refused(body, operand, scratchpad) is Status.BAD_INDEX
