"""Bench of one lane of the requantization: numbers that are hard to round, add and clamp."""

from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from ...rtl.core.requantize_lane import SUM_BITS, RequantizeLane
from ...rtl.isa import VectorBody, VectorOp
from ..golden import vector as golden
from .lib import pack, rng, sample, start, tick

Ints = npt.NDArray[np.int64]
Body = dict[str, int]

# Amaranth's enums look like integers to a type checker.
Op: Any = VectorOp
BATCH = 60
IDENTITY = {"zero_point": 0, "clamp_low": -(1 << 15), "clamp_high": (1 << 15) - 1}


def expected(body: Body, zero: int, sums: Ints, others: Ints) -> Ints:
    """Return what the golden model makes of the pairs."""
    output = {name: body[name] for name in IDENTITY}
    scale = body["a_scale"]
    if body["op"] == Op.AVERAGE.value:
        return golden.average(sums - zero, scale=scale, **output).astype(np.int64)
    a, b = sums.astype(np.int8), others.astype(np.int8)
    zeros = {"a_zero": zero, "b_zero": body["b_zero"]}
    if body["op"] == Op.MULTIPLY.value:
        return golden.multiply(a, b, **zeros, scale=scale, **output).astype(np.int64)
    scales = {"a_scale": scale, "b_scale": body["b_scale"]}
    return golden.add(a, b, **zeros, **scales, **output).astype(np.int64)


async def check(
    dut: Any, r: np.random.Generator, body: Body, zero: int, sums: Ints, others: Ints
) -> None:
    """Send pairs with gaps between them, and compare the results and when they come."""
    wanted = expected(body, zero, sums, others).tolist()
    dut.command.value = pack(VectorBody, {"in_format": 0, **body})
    dut.valid_i.value = 0
    await tick(dut)
    await tick(dut)
    gap = float(r.choice([0.0, 0.3]))
    moving = [False] * RequantizeLane.LATENCY
    sent = 0
    results: list[int] = []
    last_zero = int(r.integers(1 << SUM_BITS))
    while len(results) < len(wanted):
        offer = sent < len(wanted) and r.random() >= gap
        dut.valid_i.value = offer
        pair = int(r.integers(1 << SUM_BITS + 8))
        if offer:
            pair = int(sums[sent]) % (1 << SUM_BITS) | int(others[sent]) % 256 << SUM_BITS
        dut.pair.value = pair
        dut.zero.value = last_zero
        last_zero = zero % (1 << SUM_BITS) if offer else int(r.integers(1 << SUM_BITS))
        sent += offer
        await sample(dut)
        assert bool(dut.valid_o.value) == moving.pop(0), f"valid_o after {len(results)} results"
        if dut.valid_o.value:
            results.append((int(dut.result.value) ^ 128) - 128)
        moving.append(offer)
        await tick(dut)
    for i, (result, right) in enumerate(zip(results, wanted, strict=True)):
        assert result == right, (
            f"{body}: {sums[i]} less {zero} and {others[i]} gives {result}, not {right}"
        )


def bits(scale: float) -> int:
    """Return the FP32 bits of a scale."""
    return int(np.float32(scale).view(np.uint32))


def output(r: np.random.Generator) -> Body:
    """Draw where results are clamped: at FP32's integers, or anywhere."""
    if r.random() < 0.5:
        names = ("zero_point", "clamp_low", "clamp_high")
        return {name: int(r.integers(-(1 << 15), 1 << 15)) for name in names}
    return IDENTITY | {"zero_point": int(r.integers(-128, 128))}


