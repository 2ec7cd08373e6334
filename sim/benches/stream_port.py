"""Bench of the row engines behind a stream port: how busy they keep the array.

`EngineGroup` is the design: the engines that share a port, and the port.
"""

import cocotb
import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from cocotb.triggers import FallingEdge, RisingEdge

from ...rtl.array.row_engine import RowEngine, engine_start_layout
from ...rtl.array.stream_port import StreamPort
from ...rtl.config import CardConfig
from ...rtl.core.ports import READ_LATENCY, ReadPort
from ...rtl.hierarchy import Repeated
from ...rtl.isa import DirectoryEntry, Encoding, Format, MatmulBody
from .described import drive_commands
from .lib import bench_config, pack, rng, start, tick, within
from .streams import encode
from .units import banks_at

STATES = ("active", "stall_stream", "stall_fill", "stall_drain")


class EngineGroup(wiring.Component):
    """The engines of one port, which start together, with lanes that are always ready.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(stream)``
        Starts an iteration in every engine (`engine_start_layout`).
    body : ``In(MatmulBody)``
    filled : ``In(1)``
        As in every engine.
    read : ``Out(ReadPort)``
    active, stall_stream, stall_fill, stall_drain : ``Out``
        A bit for each engine.
    value, valid : ``Out``
        What each engine issues: the low 8 bits of the weight, engine 0 lowest.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        self._count = count = config.rows // config.stream_ports
        super().__init__(
            {
                "start": In(stream.Signature(engine_start_layout(config))),
                "body": In(MatmulBody),
                "filled": In(1),
                "read": Out(ReadPort(config)),
                "value": Out(8 * count),
                "valid": Out(count),
            }
            | {name: Out(count) for name in STATES}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.port = port = StreamPort(config)
        connect(m, port.read, flipped(self.read))
        engines = [RowEngine(config) for _ in range(self._count)]
        for i, engine in enumerate(engines):
            m.submodules[f"engine_{i}"] = Repeated(engine, "row_engine")
            drive_commands(m, engine, self.body, self.body)
            connect(m, engine.fetch, port.engine[i])
            credit = Signal(name=f"credit_{i}")
            m.d.sync += credit.eq(engine.stream.valid & engine.stream.last)
            m.d.comb += [
                engine.index.eq(i * config.stream_ports),
                engine.start.payload.eq(self.start.payload),
                engine.start.valid.eq(self.start.valid & self.start.ready),
                engine.filled.eq(self.filled),
                engine.visit.ready.eq(1),
                engine.credit.eq(credit),
            ]
        m.d.comb += [
            self.start.ready.eq(Cat(engine.start.ready for engine in engines).all()),
            self.value.eq(Cat(engine.stream.value[:8] for engine in engines)),
            self.valid.eq(Cat(engine.stream.valid for engine in engines)),
        ]
        for name in STATES:
            m.d.comb += getattr(self, name).eq(Cat(getattr(engine, name) for engine in engines))
        return m


async def _scratchpad(dut, memory, r, conflicts):
    """Answer reads; another port has the bank now and then."""
    waiting = [None] * READ_LATENCY
    while True:
        ready = int(r.random() >= conflicts)
        dut.read__ready.value = ready
        due = waiting.pop(0)
        dut.read__data_valid.value = int(due is not None)
        if due is not None:
            dut.read__data.value = memory[due]
        await FallingEdge(dut.clk)
        accepted = ready and int(dut.read__valid.value)
        address = int(dut.read__address.value)
        if accepted:
            assert int(dut.read__banks.value) == banks_at(bench_config(), address)
        waiting.append(address if accepted else None)
        await RisingEdge(dut.clk)


async def _run(dut, source, encoding, per_visit, visits, conflicts):
    """Run a job whose rows have ``per_visit`` weights each. Returns its cycles from start to the
    last weight, and those in which an engine waited for its stream, for each engine."""
    config, r = bench_config(), rng()
    engines = config.rows // config.stream_ports
    for name in ("filled", "start__valid", "start__payload", "read__ready", "read__data_valid"):
        getattr(dut, name).value = 0
    await start(dut)

    k = per_visit * {Encoding.DENSE: 1, Encoding.SPARSE_2_4: 2}.get(encoding, 4)
    entries = visits * config.rows
    ks = np.arange(per_visit) * k // per_visit
    if encoding is Encoding.SPARSE_2_4:
        ks = np.arange(0, k, 2)
    memory, want, free = {}, {}, entries
    for entry in range(entries):
        values = r.integers(0, 256, per_visit).tolist()
        granules = encode(values, ks, source, encoding)
        memory[entry] = pack(DirectoryEntry, stream=free, count=per_visit, scale=127 << 23)
        memory |= {free + i: granule for i, granule in enumerate(granules)}
        free += len(granules)
        want.setdefault(entry % config.rows, []).extend(values)
    assert free <= 1 << config.granule_addr_width
    dut.body.value = pack(
        MatmulBody, k=k, n=1, entries=entries, slice=k, encoding=encoding,
        stream_format=source, in_format=source,
    )  # fmt: skip
    cocotb.start_soon(_scratchpad(dut, memory, r, conflicts))
    dut.filled.value = 1
    await tick(dut, k)
    dut.filled.value = 0
    dut.start__payload.value = pack(engine_start_layout(config), blob=0, output=0)
    dut.start__valid.value = 1
    await tick(dut)
    dut.start__valid.value = 0

    got = [[] for _ in range(engines)]
    counts = dict.fromkeys(STATES, 0)
    cycles = 0

    async def finish():
        nonlocal cycles
        while sum(map(len, got)) < engines * visits * per_visit:
            await FallingEdge(dut.clk)
            valid = int(dut.valid.value)
            if valid:
                value = int(dut.value.value)
                for i in range(engines):
                    if valid >> i & 1:
                        got[i].append(value >> 8 * i & 0xFF)
            for name in STATES:
                counts[name] += int(getattr(dut, name).value).bit_count()
            cycles += 1

    await within(60 * visits * per_visit + 1000, finish(), "the engines")
    for i, values in enumerate(got):
        assert values == want[i * config.stream_ports]
    assert counts["active"] == engines * visits * per_visit
    return cycles, counts["stall_stream"] / engines


FORMS = [
    # format, encoding, weights a visit, least part of the cycles that are active
    (Format.FP16, Encoding.DELTA, 100, 0.99),
    (Format.FP16, Encoding.DELTA, 40, 0.99),
    (Format.FP16, Encoding.DELTA, 20, 0.9),  # as much as the port can give
    (Format.FP16, Encoding.SPARSE_2_4, 40, 0.99),
    (Format.FP16, Encoding.DENSE, 16, 0.99),
    (Format.INT8, Encoding.DENSE, 16, 0.99),
    (Format.INT8, Encoding.DENSE, 8, 0.9),  # as much as the port can give
]


@cocotb.test()
@cocotb.parametrize(form=range(len(FORMS)), conflicts=[0.0, 0.1])
async def utilisation(dut, form, conflicts):
    """Engines that share a port issue a weight a cycle, with directory entries counted in."""
    source, encoding, per_visit, least = FORMS[form]
    visits = 1200 // per_visit
    cycles, waited = await _run(dut, source, encoding, per_visit, visits, conflicts)
    part = visits * per_visit / (cycles - 16 - 2 * READ_LATENCY)
    dut._log.info(
        "%s %s, %d a visit, conflicts %.1f: %.3f active, %.0f cycles without stream",
        source.name, encoding.name, per_visit, conflicts, part, waited,
    )  # fmt: skip
    assert part >= (least if not conflicts else 0.85)
