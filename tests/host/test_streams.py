"""Stream blobs against a decoder that goes through the bits one entry at a time."""

import struct

import ml_dtypes
import numpy as np
import pytest

from deepseek.host.compiler.formats import DTYPES, pack_rows, raw_bits, unpack_rows
from deepseek.host.compiler.sparsity import PATTERNS, count_entries
from deepseek.host.compiler.streams import best_encoding, deal, encode_blob
from deepseek.rtl.config import preset
from deepseek.rtl.isa import BITS, INPUT_FORMATS, OUTPUT_FORMATS, Encoding, Format

ENTRIES_OF = {4: (32, 10, 20, 20, 18), 8: (16, 8, 12, 12, 11), 16: (8, 5, 7, 7, 6)}


def places_of(encoding, entry, at, place):
    """Return k of an entry from the one before and its delta or place."""
    if encoding is Encoding.DENSE:
        return entry
    if encoding is Encoding.DELTA:
        return at + place + 1
    most, group = PATTERNS[encoding]
    return group * (entry // most) + place


def decode(blob, k):
    """Return, by out_offset, bias, scale and count of each slice, and the row's bits [K]."""
    raw = blob.data.tobytes()
    width = BITS[blob.format]
    lanes = ENTRIES_OF[width][blob.encoding.value]
    digits = {Encoding.DENSE: 0, Encoding.DELTA: 8, Encoding.SPARSE_1_8: 3}.get(blob.encoding, 2)
    slices = -(-k // blob.slice)
    found = {}
    for number in range(slices * blob.entries):
        stream, count, offset, bias, scale = struct.unpack_from("<HHIIf", raw, 16 * number)
        if not count:
            assert not any(raw[16 * number : 16 * number + 16])
            continue
        s = number // blob.entries
        length = min(blob.slice, k - s * blob.slice)
        biases, scales, counts, row = found.setdefault(offset, ([], [], [], [0] * k))
        biases.append(bias)
        scales.append(scale)
        counts.append(count)
        at, last_group, last_place = -1, -1, -1
        for entry in range(count):
            start = 16 * (stream + entry // lanes)
            granule = int.from_bytes(raw[start : start + 16], "little")
            lane = entry % lanes
            value = granule >> lane * width & (1 << width) - 1
            first = -(-lanes * width // 8) * 8
            place = granule >> first + lane * digits & (1 << digits) - 1
            at = places_of(blob.encoding, entry, at, place)
            assert at < length
            if blob.encoding in PATTERNS:
                group = entry // PATTERNS[blob.encoding][0]
                assert group != last_group or place > last_place
                last_group, last_place = group, place
            assert row[s * blob.slice + at] == 0
            row[s * blob.slice + at] = value
    return found


def numbers(random, rows, k, fmt, density, encoding):
    """Random numbers with about so many that are not zero, in the pattern of the encoding."""
    if fmt in (Format.INT4, Format.INT8):
        low = -8 if fmt is Format.INT4 else -128
        weights = random.integers(low, -low, (rows, k)).astype(np.int8)
    else:
        weights = random.standard_normal((rows, k)).astype(np.float32)
    weights[random.random((rows, k)) >= density] = 0
    if encoding in PATTERNS:
        most, group = PATTERNS[encoding]
        for r in range(rows):
            for start in range(0, k, group):
                part = weights[r, start : start + group]
                part[random.permutation(len(part))[most:]] = 0
    return weights.astype(DTYPES[fmt])


@pytest.mark.parametrize("fmt", INPUT_FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("encoding", list(Encoding), ids=lambda e: e.name)
def test_round_trip(fmt, encoding):
    random = np.random.default_rng(11)
    config = preset("tiny")
    for rows, k, density, size in [
        (1, 1, 1.0, None),
        (3, 15, 0.5, None),
        (10, 33, 0.0, 16),
        (9, 257, 0.01, 64),
        (5, 700, 0.002, 608),
        (14, 66, 0.6, 32),
        (3, 1021, 0.9, None),
    ]:
        weights = numbers(random, rows, k, fmt, density, encoding)
        if encoding is Encoding.DELTA and k > 600:
            weights[0] = 0
            weights[0, [0, 256, 512, k - 1]] = 1
            weights[1] = 0
            weights[1, k - 1] = -5
        integer = fmt in (Format.INT4, Format.INT8)
        bias = random.integers(-(2**31), 2**31, rows).astype(np.int32)
        if not integer:
            bias = bias.astype(np.float32)
        slices = -(-k // (size or k))
        scale = random.uniform(0.1, 2, (rows, slices)).astype(np.float32)
        if integer:
            scale = scale[:, 0]
        offset = 48 * random.permutation(rows)
        blob = encode_blob(
            config,
            weights,
            encoding=encoding,
            slice=size,
            block_scale=not integer,
            bias=bias,
            scale=scale,
            out_offset=offset,
            blocks=3,
        )
        found = decode(blob, k)
        assert found.keys() == set(offset.tolist())
        for r, where in enumerate(offset):
            biases, scales, counts, row = found[int(where)]
            assert set(biases) == {int(bias[r : r + 1].view(np.uint32)[0])}
            expected = np.broadcast_to(scale[r], slices)
            assert np.array_equal(np.array(scales, np.float32), expected)
            assert counts == blob.counts[:, r].tolist()
            bits = raw_bits(weights, fmt)[r]
            if encoding is not Encoding.DENSE and not integer:
                bits = np.where(bits << 1 & (1 << BITS[fmt]) - 1, bits, 0)
            assert row == bits.tolist()
        assert len(blob.data) % 16 == 0


def test_int4_may_come_as_int8():
    config = preset("tiny")
    weights = np.arange(-8, 8, dtype=np.int8).reshape(2, 8)
    given = encode_blob(config, weights, format=Format.INT4, out_offset=[0, 4])
    typed = encode_blob(config, weights.astype(ml_dtypes.int4), out_offset=[0, 4])
    assert np.array_equal(given.data, typed.data)
    assert given.format is Format.INT4


def test_entries_of_gaps():
    row = np.zeros((6, 1024), np.bool_)
    row[0, 255] = 1  # the longest gap without an escape
    row[1, 256] = 1  # one escape
    row[2, [0, 257]] = 1  # 256 zeros between: one escape
    row[3, [0, 256]] = 1  # 255 zeros between: none
    row[4, 1023] = 1
    assert count_entries(row, 1024, Encoding.DELTA).tolist() == [[1, 2, 3, 2, 4, 1]]
    assert count_entries(row, 512, Encoding.DELTA).tolist() == [
        [1, 2, 3, 2, 1, 1],
        [1] * 4 + [2, 1],
    ]
    assert count_entries(row, 1024, Encoding.DENSE).tolist() == [[1024] * 6]


def test_negative_zero_is_a_zero():
    weights = np.array([[-0.0, 2.0, -0.0]], np.float16)
    blob = encode_blob(preset("tiny"), weights, encoding=Encoding.DELTA, out_offset=0)
    assert blob.counts.tolist() == [[1]]


@pytest.mark.parametrize("fmt", OUTPUT_FORMATS, ids=lambda f: f.name)
def test_rows_are_packed_and_unpacked(fmt):
    random = np.random.default_rng(1)
    values = random.integers(-8, 8, (5, 13)).astype(DTYPES[fmt])
    image = pack_rows(values, fmt, 64)
    assert image.shape == (5, 64)
    assert np.array_equal(unpack_rows(image, 13, fmt), values)
    number = int.from_bytes(image[2].tobytes(), "little")
    at = BITS[fmt] * 11
    assert number >> at & (1 << BITS[fmt]) - 1 == int(raw_bits(values, fmt)[2, 11])


def walk(dealing, cost, engines, blocks):
    """Busy cycles of each engine, row by row."""
    total = [0] * engines
    at = 0
    for _ in range(blocks):
        for row in dealing.order:
            total[at % engines] += 0 if row < 0 else int(cost[row])
            at += 1
    return total


def test_dealing_balances():
    random = np.random.default_rng(2)
    for rows, engines, blocks in [(320, 8, 1), (37, 8, 64), (9, 4, 5), (3, 16, 7), (64, 16, 2)]:
        cost = random.integers(16, 200, rows)
        dealing = deal(cost, engines, blocks=blocks)
        assert sorted(r for r in dealing.order if r >= 0) == list(range(rows))
        assert dealing.engine_cycles.tolist() == walk(dealing, cost, engines, blocks)
        padded = deal(cost, engines, blocks=blocks, entries=rows + 5)
        assert len(padded.order) == rows + 5
        assert padded.engine_cycles.tolist() == walk(padded, cost, engines, blocks)
    work = deal(cost, 8).engine_cycles
    assert work.max() - work.min() <= 32
    # Dense rows stay in order, and run on over blocks without padding.
    dense = deal(np.full(9, 100), 8, blocks=64)
    assert dense.order.tolist() == list(range(9))
    assert dense.engine_cycles.tolist() == [64 * 9 * 100 // 8] * 8


def test_best_encoding():
    random = np.random.default_rng(3)
    config = preset("ecp5")
    full = random.integers(1, 100, (64, 256)).astype(np.int8)
    assert best_encoding(config, full) is Encoding.DENSE
    for encoding in PATTERNS:
        pattern = numbers(random, 64, 256, Format.INT8, 1.0, encoding)
        assert best_encoding(config, pattern) is encoding
    few = np.where(random.random((64, 256)) < 0.1, full, 0)
    assert best_encoding(config, few) is Encoding.DELTA
    # With few rows the operands' way into the array takes longer than either.
    assert best_encoding(config, few[:4]) is Encoding.DENSE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((2, 3), np.int16)}, "weights must be one of int8, .* not 'int16'"),
        ({"weights": np.zeros((0, 3), np.int8)}, "shape"),
        ({"weights": np.zeros((1, 32769), np.int8)}, "K must be at most 32768, not 32769"),
        ({"weights": np.ones((1500, 1024), np.int8)}, "at most 1048576 bytes"),
        ({"format": Format.INT4, "weights": np.full((2, 3), 8, np.int8)}, "from -8 to 7"),
        ({"format": Format.BF16}, "weights must be BF16, not 'int8'"),
        ({"weights": np.ones((2, 3), np.float16), "resident": Format.BF16}, "no path for FP16"),
        ({"slice": 2}, "slice must be a positive multiple of 16, not 2"),
        ({"encoding": Encoding.SPARSE_2_4}, "at most 2 of 4"),
        ({"scale": 0.0}, "scale must be finite and normal"),
        ({"scale": 1e-40}, "scale must be finite and normal"),
        ({"scale": np.ones((2, 2)), "block_scale": True}, r"scale must have the shape \[2, 1\]"),
        ({"bias": 1 << 31}, "bias must be int32"),
        ({"bias": np.zeros(3)}, r"bias must be a number or have the shape \[2\]"),
        ({"out_offset": -1}, "out_offset must be uint32"),
    ],
)
def test_mistakes_are_named(change, message):
    arguments = {"weights": np.ones((2, 3), np.int8), "out_offset": 0} | change
    with pytest.raises(ValueError, match=message):
        encode_blob(preset("tiny"), arguments.pop("weights"), **arguments)
