"""The checks of MATMUL's start, on random commands with and without faults, against the model's.

Run in Amaranth's simulator: the checks are small, and a command takes few cycles.
"""

import os

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from deepseek.rtl.config import MAX_K, preset
from deepseek.rtl.core.matmul_checks import MatmulChecks
from deepseek.rtl.isa import (
    BITS,
    INPUT_FORMATS,
    MAX_ANCHOR,
    MIN_ANCHOR,
    OUTPUT_FORMATS,
    Encoding,
    Format,
    MatmulBody,
    Mode,
    Status,
)
from deepseek.sim.functional.checks import Fault, check_matmul, matmul_mode

CASES = 500


def good_body(rng, config):
    """Return a command that passes, most often at an edge of some rule."""
    while True:
        stream, resident = rng.choice(INPUT_FORMATS, 2)
        body = {"stream_format": stream.value, "in_format": resident.value}
        mode = matmul_mode(body)
        if mode is not None:
            break
    bits = BITS[resident]
    k = int(rng.choice([16, 48, 1008, 1024, 1040, MAX_K, 16 * int(rng.integers(1, 2048))]))
    numbers = int(
        rng.choice([d for d in (1, 3, 9, 25, k // 64, k // 9, k // 2, k) if d and k % d == 0])
    )
    if k // numbers > 300 or numbers * bits % 8 or numbers * bits // 8 > 0xFFFF:
        numbers = k // 2
    scaled = int(rng.random() < 0.3)
    rows = config.partial_rows // 2 if scaled and mode is Mode.INT4 else config.partial_rows
    most = config.rows * rows
    entries = int(rng.choice([1, config.rows, config.rows + 1, most]))
    limit = min(k, config.operand_depth) if entries > config.rows else k
    length = int(rng.choice([16, limit // 2 // 16 * 16 or 16, limit, 16 * (limit // 16)]))
    outputs = [f for f in OUTPUT_FORMATS if f is not Format.INT32]
    if not scaled and {stream, resident} <= {Format.INT4, Format.INT8}:
        outputs.append(Format.INT32)
    out = rng.choice(outputs)
    n = int(rng.choice([1, 8, 65535]))
    body |= {
        "k": k,
        "n": n,
        "n_inner": int(rng.choice([2, 6, n, 65535])),
        "entries": entries,
        "run_bytes": numbers * bits // 8,
        "slice": length if k > config.operand_depth or rng.random() < 0.5 else 65520,
        "runs_inner": int(rng.integers(1, 65536)),
        "encoding": int(rng.integers(len(Encoding))),
        "out_format": out.value,
        "flags": scaled,
        "function": int(rng.integers(2)),
        "anchor": int(rng.choice([MIN_ANCHOR, -7, MAX_ANCHOR])) if mode is Mode.BF16 else 0,
        "zero_point": int(rng.integers(-32768, 32768)),
    }
    for name in ("run", "run_outer", "inner", "outer"):
        body[f"x_{name}_stride"] = 2 * int(rng.integers(-(1 << 30), 1 << 30))
    for name in ("inner", "outer"):
        body[f"out_{name}_stride"] = 4 * int(rng.integers(-(1 << 29), 1 << 29))
    return body


def spoil(rng, body, operand, config):
    """Change one field; this need not be a fault."""
    names = ("k", "run_bytes", "slice", "entries", "operand", "operand", "operand", "anchor")
    name = str(rng.choice([*body, *names]))
    width = MatmulBody.as_shape()[name].width if name != "operand" else 32
    if name == "operand":
        operand[int(rng.integers(3))] += 1 << int(rng.integers(4))
    elif rng.random() < 0.3:
        body[name] = 0
    elif rng.random() < 0.6:
        change = int(rng.choice([-16, -2, -1, 1, 2, 3, 16]))
        signed = MatmulBody.as_shape()[name].shape.signed if width > 8 else False
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
        body[name] = int(np.clip(body[name] + change, low, high))
    elif width <= 16 and name not in ("anchor", "zero_point"):
        body[name] = int(rng.integers(1 << width))
    if name in ("k", "slice") and rng.random() < 0.5:
        body["entries"] = int(rng.choice([config.rows, config.rows + 1]))


def expected(body, operand, config):
    try:
        check_matmul(body, operand, config)
    except Fault as fault:
        if fault.status is not Status.BAD_ADDRESS:
            return fault.status
    return Status.OK


@pytest.mark.parametrize("name", ["tiny"])
def test_random_commands(name):
    config = preset(name)
    dut, rst = MatmulChecks(config), Signal()
    seed = int(os.environ.get("SEED", "1"))
    rng, pauses = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    seen = dict.fromkeys(Status, 0)

    async def check(ctx, body, operand, *, whole):
        """Start an iteration; return its status."""
        mode = matmul_mode(body)
        ctx.set(dut.body, body)
        ctx.set(dut.mode, mode or Mode.INT8)
        ctx.set(dut.mode_known, mode is not None)
        for port, address in zip((dut.blob, dut.x, dut.out), operand, strict=True):
            ctx.set(port, address)
        ctx.set(dut.whole, whole)
        for _ in range(int(pauses.integers(3))):
            await ctx.tick()
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for port in (dut.blob, dut.x, dut.out):
            ctx.set(port, int(rng.integers(1 << 32)))
        ctx.set(dut.body, good_body(pauses, config))
        ctx.set(dut.mode, Mode(int(pauses.choice([mode.value for mode in Mode]))))
        ctx.set(dut.mode_known, int(pauses.integers(2)))
        runs = body["k"] * 16 // (8 * body["run_bytes"]) if whole and body["run_bytes"] else 1
        cycles, passed = 0, 0
        while ctx.get(dut.busy):
            assert not passed
            passed, ends = ctx.get(dut.passed), ctx.get(dut.ends)
            await ctx.tick()
            cycles += 1
            assert cycles <= runs // 4 + 4 + whole
            assert ends != ctx.get(dut.busy)
        assert passed != ctx.get(dut.failed)
        return ctx.get(dut.status) if ctx.get(dut.failed) else Status.OK

    async def bench(ctx):
        for _ in range(CASES):
            body = good_body(rng, config)
            body |= {name: int(rng.integers(-99, 99)) for name in ("clamp_low", "clamp_high")}
            operand = [16 * int(rng.integers(1 << 20)) for _ in range(3)]
            for _ in range(int(rng.choice([0, 1, 1, 2]))):
                spoil(rng, body, operand, config)
            want = expected(body, operand, config)
            seen[want] += 1
            assert await check(ctx, body, operand, whole=1) == want, (body, operand, want)
            if want is Status.OK:
                # Another iteration, whose addresses may be bad.
                operand[int(rng.integers(3))] += int(rng.choice([0, 1, 2, 4, 8, 16]))
                want = expected(body, operand, config)
                assert await check(ctx, body, operand, whole=0) == want, (body, operand, want)
            if want is not Status.OK:
                await reset(ctx)

    async def reset(ctx):
        ctx.set(rst, 1)
        await ctx.tick()
        ctx.set(rst, 0)

    simulator = Simulator(ResetInserter(rst)(dut))
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    for status in (Status.OK, Status.BAD_LENGTH, Status.BAD_FORMAT, Status.BAD_ALIGNMENT):
        assert seen[status] > CASES // 25, seen