@cocotb.test()
async def ties(dut: Any) -> None:
    """Products of which FP32 makes halves of integers that they are not, or are, or almost are."""
    r = rng()
    await start(dut)
    for _ in range(BATCH):
        # Scales just beside a half of an integer, divided by an integer.
        divisors = [1, 3, 5, 7, 255, *r.integers(1, [1 << 16, 1 << 23]).tolist()]
        divisor = int(r.choice(divisors))
        half = (int(r.integers(1 << int(r.integers(1, 17)))) + 0.5) * r.choice([-1, 1])
        scale = int(np.float32(half / divisor).view(np.uint32)) + int(r.integers(-2, 3))
        body = {"op": Op.AVERAGE.value, "a_scale": scale, "b_scale": 1, "b_zero": 5} | output(r)
        sums = divisor * r.choice([-1, 1], 24) * r.choice([1, 1, 1, 2, 3], 24)
        sums = np.clip(sums, 1 - (1 << 23), (1 << 23) - 1)
        await check(dut, r, body, 0, sums, r.integers(-128, 128, 24))


@cocotb.test()
async def sums_that_cancel(dut: Any) -> None:
    """Two products whose difference is near a half, or exact, at every magnitude."""
    r = rng()
    await start(dut)
    for exponent in range(-30, 50):
        for _ in range(3):
            a = np.ldexp(1 + r.integers(1 << 23) / 2**23, exponent) * r.choice([-1, 1])
            ratio = float(r.choice([-1, -1, -2, -0.5, -1 / 3, r.normal()]))
            b = int(np.float32(a * ratio).view(np.uint32)) + int(r.integers(-3, 4))
            body = {"op": Op.ADD.value, "a_scale": bits(a), "b_scale": b} | output(r)
            body |= {"b_zero": int(r.integers(-128, 128))}
            zero = int(r.integers(-128, 128))
            sums, others = r.integers(-128, 128, (2, 40))
            near = np.rint((sums - zero) / -ratio) + body["b_zero"] + r.integers(-1, 2, 40)
            others = np.where(r.random(40) < 0.7, np.clip(near, -128, 127), others)
            await check(dut, r, body, zero, sums, others.astype(np.int64))


@cocotb.test()
async def sums_near_ties(dut: Any) -> None:
    """A half of an integer, to which something smaller is added."""
    r = rng()
    await start(dut)
    for distance in range(0, 40):
        for _ in range(3):
            scale = np.ldexp(1.0, int(r.integers(-8, 9)))
            other = np.ldexp(1 + r.choice([0, r.random()]), -distance) * scale * r.choice([-1, 1])
            scales = [bits(scale), bits(other)]
            if r.random() < 0.5:
                scales.reverse()
            body = {"op": Op.ADD.value, "a_scale": scales[0], "b_scale": scales[1], "b_zero": 0}
            sums, others = r.integers(-128, 128, (2, 40))
            await check(dut, r, body | output(r), 0, sums, others)


@cocotb.test()
async def any_numbers(dut: Any) -> None:
    """Every operation, with every normal scale, sum and zero; the ends of their ranges."""
    r = rng()
    await start(dut)
    ends = [0x00800000, 0x7F7FFFFF, 0x7F000000, 0x7E800000, 0x3F800000, 0x3F000000, 0x4B000000]
    for _ in range(3 * BATCH):
        scales = []
        for _ in range(2):
            low = int(r.integers(1, 255)) if r.random() < 0.3 else int(r.integers(110, 150))
            scale = (
                int(r.choice(ends)) if r.random() < 0.3 else low << 23 | int(r.integers(1 << 23))
            )
            scales.append(scale | int(r.integers(2)) << 31)
        body = {"op": int(r.choice([Op.AVERAGE.value, Op.ADD.value, Op.MULTIPLY.value]))}
        body |= {"a_scale": scales[0], "b_scale": scales[1], "b_zero": int(r.integers(-128, 128))}
        limit, window = 128, 1
        if body["op"] == Op.AVERAGE.value:
            window = int(r.choice([1, 9, 49, 1000, 255 * 255]))
            limit = 128 * window
        zero = int(r.integers(-128, 128)) * window
        sums = r.integers(-limit, limit, 30)
        sums[:3] = -limit, limit - window, zero
        await check(dut, r, body | output(r), zero, sums, r.integers(-128, 128, 30))
