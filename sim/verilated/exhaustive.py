"""Every product that a PE can make, compared with numbers worked out independently.

`Product`, the PE's multiplier, is Verilated alone, behind the widening of its inputs, and fed a
pair a cycle by ``product.cpp``, which also works out what is right. All 2^32 pairs of FP16 numbers
take some minutes:

    python -m deepseek.sim.verilated.exhaustive [--pairs N]

With ``--pairs`` so many are drawn at random, and all pairs of special values are added. INT8, INT4
and FP8 pairs are few: they always run completely.
"""

import argparse
import concurrent.futures
import ctypes
import dataclasses
import importlib.resources
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ...rtl.array.prepare import PrepareOperand, PrepareWeight
from ...rtl.array.product import SEGMENTS, Product, offset_of
from ...rtl.isa import BITS, Format, Mode
from ...rtl.numerics.widen import widen, widen_halfway
from .build import Progress, Recipe, build
from .convert import to_verilog
from .pairs import Campaign, campaigns
from .toolchain import ToolError

__all__ = ["Checkers", "Multiplier", "Outcome", "main"]

CHUNK = 1 << 21
"""Pairs between two looks at the progress."""


class Multiplier(wiring.Component):
    """`Product` behind the widening and the preparation of both inputs.

    Members
    -------
    stream_format, in_format : ``In(Format)``
    offset : ``In(signed(10))``
        As that of `PrepareWeight`.
    mode, valid_i, ... :
        As those of `Product`; ``w`` and ``x`` in their formats. In the modes of integers ``x`` is
        an operand word.
    """

    def __init__(self) -> None:
        self._product = product = Product()
        super().__init__(
            {
                **product.signature.members,
                "w": In(16),
                "x": In(16),
                "offset": In(signed(10)),
                "stream_format": In(Format),
                "in_format": In(Format),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.product = product = self._product
        m.submodules.weight = weight = PrepareWeight()
        m.submodules.operand = operand = PrepareOperand()
        for name, member in product.signature.members.items():
            inner, outer = getattr(product, name), getattr(self, name)
            if name in ("w", "x", "valid_i"):
                continue
            if name == "addend":
                m.d.comb += [o.eq(i) for o, i in zip(outer, inner, strict=True)]
            elif member.flow is In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        floats = (self.mode == Mode.FP16) | (self.mode == Mode.BF16)
        valid = Signal(PrepareWeight.LATENCY)
        m.d.sync += valid.eq(Cat(self.valid_i, valid))
        m.d.comb += [
            *(prepare.mode.eq(self.mode) for prepare in (weight, operand)),
            weight.offset.eq(self.offset),
            weight.value.eq(widen(m, self.w, self.stream_format, self.mode, name="w")),
            operand.value.eq(
                Mux(floats, widen_halfway(m, self.x, self.in_format, self.mode, name="x"), self.x)
            ),
            product.valid_i.eq(valid[-1]),
            product.w.eq(weight.weight),
            product.x.eq(operand.word),
        ]
        return m


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a campaign ended.

    Parameters
    ----------
    pairs, mismatches : int
    first : str
        The first pair that was wrong, if any.
    seconds : float
    """

    campaign: Campaign
    pairs: int
    mismatches: int
    first: str
    seconds: float


class _Setting(ctypes.Structure):
    """``Setting`` of product.cpp."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("mode", "stream_format", "in_format", "anchor")),
        ("offset", ctypes.c_int32),
        ("w_count", ctypes.c_uint32),
        ("x_count", ctypes.c_uint32),
        ("w", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("w_noise", ctypes.c_uint16),
        ("x_noise", ctypes.c_uint16),
        ("sampled", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
    )


class _Mismatch(ctypes.Structure):
    """``Mismatch`` of product.cpp."""

    _fields_ = (
        ("index", ctypes.c_uint64),
        ("w", ctypes.c_uint16),
        ("x", ctypes.c_uint16),
        ("expected_flags", ctypes.c_uint32),
        ("found_flags", ctypes.c_uint32),
        ("expected", ctypes.c_uint32 * SEGMENTS),
        ("found", ctypes.c_uint32 * SEGMENTS),
    )

    def __str__(self) -> str:
        def shown(segments: Sequence[int], flags: int) -> str:
            digits = " ".join(f"{segment:06x}" for segment in reversed(segments))
            return f"{digits}, flags {flags:05b}"

        return (
            f"pair {self.index}: {self.w:#06x} by {self.x:#06x} gives "
            f"{shown(self.found, self.found_flags)} instead of "
            f"{shown(self.expected, self.expected_flags)}"
        )


class Checkers:
    """The Verilated multiplier, once for each thread.

    Use as a context manager.

    Parameters
    ----------
    component : Component
        What is checked, with the ports of `Multiplier`.
    threads : int
    seed : int
        Of the pairs that are drawn.
    progress : callable
        See `build.Progress`.

    Raises
    ------
    ToolError
        If it cannot be built.
    """

    def __init__(
        self,
        component: wiring.Component,
        *,
        threads: int = 1,
        seed: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.seed = seed
        built = build(_recipe(to_verilog(component, "multiplier")), progress=progress)
        self._library = library = ctypes.CDLL(str(built.path))
        library.product_new.restype = ctypes.c_void_p
        library.product_free.argtypes = [ctypes.c_void_p]
        library.product_set.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Setting)]
        library.product_run.restype = ctypes.c_uint64
        library.product_run.argtypes = [
            *(ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64),
            ctypes.POINTER(_Mismatch),
        ]
        self._handles = [library.product_new() for _ in range(threads)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            self._library.product_free(handle)
        self._handles = []

    def run(self, campaign: Campaign, progress: Progress | None = None) -> Outcome:
        """Run all pairs of a campaign."""
        start = time.perf_counter()
        setting = self._setting(campaign)
        for handle in self._handles:
            self._library.product_set(handle, setting)
        chunks = iter(range(0, campaign.pairs, CHUNK))
        lock = threading.Lock()
        wrong = done = 0
        first: _Mismatch | None = None
        stop = False

        def work(handle: int) -> None:
            nonlocal wrong, done, first
            while not stop:
                with lock:
                    begin = next(chunks, None)
                if begin is None:
                    return
                count = min(CHUNK, campaign.pairs - begin)
                mismatch = _Mismatch()
                found = self._library.product_run(handle, begin, count, mismatch)
                with lock:
                    wrong += found
                    done += count
                    if found and (first is None or mismatch.index < first.index):
                        first = mismatch
                    if progress is not None:
                        progress(campaign.name, done / campaign.pairs)

        with concurrent.futures.ThreadPoolExecutor(len(self._handles)) as pool:
            try:
                for future in [pool.submit(work, handle) for handle in self._handles]:
                    future.result()
            except BaseException:
                stop = True
                raise
        return Outcome(
            campaign=campaign,
            pairs=done,
            mismatches=wrong,
            first=str(first) if first is not None else "",
            seconds=time.perf_counter() - start,
        )

    def _setting(self, campaign: Campaign) -> _Setting:
        def noise(format: Format) -> int:
            return 0xFFFF << BITS[format] & 0xFFFF

        words = campaign.mode in (Mode.INT8, Mode.INT4)
        return _Setting(
            mode=campaign.mode.value,
            stream_format=campaign.stream_format.value,
            in_format=campaign.in_format.value,
            anchor=campaign.anchor,
            offset=offset_of(campaign.mode, campaign.anchor),
            w_count=len(campaign.w),
            x_count=len(campaign.x),
            w=campaign.w.ctypes.data,
            x=campaign.x.ctypes.data,
            w_noise=noise(campaign.stream_format),
            x_noise=0 if words else noise(campaign.in_format),
            sampled=campaign.sampled is not None,
            seed=self.seed,
        )


def _recipe(verilog: str) -> Recipe:
    source = (importlib.resources.files(__package__) / "product.cpp").read_text()
    return Recipe(
        kind="product",
        top="multiplier",
        verilog=verilog,
        verilator_args=("-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-timing"),
        sources=(("product.cpp", source),),
        defines=(
            *("VL_TIME_CONTEXT", "VM_COVERAGE=0", "VM_SC=0", "VM_TIMING=0"),
            *("VM_TRACE=0", "VM_TRACE_VCD=0", "VM_TRACE_FST=0", "VM_TRACE_SAIF=0"),
        ),
        fast=("-O3",),
        output="product.so",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run all campaigns; return 1 if any pair was wrong, 2 if nothing could be built."""
    parser = argparse.ArgumentParser(
        prog="python -m deepseek.sim.verilated.exhaustive", description="Check every product."
    )
    parser.add_argument("--pairs", type=int, help="draw so many FP16 pairs instead of taking all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "1")))
    options = parser.parse_args(arguments)
    for name in ("pairs", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, not {value}")
    try:
        checkers = Checkers(Multiplier(), threads=options.threads, seed=options.seed)
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = False
    with checkers:
        for campaign in campaigns(options.pairs):
            outcome = checkers.run(campaign, _report if sys.stderr.isatty() else None)
            rate = outcome.pairs / outcome.seconds / 1e6
            result = f"{outcome.mismatches:,} wrong" if outcome.mismatches else "all right"
            chosen = "drawn" if campaign.sampled is not None else "all"
            print(
                f"{campaign.name}: {outcome.pairs:,} pairs ({chosen}), {result}; "
                f"{outcome.seconds:.1f} s, {rate:.1f} million pairs a second",
                flush=True,
            )
            if outcome.mismatches:
                failed = True
                print(f"  first {outcome.first}")
    return int(failed)


def _report(phase: str, fraction: float) -> None:
    print(f"\r{phase}: {fraction:6.1%}", end="\r", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
