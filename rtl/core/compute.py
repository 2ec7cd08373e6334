"""The compute unit: array, row engines, fill and epilogue behind one start port."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..array.fill import Fill
from ..array.grid import Grid
from ..array.row_engine import RowEngine
from ..array.stream_port import StreamPort
from ..config import GRANULE, RELEASE_WORDS, CardConfig
from ..hierarchy import Repeated
from ..hostport.csr import ALL_ENGINES
from ..isa import Flag, MatmulBody, Status
from .epilogue import EpilogueLane
from .matmul_checks import MatmulChecks
from .output import OutputMerge
from .ports import ReadPort, UnitPort, WritePort
from .running import RunningCommands
from .share import LaneShare

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

    The fill path starts with an iteration at once, the row engines when it has been checked
    (`MatmulChecks`). The fill path starts a further iteration as soon as it has read all of the one
    before, and each row engine when it has fetched its part of it: iterations follow each other
    without a gap. While an iteration runs, addresses and what the blob says are checked.

    This is so for iterations of one command and of several, as far as the array does the same with
    them: a command with another mode or another anchor starts when all before it has ended. An
    iteration fails only when those before it have ended.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort)``
        Commands overlap.
    stream_read : ``Out(ReadPort).array(stream_ports)``
    fill_read : ``Out(ReadPort)``, as wide as two chunks of the fill
    write : ``Out(WritePort)``
    flags : ``Out(4)``
        `Flag` bits that a result raises: after the ``done`` of the iteration before its own, and at
        the latest with that of its own.
    count_engine : ``In(8)``
        Whose cycles ``events`` shows: an engine's index, or `ALL_ENGINES`.
    events : ``Out(engine_events_layout)``
        Of the cycle three before, as ``count_engine`` was in that one.
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

        m.submodules.running = running = RunningCommands()
        grid = Grid(config)
        m.submodules.grid = Repeated(grid, "grid")
        m.submodules.fill = fill = Fill(config)
        m.submodules.merge = merge = OutputMerge(config)
        m.submodules.checks = checks = MatmulChecks(config)
        engines = [RowEngine(config) for _ in range(rows)]
        lanes = [EpilogueLane(config) for _ in range(config.epilogue_lanes)]
        ports = [StreamPort(config) for _ in range(config.stream_ports)]
        connect(m, fill.read, flipped(self.fill_read))
        connect(m, merge.write, flipped(self.write))
        m.d.comb += [
            running.body.eq(body),
            fill.body.eq(body),
            checks.body.eq(body),
            checks.mode.eq(running.next_mode),
            checks.mode_known.eq(running.next_known),
            grid.mode.eq(running.mode),
            grid.offset.eq(running.offset),
        ]
        m.d.comb += [column.eq(word) for column, word in zip(grid.fill, fill.fill, strict=True)]
        for r, engine in enumerate(engines):
            m.submodules[f"engine_{r}"] = Repeated(engine, "row_engine")
            # Engines next to each other share different ports: rows in step ask in different ones.
            port = ports[r % config.stream_ports]
            connect(m, engine.fetch, port.engine[r // config.stream_ports])
            m.d.comb += [
                engine.index.eq(r),
                engine.mode.eq(running.mode),
                engine.filled.eq(grid.filled[r]),
                grid.stream[r].eq(engine.stream),
            ]
            for turn in range(2):
                m.d.comb += engine.commands[turn].eq(running.streams[turn])
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = Repeated(lane, "epilogue_lane")
            connect(m, lane.write, merge.lane[i])
            m.d.comb += [
                lane.mode.eq(running.mode),
                lane.weight.eq(running.weight),
                lane.same.eq(running.same),
            ]
            for turn in range(2):
                m.d.comb += [
                    lane.paths[turn].eq(running.paths[turn]),
                    lane.columns[turn].eq(running.columns[turn]),
                ]
        self._finish_rows(m, engines, grid, lanes)
        for i, port in enumerate(ports):
            m.submodules[f"stream_port_{i}"] = port
            connect(m, port.read, flipped(self.stream_read[i]))

        self._release(m, grid, fill)
        self._start(m, running, checks, fill, engines, merge.iteration_done)
        self._report(m, running, checks, fill, engines, lanes)
        self._flag(m, lanes)
        self._count(m, engines)
        return m

    def _finish_rows(self, m: Module, engines, grid: Grid, lanes) -> None:
        """Connect each engine and its row's drain to a lane, or to its share of one."""
        count = self._config.engines_per_lane
        for i, lane in enumerate(lanes):
            rows = range(i * count, (i + 1) * count)
            if count == 1:
                connect(m, engines[i].visit, lane.visit)
                m.d.comb += [lane.drain.eq(grid.drain[i]), engines[i].credit.eq(lane.credit)]
                continue
            share = LaneShare(self._config)
            m.submodules[f"share_{i}"] = Repeated(share, "lane_share")
            connect(m, share.lane_visit, lane.visit)
            m.d.comb += [lane.drain.eq(share.lane_drain), share.lane_credit.eq(lane.credit)]
            for e, row in enumerate(rows):
                connect(m, engines[row].visit, share.visit[e])
                m.d.comb += [
                    share.drain[e].eq(grid.drain[row]),
                    engines[row].credit.eq(share.credit[e]),
                ]

    def _release(self, m: Module, grid: Grid, fill: Fill) -> None:
        """Hand words back to the fill path that all engines are done with.

        Rows and the fill path lie apart: there is a register at both ends of the way.
        """
        rows = self._config.rows
        units = self._config.operand_depth // RELEASE_WORDS
        some, oldest = Signal(rows), Signal()  # units of each row; of all
        m.d.comb += oldest.eq(some.all())
        m.d.sync += fill.release.eq(oldest)
        for r, release in enumerate(grid.release):
            left = Signal(name=f"left{r}")
            pending, following = (
                Signal(range(units + 1), name=f"{name}{r}") for name in ("released", "releases")
            )
            m.d.comb += following.eq(pending + left - oldest)
            m.d.sync += [left.eq(release), pending.eq(following), some[r].eq(following.any())]

    def _start(
        self, m: Module, running: RunningCommands, checks: MatmulChecks, fill: Fill, engines, ended
    ) -> None:
        """Accept an iteration for the fill path; when it has been checked, for each engine.

        It ends when its results are written, and the fill path has come to its last operand: no
        weight need have met that.
        """
        start = self.unit.start
        blob, x, out = start.payload.operand
        under_way, next_under_way = Signal(range(3)), Signal(range(3))
        alone = Signal(init=1)  # none is under way
        self._failed = Signal(2)  # by turn
        self._stops = Signal()  # any of them has, from the cycle before on
        self._oldest = Signal()  # turn of the oldest iteration under way, if there is one
        self._finished = Signal()  # it ends
        waiting, still = Signal(len(engines)), Signal(len(engines))
        # Whether none is checked or waits, and whether none may start: one has many loads, the
        # other is wanted early.
        free, closed = Signal(init=1), Signal()
        waiting_blob, waiting_out = (Signal(n, reset_less=True) for n in (28, 32))
        fits, may_start, accept, next_free = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            # While the checks are busy the engines may be set to wait: `passed` comes late.
            next_free.eq(~checks.busy & ~accept & ~still.any()),
            next_under_way.eq(under_way + accept - self._finished),
            fits.eq(alone | ~start.payload.first | running.fits),
            may_start.eq(start.valid & fits & ~closed),
            fill.start.valid.eq(may_start),
            fill.start.payload.eq(x),
            accept.eq(may_start & fill.start.ready),
            start.ready.eq(accept),
            running.valid.eq(start.valid),
            running.first.eq(start.payload.first),
            running.take.eq(accept),
            checks.whole.eq(start.payload.first),
            checks.start.eq(accept),
            checks.blob.eq(blob),
            checks.x.eq(x),
            checks.out.eq(out),
        ]
        m.d.sync += [
            under_way.eq(next_under_way),
            alone.eq(next_under_way == 0),
            self._oldest.eq(self._oldest ^ self._finished),
            self.unit.done.eq(self._finished),  # with the flags, a cycle later
        ]
        failed = Mux(self._oldest, self._failed[1], self._failed[0])
        ends = []
        for name, end in (("results", ended), ("fill", fill.done)):
            half, following = (
                Signal(range(3), name=f"{name}_{when}") for when in ("ahead", "following")
            )
            there = Signal(name=f"{name}_there")  # `half` is not 0
            m.d.comb += following.eq(half + end - self._finished)
            m.d.sync += [half.eq(following), there.eq(following.any())]
            ends.append(there | end)
        m.d.comb += self._finished.eq(Cat(ends).all() & ~failed)
        with m.If(free):
            m.d.sync += [waiting_blob.eq(blob[4:]), waiting_out.eq(out)]
        m.d.sync += [
            waiting.eq(still | checks.passed.replicate(len(engines))),
            free.eq(next_free),
            closed.eq(~next_free | self._stops),
        ]
        for r, engine in enumerate(engines):
            m.d.comb += [
                engine.start.valid.eq(waiting[r]),
                engine.start.payload.blob.eq(waiting_blob),
                engine.start.payload.output.eq(waiting_out),
            ]
            m.d.comb += still[r].eq(waiting[r] & ~engine.start.ready)

    def _report(
        self, m: Module, running: RunningCommands, checks: MatmulChecks, fill: Fill, engines, lanes
    ) -> None:
        """Report the first error of the oldest iteration; those of the one behind it wait.

        Of several errors that come at once the first source in this order counts.
        """
        newest = Signal()  # turn of the iteration that has been checked, or is
        m.d.comb += newest.eq(~running.turn)
        stops: Value = Const(0)
        statuses = [Signal(Status, name=f"status{turn}") for turn in range(2)]
        for turn, status in enumerate(statuses):
            # The fill path may be at an iteration that has not been checked; its error stays.
            checked = (newest != turn) | (~checks.busy & ~checks.failed)
            sources = [
                (checks.failed & (newest == turn), checks.status),
                (fill.error[turn] & checked, fill.status),
                *((engine.error[turn], engine.status[turn]) for engine in engines),
                *((lane.error[turn], lane.status) for lane in lanes),
            ]
            found, is_first = Signal(name=f"found{turn}"), Signal(name=f"is_first{turn}")
            m.d.comb += found.eq(Cat(error for error, _ in sources).any())
            stops |= found
            m.d.sync += [
                self._failed[turn].eq(self._failed[turn] | found),
                is_first.eq(found & ~self._failed[turn]),
            ]
            # Which of them it was is looked at a cycle later: the sources lie far apart.
            seen = Signal(len(sources), name=f"errors{turn}", reset_less=True)
            m.d.sync += seen.eq(Cat(error for error, _ in sources))
            for i, (_, its_status) in reversed(list(enumerate(sources))):
                reason = Signal(Status, name=f"reason{turn}_{i}", reset_less=True)
                m.d.sync += reason.eq(its_status)
                with m.If(is_first & seen[i]):
                    m.d.sync += status.eq(reason)
        stopped = Signal()
        m.d.comb += self._stops.eq(stopped | stops)
        m.d.sync += stopped.eq(self._stops)
        failed, told = Signal(), Signal()
        m.d.comb += [
            failed.eq(self._failed.bit_select(self._oldest, 1)),
            self.unit.status.eq(Mux(self._oldest, statuses[1], statuses[0])),
        ]
        m.d.sync += [told.eq(failed), self.unit.error.eq(failed & ~told)]

    def _flag(self, m: Module, lanes) -> None:
        """Pass on the flags of the oldest iteration; those of the one behind it wait."""
        flags = []
        for turn in range(2):
            kept, now = Signal(len(Flag), name=f"kept{turn}"), Signal(len(Flag), name=f"now{turn}")
            raised = kept
            for lane in lanes:
                raised = raised | lane.flags[turn]
            shown = Signal(len(Flag), name=f"shown{turn}")
            m.d.comb += now.eq(raised)
            m.d.sync += [
                kept.eq(Mux(self._oldest == turn, 0, now)),
                shown.eq(now),
            ]
            flags.append(shown)
        m.d.sync += self.flags.eq(Mux(self._oldest, flags[1], flags[0]))

    def _count(self, m: Module, engines) -> None:
        """Add up what the engines that are counted did."""
        everyone = self.count_engine == ALL_ENGINES
        counted = Signal(len(engines), init=-1)
        m.d.sync += counted.eq(
            Cat(everyone | (self.count_engine == r) for r in range(len(engines)))
        )
        work = [Cat(getattr(engine, name) for engine in engines) for name in _WORK]
        worked = Signal()
        for name, bits in zip(_WORK, work, strict=True):
            seen = Signal(len(engines), name=f"{name}_seen")
            m.d.sync += [seen.eq(bits & counted), self.events[name].eq(sum(seen))]
        m.d.sync += [worked.eq(Cat(work).any()), self.events.working.eq(worked)]
