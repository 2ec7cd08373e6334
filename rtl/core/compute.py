"""The compute unit: array, row engines, fill and epilogue behind one start port."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..array.fill import Fill
from ..array.grid import Grid
from ..array.product import offset_of
from ..array.row_engine import RowEngine
from ..array.stream_port import StreamPort
from ..config import GRANULE, RELEASE_WORDS, CardConfig
from ..hierarchy import Repeated
from ..hostport.csr import ALL_ENGINES
from ..isa import Flag, MatmulBody, Mode
from ..numerics.widen import mode_of
from .epilogue import EpilogueLane
from .matmul_checks import MatmulChecks
from .output import OutputMerge
from .ports import ReadPort, UnitPort, WritePort

__all__ = ["ComputeUnit", "engine_events_layout"]

_WORK = ("active", "stall_stream", "stall_fill", "stall_drain")


def engine_events_layout(config: CardConfig) -> data.StructLayout:
    """Layout of what the row engines did in one cycle.

    ``active``, ``stall_stream``, ``stall_fill``, ``stall_drain``: how many of those that are
    counted issued a weight, or waited and for what; the others had no work. ``working``: any engine
    had work, counted or not.
    """
    count = range(config.rows + 1)
    return data.StructLayout(dict.fromkeys(_WORK, count) | {"working": 1})


class ComputeUnit(wiring.Component):
    """Executes MATMUL (`MatmulBody`).

    The fill path starts with a command's first iteration at once, the row engines when it has been
    checked (`MatmulChecks`). The fill path starts a further iteration as soon as it has read all of
    the one before, and each row engine when it has fetched its part of it: iterations follow each
    other without a gap. While an iteration runs, addresses and what the blob says are checked.

    An iteration fails only when those before it have ended.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort)``
    stream_read : ``Out(ReadPort).array(stream_ports)``
    fill_read : ``Out(ReadPort)``, as wide as two chunks of the fill
    write : ``Out(WritePort)``
    flags : ``Out(4)``
        `Flag` bits that a result raises, at latest with the ``done`` of its iteration.
    count_engine : ``In(8)``
        Whose cycles ``events`` shows: an engine's index, or `ALL_ENGINES`.
    events : ``Out(engine_events_layout)``
        As ``count_engine`` was two cycles before.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "stream_read": Out(ReadPort(config)).array(config.stream_ports),
                "fill_read": Out(ReadPort(config, 2 * config.fill_bytes // GRANULE)),
                "write": Out(WritePort(config)),
                "flags": Out(len(Flag)),
                "count_engine": In(8, init=ALL_ENGINES),
                "events": Out(engine_events_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        rows = config.rows
        body = Signal(MatmulBody)
        m.d.comb += body.eq(self.unit.start.payload.body)
        mode, mode_known = mode_of(m, body.stream_format, body.in_format)

        m.submodules.grid = grid = Grid(config)
        m.submodules.fill = fill = Fill(config)
        m.submodules.merge = merge = OutputMerge(config)
        m.submodules.checks = checks = MatmulChecks(config)
        engines = [RowEngine(config) for _ in range(rows)]
        lanes = [EpilogueLane(config) for _ in range(rows)]
        ports = [StreamPort(config) for _ in range(config.stream_ports)]
        connect(m, fill.read, flipped(self.fill_read))
        connect(m, merge.write, flipped(self.write))
        m.d.comb += [fill.body.eq(body), checks.body.eq(body)]
        m.d.comb += [checks.mode.eq(mode), checks.mode_known.eq(mode_known)]
        # Weights come long after the body: registers here are out of the way of every PE.
        window = body.anchor + offset_of(Mode.BF16)
        m.d.sync += [
            grid.mode.eq(mode),
            grid.offset.eq(Mux(mode == Mode.BF16, window, offset_of(Mode.FP16))),
        ]
        m.d.comb += [column.eq(word) for column, word in zip(grid.fill, fill.fill, strict=True)]
        for r, (engine, lane) in enumerate(zip(engines, lanes, strict=True)):
            m.submodules[f"engine_{r}"] = Repeated(engine, "row_engine")
            m.submodules[f"lane_{r}"] = Repeated(lane, "epilogue_lane")
            # Engines next to each other share different ports: rows in step ask in different ones.
            port = ports[r % config.stream_ports]
            connect(m, engine.fetch, port.engine[r // config.stream_ports])
            connect(m, engine.visit, lane.visit)
            connect(m, lane.write, merge.lane[r])
            m.d.comb += [
                engine.index.eq(r),
                engine.body.eq(body),
                engine.filled.eq(grid.filled[r]),
                engine.credit.eq(lane.credit),
                grid.stream[r].eq(engine.stream),
                lane.command.eq(body),
                lane.drain.eq(grid.drain[r]),
            ]
        for i, port in enumerate(ports):
            m.submodules[f"stream_port_{i}"] = port
            connect(m, port.read, flipped(self.stream_read[i]))

        self._release(m, grid, fill)
        self._start(m, checks, fill, engines, merge.iteration_done)
        self._report(m, checks, fill, engines, lanes)
        self._count(m, engines)
        flags = 0
        for lane in lanes:
            flags = lane.flags | flags
        m.d.sync += self.flags.eq(flags)
        return m

    def _release(self, m: Module, grid: Grid, fill: Fill) -> None:
        """Hand words back to the fill path that all engines are done with."""
        units = self._config.operand_depth // RELEASE_WORDS
        pending = [Signal(range(units + 1), name=f"released{r}") for r in range(self._config.rows)]
        oldest = Signal()
        m.d.comb += [
            oldest.eq(Cat(count.any() for count in pending).all()),
            fill.release.eq(oldest),
        ]
        for count, release in zip(pending, grid.release, strict=True):
            m.d.sync += count.eq(count + release - oldest)

    def _start(self, m: Module, checks: MatmulChecks, fill: Fill, engines, ended) -> None:
        """Accept an iteration for the fill path; when it has been checked, for each engine.

        It ends when its results are written, and the fill path has come to its last operand: no
        weight need have met that.
        """
        start = self.unit.start
        blob, x, out = start.payload.operand
        under_way = Signal(range(3))
        self._alone = Signal()  # no iteration is under way before the one that is checked
        waiting = Signal(len(engines))
        waiting_blob, waiting_out = Signal(28), Signal(32)
        may_start, accept = Signal(), Signal()
        m.d.comb += [
            may_start.eq(start.valid & ~checks.busy & ~checks.failed & ~waiting.any()),
            fill.start.valid.eq(may_start),
            fill.start.payload.eq(x),
            accept.eq(may_start & fill.start.ready),
            start.ready.eq(accept),
            # A command's iterations overlap, unless they wait: then the check does no harm.
            checks.whole.eq(under_way == 0),
            checks.start.eq(accept),
            checks.blob.eq(blob),
            checks.x.eq(x),
            checks.out.eq(out),
            self._alone.eq(under_way == 1),
        ]
        m.d.sync += under_way.eq(under_way + accept - self.unit.done)
        halves = [Signal(range(3), name=f"{name}_ahead") for name in ("results", "fill")]
        ends = [half.any() | end for half, end in zip(halves, (ended, fill.done), strict=True)]
        m.d.comb += self.unit.done.eq(Cat(ends).all())
        for half, end in zip(halves, (ended, fill.done), strict=True):
            m.d.sync += half.eq(half + end - self.unit.done)
        with m.If(accept):
            m.d.sync += [waiting.eq(-1), waiting_blob.eq(blob[4:]), waiting_out.eq(out)]
        for r, engine in enumerate(engines):
            m.d.comb += [
                engine.start.valid.eq(waiting[r] & ~checks.busy & ~checks.failed),
                engine.start.payload.blob.eq(waiting_blob),
                engine.start.payload.output.eq(waiting_out),
            ]
            with m.If(engine.start.valid & engine.start.ready):
                m.d.sync += waiting[r].eq(0)

    def _report(self, m: Module, checks: MatmulChecks, fill: Fill, engines, lanes) -> None:
        """Report the first error; the first source in this order, if several come at once."""
        # The fill path is at the newest iteration, and may be so before this has been checked; its
        # error stays.
        sources = [
            (checks.failed & self._alone, checks.status),
            (fill.error & self._alone & ~checks.busy & ~checks.failed, fill.status),
            *((unit.error, unit.status) for unit in (*engines, *lanes)),
        ]
        m.d.sync += self.unit.error.eq(Cat(error for error, _ in sources).any())
        for error, status in reversed(sources):
            with m.If(error):
                m.d.sync += self.unit.status.eq(status)

    def _count(self, m: Module, engines) -> None:
        """Add up what the engines that are counted did."""
        everyone = self.count_engine == ALL_ENGINES
        counted = Signal(len(engines), init=-1)
        m.d.sync += counted.eq(
            Cat(everyone | (self.count_engine == r) for r in range(len(engines)))
        )
        work = [Cat(getattr(engine, name) for engine in engines) for name in _WORK]
        for name, bits in zip(_WORK, work, strict=True):
            m.d.sync += self.events[name].eq(sum(bits & counted))
        m.d.sync += self.events.working.eq(Cat(work).any())
