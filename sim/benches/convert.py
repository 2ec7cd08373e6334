"""Bench of `NarrowFp32`: the borders of all formats, all of them."""

from typing import Any

import cocotb
import ml_dtypes
import numpy as np
import numpy.typing as npt

from ...rtl.isa import Format
from ...rtl.numerics.convert import NarrowFp32
from ..golden.epilogue import quantize
from .lib import rng
from .numerics import SPECIAL, compare, run_unit

__all__ = ["floats", "integers"]

Words = npt.NDArray[np.uint32]

# An independent converter, as a NumPy type, and the NaN that every NaN becomes.
FLOATS: dict[Format, tuple[Any, int]] = {
    Format.FP16: (np.float16, 0x7E00),
    Format.BF16: (ml_dtypes.bfloat16, 0x7FC0),
    Format.E4M3: (ml_dtypes.float8_e4m3fn, 0x7F),
    Format.E5M2: (ml_dtypes.float8_e5m2, 0x7E),
}


def _convert(numbers: Words, form: Format) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Return the bits of FP32 numbers in a format, which of them overflowed, and which are NaN."""
    kind, canonical = FLOATS[form]
    values = numbers.view(np.float32)
    with np.errstate(all="ignore"):
        narrow = values.astype(kind)
        back = narrow.astype(np.float32)
    bits = narrow.view(np.uint16 if narrow.itemsize == 2 else np.uint8).astype(np.uint32)
    bits = np.where(np.isnan(values), np.uint32(canonical), bits)
    return bits, np.isfinite(values) & ~np.isfinite(back), np.isnan(back)


def _borders(form: Format) -> Words:
    """Return every number of a format, every tie between two of them, and the neighbours."""
    kind, _ = FLOATS[form]
    word: Any = np.uint16 if np.dtype(kind).itemsize == 2 else np.uint8
    every = np.arange(1 << (8 * np.dtype(word).itemsize - 1), dtype=word).view(kind)
    exact = every.astype(np.float64)
    exact = exact[np.isfinite(exact)]
    beyond = 2 * exact[-1] - exact[-2]
    upper = np.append(exact[1:], beyond)
    with np.errstate(over="ignore"):
        points = np.concatenate([exact, (exact + upper) / 2, [beyond]]).astype(np.float32)
    words = points.view(np.uint32)
    return np.concatenate([words, words + 1, np.maximum(words, 1) - 1, SPECIAL])


@cocotb.test()
@cocotb.parametrize(form=list(FLOATS))
async def floats(dut: Any, form: Format) -> None:
    """The borders of each format, exponents of all kinds, and NaNs that are not canonical."""
    r = rng()
    anything = r.integers(1 << 32, size=3000, dtype=np.uint32)
    numbers = np.concatenate([_borders(form), anything])
    numbers ^= (r.integers(2, size=len(numbers)) << 31).astype(np.uint32)
    r.shuffle(numbers)
    results, overflow, nan = _convert(numbers, form)
    expected = results | overflow.astype(np.uint32) << 16 | nan.astype(np.uint32) << 17
    cases = {"number": numbers.tolist()}
    got = await run_unit(
        dut,
        cases,
        latency=NarrowFp32.LATENCY,
        stall=0 if form in (Format.FP16, Format.BF16) else 0.2,
        rng=r,
        constants={"format": form.value},
        outputs=("result", "overflow", "nan"),
    )
    compare(cases, got, expected.tolist())


@cocotb.test()
@cocotb.parametrize(
    (
        ("zero_point", "clamp_low", "clamp_high"),
        [
            (0, -128, 127),
            (-128, -128, 127),
            (127, -128, 127),
            (7, 0, 100),
            (-3, -8, 7),
            (0, 50, -50),
            (-32768, -32768, 32767),
            (32767, -32768, 32767),
        ],
    )
)
async def integers(dut: Any, zero_point: int, clamp_low: int, clamp_high: int) -> None:
    """Every integer and half around the clamps, their neighbours, and numbers of any size."""
    r = rng()
    steps = np.concatenate([np.arange(0, 260, 0.5), 2.0 ** np.arange(-149, 128)])
    points = steps.astype(np.float32).view(np.uint32)
    numbers = np.concatenate([points, points + 1, np.maximum(points, 1) - 1, SPECIAL])
    numbers = np.concatenate([numbers, numbers | np.uint32(1 << 31)])
    cases = {"number": numbers.tolist()}
    clamps = {"zero_point": zero_point, "clamp_low": clamp_low, "clamp_high": clamp_high}
    constants = {name: value & 0xFFFF for name, value in clamps.items()}
    constants["format"] = int(r.choice([Format.INT8.value, Format.INT4.value]))
    expected = quantize(numbers, **clamps).view(np.uint8).astype(np.uint32)
    expected |= np.isnan(numbers.view(np.float32)).astype(np.uint32) << 17
    got = await run_unit(
        dut,
        cases,
        latency=NarrowFp32.LATENCY,
        stall=0.1,
        rng=r,
        constants=constants,
        outputs=("result", "overflow", "nan"),
    )
    compare(cases, got, expected.tolist())
