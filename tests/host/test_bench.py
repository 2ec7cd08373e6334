"""Benchmarks' jobs, and the sweep's rows."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from deepseek.host import bench
from deepseek.host.bench.golden import expected
from deepseek.host.bench.job import DTYPES, ENCODINGS, OUT_DTYPES, PATTERNS, GemmJob
from deepseek.host.bench.networks import NETWORKS
from deepseek.host.bench.peers import PEERS
from deepseek.host.bench.sparse import DENSITIES, sparse_jobs
from deepseek.host.bench.sweep import KINDS, ROWS, chosen_rows
from deepseek.rtl.isa import Format

PAIRS = [pair for pair in itertools.product(DTYPES, repeat=2) if set(pair) != {"fp16", "bf16"}]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("stream", ["a", "b"])
@pytest.mark.parametrize("block_scale", [None, 16])
def test_golden_results_are_those_of_float64(pair, stream, block_scale):
    job = GemmJob(
        m=5,
        n=6,
        k=70,
        dtype=pair[0],
        resident_dtype=pair[1],
        out_dtype="fp32",
        stream=stream,
        block_scale=block_scale,
    )
    operands = job.operands()
    a, x = operands.a.astype(np.float64), operands.x.astype(np.float64)
    scale = np.broadcast_to(operands.scale, (6 if stream == "b" else 5, job.blocks))
    wanted = np.zeros((5, 6))
    for block in range(job.blocks):
        part = slice(16 * block, 16 * (block + 1)) if block_scale else slice(None)
        factor = scale[:, block] if stream == "b" else scale[:, block, np.newaxis]
        wanted += a[:, part] @ x[:, part].T * factor
    found = expected(job, operands).view(np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OUT_DTYPES)
@pytest.mark.parametrize("density", [None, 0.1])
def test_results_use_the_output_range_and_stay_in_it(name, density):
    job = GemmJob(m=40, n=40, k=400, dtype="int8", out_dtype=name, density=density)
    result = expected(job, job.operands())
    if job.out_format in (Format.INT8, Format.INT4):
        limit = 1 << (7 if job.out_format is Format.INT8 else 3)
        assert np.mean((result == limit - 1) | (result == -limit)) < 0.12
    assert len(np.unique(result)) > 10


def test_zeros_are_where_they_should_be():
    shape = {"m": 64, "n": 8, "k": 320}
    assert np.count_nonzero(GemmJob(**shape).operands().a) == 64 * 320
    a = GemmJob(**shape, density=0.1).operands().a
    assert np.count_nonzero(a) / a.size == pytest.approx(0.1, abs=0.01)
    for name, (kept, group) in PATTERNS.items():
        a = GemmJob(**shape, dtype="fp16", encoding=name).operands().a
        assert set(np.count_nonzero(a.reshape(64, -1, group), axis=2).flat) == {kept}
    even = np.count_nonzero(GemmJob(**shape, density=0.2).operands().a, axis=1)
    skewed = np.count_nonzero(GemmJob(**shape, density=0.2, skew=0.6).operands().a, axis=1)
    assert skewed.mean() == pytest.approx(even.mean(), rel=0.25)
    assert skewed.std() > 3 * even.std()


def test_the_same_seed_gives_the_same_numbers():
    job = GemmJob(m=9, n=8, k=33, dtype="bf16", density=0.5, seed=7)
    first, again = job.operands(), job.operands()
    assert first.a.tobytes() == again.a.tobytes()
    assert first.x.tobytes() == again.x.tobytes()
    other = dataclasses.replace(job, seed=8).operands()
    assert other.a.tobytes() != first.a.tobytes()


def test_options_name_what_is_not_the_default():
    assert GemmJob(m=1, n=2, k=3).options() == "--m 1 --n 2 --k 3 --dtype int8".split()
    job = GemmJob(m=1, n=2, k=64, resident_dtype="int4", block_scale=16, stream="b")
    assert job.options()[8:] == "--resident-dtype int4 --block-scale 16 --stream b".split()


def test_sparse_jobs_have_every_kind_of_zeros():
    jobs = list(sparse_jobs(64, 64, 64, dtypes=("int8", "fp16")))
    assert len(jobs) == 2 * (len(DENSITIES) + len(PATTERNS) + 2)
    assert {job.encoding for job in jobs} == {"auto", *PATTERNS}
    assert all(job.sparse for job in jobs)
    assert sum(job.skew > 0 for job in jobs) == 4


def test_the_sweep_has_the_published_rows():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert set(PEERS) <= {*names, *NETWORKS, "attention", "latency"}
    assert {row.kind for row in ROWS} == set(KINDS)
    for row in ROWS:
        assert row.target("ecp5") >= row.target("sim") or row.kind == "bandwidth"
        assert row.target("tiny") is None
        assert (row.base is not None) == (row.kind == "ratio")
    assert [row.name for row in chosen_rows(["384", "gemv"])] == [
        "fp16-384",
        "gemv-1x256x256",
        "gemv-1x4096x4096",
    ]
    with pytest.raises(ValueError, match="no row 'bert'; choose one of: fp16-64, fp16-128"):
        chosen_rows(["bert"])


def test_compare_names_the_first_difference():
    wanted = np.zeros((3, 4), np.uint16)
    bench.compare(np.zeros((3, 4), np.float16), wanted)
    actual = np.zeros((3, 4), np.float16)
    actual[1, 2], actual[2, 0] = 1, 2
    with pytest.raises(bench.MismatchError, match=r"2 of 12 results, first in C\[1, 2\]: 0x3c00 "):
        bench.compare(actual, wanted)


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (4, 7), (8, 4), (32,), (0, 8)])
def test_compare_wants_the_same_shape(shape):
    """One number is no result of 32, though NumPy would compare it with each."""
    message = f"C has the shape {shape} instead of (4, 8); no figure is given"
    with pytest.raises(bench.MismatchError, match=re.escape(message)):
        bench.compare(np.zeros(shape, np.int8), np.zeros((4, 8), np.int8))


def test_encodings_have_names():
    assert list(ENCODINGS) == ["auto", "dense", "delta", "2:4", "1:4", "1:8"]
