"""Bench of `MemorySystem`: bandwidth of HBM for streams of full blocks."""

import json
import os

import cocotb

from .memory import Streams, begin

PATTERNS = {
    "read": ({"load0": False}, 0.9),
    "write": ({"store": True}, 0.9),
    "two_reads": ({"load0": False, "load1": False}, 0.84),
    "copy": ({"load0": False, "store": True}, 0.75),
    "mixed": ({"load0": False, "load1": False, "store": True}, 0.68),
}
"""Requesters that stream in order (True: writing), and the least share of the peak."""


@cocotb.test()
@cocotb.parametrize(pattern=list(PATTERNS))
async def hbm_bandwidth(dut, pattern):
    """Streams get what the refreshes leave, and mixed ones no less than they should."""
    bench = await begin(dut, ideal=False, stall=0.0)
    kinds, least = PATTERNS[pattern]
    cycles = int(os.environ.get("MEMORY_CYCLES", "20800")) if pattern == "read" else 6500
    streams = Streams(bench, kinds)
    await streams.run(300)
    bench.seen.clear()
    got = await streams.run(cycles)
    config = bench.config
    peak = min(16 * config.hbm_channels, config.bus_bytes)
    columns = bench.seen["row_hit"] + bench.seen["activate"]
    figures = {
        "preset": config.name,
        "pattern": pattern,
        "cycles": cycles,
        "bytes_per_cycle": round(got, 3),
        "of_peak": round(got / peak, 4),
        "row_hits": round(bench.seen["row_hit"] / columns, 4),
        "refreshes": bench.seen["refresh"],
    }
    dut._log.info("%s", json.dumps(figures))
    assert bench.seen["refresh"]
    assert got / peak >= least, figures
    await bench.finish(5000)
