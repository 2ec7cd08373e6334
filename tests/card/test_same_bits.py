"""A GEMM has the same bits however it is worked through.

Tiles, the order of rows, roles of the operands, encodings, slices of K and the size of the card are
drawn at random; the results must be those of the golden model, which knows of none of them.
"""

import contextlib
import dataclasses

import numpy as np
import pytest

from deepseek.host.bench.gemm import compare
from deepseek.host.bench.golden import expected
from deepseek.host.bench.job import DTYPES, OUT_DTYPES, PATTERNS, GemmJob, Operands
from deepseek.host.card import Card
from deepseek.host.compiler import gemm
from deepseek.host.compiler.gemm import plan_gemm
from deepseek.rtl.config import PRESETS, CardConfig, preset
from deepseek.rtl.isa import Encoding, Format, array_mode

PRODUCTS = 12
WAYS = 6
RTL_PRODUCTS = 3


def draw_job(rng: np.random.Generator, longest: int) -> GemmJob:
    while True:
        a, b = (str(rng.choice(list(DTYPES))) for _ in range(2))
        b = a if rng.random() < 0.6 else b
        if array_mode(DTYPES[a], DTYPES[b]) is not None:
            break
    out = [name for name in OUT_DTYPES if name != "int32" or {a, b} <= {"int4", "int8"}]
    out_dtype = str(rng.choice(out))
    scaled = out_dtype != "int32" and rng.random() < 0.25
    return GemmJob(
        m=int(rng.integers(1, 60)),
        n=int(rng.integers(1, 60)),
        k=int(np.exp(rng.uniform(0, np.log(longest)))),
        dtype=a,
        resident_dtype=b,
        out_dtype=out_dtype,
        encoding=str(rng.choice(["dense", *PATTERNS])),
        block_scale=16 * int(rng.integers(1, 5)) if scaled else None,
        seed=int(rng.integers(1 << 30)),
    )


def draw_config(rng: np.random.Generator) -> CardConfig:
    """A preset, or one with other sizes."""
    config = preset(str(rng.choice(list(PRESETS))))
    if rng.random() < 0.5:
        return config
    return dataclasses.replace(
        config,
        name="drawn",
        rows=config.stream_ports * int(rng.choice([2, 4])),
        cols=int(rng.choice([2, 4, 8])),
        operand_depth=int(rng.choice([64, 128, 512, 1024])),
        partial_beats=int(rng.choice([256, 512])),
        scratchpad_bytes=config.scratchpad_bytes << 1,
    )


def fitting(array: np.ndarray) -> list[Encoding]:
    """The encodings in which an array [rows, K] can be sent."""
    filled = np.pad(array.astype(np.float32) != 0, ((0, 0), (0, -array.shape[1] % 8)))
    found = [Encoding.DENSE, Encoding.DELTA]
    for encoding, (most, group) in zip(
        (Encoding.SPARSE_2_4, Encoding.SPARSE_1_4, Encoding.SPARSE_1_8),
        PATTERNS.values(),
        strict=True,
    ):
        if filled.reshape(len(filled), -1, group).sum(2).max() <= most:
            found.append(encoding)
    return found


@contextlib.contextmanager
def drawn_tiles(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator):
    """Let plans take any tiling that fits, not the best, and any slice of compressed K."""

    whole = gemm.tilings

    def shuffled(problem):
        found = whole(problem)
        return [found[i] for i in rng.permutation(len(found))]

    with monkeypatch.context() as patch:
        patch.setattr(gemm, "tilings", shuffled)
        patch.setattr(gemm, "SPARSE_SLICE", 16 * int(rng.integers(1, 33)))
        yield


def run(card: Card, job: GemmJob, operands: Operands, rng: np.random.Generator) -> str:
    """Run a product some way; return it [M, N], and which way it was."""
    streams = ["a"] if job.out_format is Format.INT4 or job.block_scale else ["a", "b"]
    stream = str(rng.choice(streams))
    sent = operands.a if stream == "a" else operands.x
    encoding = Encoding(int(rng.choice([e.value for e in fitting(sent)])))
    a_order, x_order = rng.permutation(job.m), rng.permutation(job.n)
    a, x = operands.a[a_order], operands.x[x_order]
    plan = plan_gemm(
        card.config,
        a,
        x,
        out_format=job.out_format,
        scale=operands.scale if job.block_scale is None else operands.scale[a_order],
        block=job.block_scale,
        anchor=job.anchor,
        encoding=encoding,
        stream=stream,
        memory=card.memory_speed,
    )
    way = f"{stream}, {encoding.name}, slices of {plan.problem.slice}, {plan.tiling}"
    with contextlib.ExitStack() as stack:
        buffers = []
        for nbytes in (plan.a_bytes, plan.b_bytes, plan.c_bytes):
            buffers.append(card.allocate(nbytes))
            stack.callback(card.free, buffers[-1])
        card.write(buffers[0], plan.pack_a(a))
        card.write(buffers[1], plan.pack_b(x))
        card.submit(plan.commands(*(buffer.address for buffer in buffers))).wait()
        result = plan.unpack_c(card.read(buffers[2]))
    c = np.empty_like(result)
    c[np.ix_(a_order, x_order)] = result
    compare(c, expected(job, operands))
    return way


@pytest.mark.parametrize("part", range(4))
def test_on_many_cards(rng, times, monkeypatch, part):
    ways = set()
    for _ in range(PRODUCTS * times // 4):
        job = draw_job(rng, 1500)
        operands = job.operands()
        for _ in range(WAYS):
            config = draw_config(rng)
            print(job, job.zeros, config)
            with Card.open("functional", preset=config) as card, drawn_tiles(monkeypatch, rng):
                ways.add(run(card, job, operands, rng))
    assert len(ways) > PRODUCTS * times // 4


def test_on_the_rtl(rng, times, monkeypatch):
    with Card.open("rtl", preset="tiny") as card:
        for _ in range(RTL_PRODUCTS * times):
            job = draw_job(rng, 300)
            operands = job.operands()
            for _ in range(3):
                with drawn_tiles(monkeypatch, rng):
                    print(job, job.zeros, run(card, job, operands, rng))
