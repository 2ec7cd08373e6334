"""Stream blobs against a decoder that goes through the bytes one entry at a time."""

import struct

import numpy as np
import pytest

from deepseek.host.compiler.streams import count_entries, deal, encode_blob
from deepseek.rtl.config import preset


def decode(blob, rows_of_card, k, dtype):
    """Return (out_offset, bias, scale, weights[K], entries) of every directory entry."""
    raw = blob.data.tobytes()
    size = np.dtype(dtype).itemsize
    found = []
    for number in range(blob.visits * rows_of_card):
        stream, count, offset, bias, scale = struct.unpack_from("<HHIIf", raw, 16 * number)
        if not count:
            found.append(None)
            continue
        row = np.zeros(k, dtype)
        at = -1
        lanes = {1: 8, 2: 5}[size] if blob.sparse else 16 // size
        for entry in range(count):
            granule = raw[16 * (stream + entry // lanes) :][:16]
            lane = entry % lanes
            value = np.frombuffer(granule, dtype, 1, lane * size)[0]
            at += 1 + (granule[lanes * size + lane] if blob.sparse else 0)
            assert at < k
            assert not row[at]
            row[at] = value
        found.append((offset, bias, scale, row, count))
    return found


@pytest.mark.parametrize("name", ["tiny", "ecp5", "sim"])
@pytest.mark.parametrize("dtype", [np.int8, np.float16])
@pytest.mark.parametrize("sparse", [False, True])
def test_round_trip(name, dtype, sparse):
    config = preset(name)
    random = np.random.default_rng(11)
    for rows, k, density in [
        (1, 1, 1.0),
        (3, 15, 0.5),
        (17, 16, 1.0),
        (40, 33, 0.0),
        (33, 257, 0.01),
        (9, 700, 0.002),
        (70, 256, 0.1),
        (5, 1024, 0.9),
        (6, 1024, 0.001),
    ]:
        weights = random.integers(-128, 128, (rows, k)).astype(dtype)
        weights[random.random((rows, k)) >= density] = 0
        if sparse and k > 600:
            weights[0] = 0
            weights[0, [0, 256, 512, k - 1]] = 1
            weights[1] = 0
            weights[1, k - 1] = -5
        bias = random.integers(-(2**31), 2**31, rows)
        if dtype == np.float16:
            bias = bias.astype(np.float32)
        scale = random.uniform(0.1, 2, rows).astype(np.float32)
        offset = 48 * random.permutation(rows)
        blob = encode_blob(
            config, weights, sparse=sparse, bias=bias, scale=scale, out_offset=offset
        )
        entries = [e for e in decode(blob, config.rows, k, dtype) if e is not None]
        assert sorted(e[0] for e in entries) == sorted(offset)
        row_of = {int(o): r for r, o in enumerate(offset)}
        for out_offset, bias_bits, found_scale, row, count in entries:
            r = row_of[out_offset]
            expected = bias[r : r + 1].astype(np.int32 if dtype == np.int8 else np.float32)
            assert bias_bits == expected.view(np.uint32)[0]
            assert found_scale == scale[r]
            assert np.array_equal(row, weights[r])
            assert count == blob.counts[r] == (count if sparse else k)
        assert len(blob.data) % 16 == 0


def test_entries_of_gaps():
    row = np.zeros((6, 1024), np.int8)
    row[0, 255] = 1  # the longest gap without an escape
    row[1, 256] = 1  # one escape
    row[2, [0, 257]] = 1  # 256 zeros between: one escape
    row[3, [0, 256]] = 1  # 255 zeros between: none
    row[4, 1023] = 1
    assert count_entries(row, sparse=True).tolist() == [1, 2, 3, 2, 4, 1]
    assert count_entries(row, sparse=False).tolist() == [1024] * 6


def test_negative_zero_is_a_zero():
    weights = np.array([[-0.0, 2.0, -0.0]], np.float16)
    assert count_entries(weights, sparse=True).tolist() == [1]


def test_dealing_balances():
    random = np.random.default_rng(2)
    counts = random.integers(0, 200, 320)
    hands = deal(counts, 8, min_visit=16, sparse=True)
    work = [np.maximum(counts[hand], 16).sum() for hand in hands]
    assert sorted(np.concatenate(hands)) == list(range(320))
    assert max(work) - min(work) <= 16
    assert [h.tolist() for h in deal([9] * 5, 2, min_visit=1, sparse=False)] == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((2, 3), np.int16)}, "weights must be int8 or float16, not 'int16'"),
        ({"weights": np.zeros((0, 3), np.int8)}, "shape"),
        ({"weights": np.zeros((2, 1025), np.int8)}, "K must be at most 1024 .*tiny.* not 1025"),
        ({"weights": np.ones((1500, 1024), np.int8)}, "at most 1048576 bytes"),
        ({"scale": 0.0}, "scale must be finite and normal"),
        ({"scale": 1e-40}, "scale must be finite and normal"),
        ({"bias": 1 << 31}, "bias must be int32"),
        ({"bias": np.zeros(3)}, r"bias must be a number or have the shape \[2\]"),
        ({"out_offset": -1}, "out_offset must be uint32"),
    ],
)
def test_mistakes_are_named(change, message):
    arguments = {"weights": np.ones((2, 3), np.int8), "out_offset": 0} | change
    with pytest.raises(ValueError, match=message):
        encode_blob(preset("tiny"), arguments.pop("weights"), **arguments)
