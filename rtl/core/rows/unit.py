"""The unit that runs ROWS."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered

from ...config import GRANULE
from ...isa import RowsBody
from ...numerics.delay import delayed
from ..ports import READ_LATENCY, banks_of
from ..vector_part import VectorPart
from .finish import RowFinish, pass_layout
from .scalars import RowScalars, factors_layout, job_layout
from .shape import RowShape
from .statistics import Statistics
from .walk import SCALE_BYTES, RowWalk, row_layout

__all__ = ["RowsUnit"]

_ROWS = 4
"""Rows whose statistics may be known, or looked for, before their results are begun."""

_SUMS = 4
"""Rows whose powers may be summed, or whose sum may wait, at once."""

_SCALES = 16
"""Rows that may be named before their scale is written."""

_UNDER_WAY = 32
"""Rows that may be named before their last result is written."""


class RowsUnit(VectorPart):
    """Scales, normalizes or quantizes rows of the scratchpad, or takes their softmax (ROWS).

    Up to ``config.row_lanes`` numbers a cycle: while one row's results are made, the statistics of
    the next are looked for. SOFTMAX without DEFER looks at each number once more, and so does
    NORMALIZE. A scale or a factor takes up to 35 cycles a row, of NORMALIZE up to 160; beside the
    numbers of other rows. A granule read or written is a cycle of the one port for each: numbers of
    32 bits take at least a quarter, columns of the table half a cycle.

    The next iteration starts when the one before has ended. Each is checked when it starts, in the
    order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT, BAD_SCALE, and each row for BAD_ADDRESS. The rows
    before one that lies outside the scratchpad, or whose results, table or scale do, are still
    finished; then the error is raised, and nothing starts until reset.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        command = RowsBody(self.unit.start.payload.body)
        m.submodules.shape = derive = RowShape(config)
        m.submodules.walk = walk = RowWalk(config)
        m.submodules.statistics = statistics = Statistics(config)
        m.submodules.scalars = scalars = RowScalars(config)
        m.submodules.finish = finish = RowFinish(config)
        shape = derive.shape
        m.d.comb += [derive.command.eq(command), walk.shape.eq(shape)]
        for part in (statistics, scalars, finish):
            m.d.comb += [part.command.eq(command), part.shape.eq(shape)]
        m.d.comb += [
            walk.start.payload.eq(self.unit.start.payload),
            walk.start.valid.eq(self.unit.start.valid),
            self.unit.start.ready.eq(walk.start.ready),
            self.unit.done.eq(walk.done),
            self.unit.error.eq(walk.error),
            self.unit.status.eq(walk.status),
            finish.table.eq(walk.table),
        ]

        # A row goes to those who look at it first, and waits for those who finish it.
        layout = row_layout(config)
        m.submodules.rows = rows = SyncFIFOBuffered(width=layout.size, depth=_ROWS + 1)
        m.submodules.scales = scales = SyncFIFOBuffered(
            width=len(walk.row.payload.scale), depth=_SCALES
        )
        room, named = Signal(), Signal()
        waiting = Signal(range(_ROWS + 1))
        under_way = Signal(range(_UNDER_WAY + 1))
        owed = Signal(range(_SCALES + 1))
        m.d.comb += [
            room.eq((waiting != _ROWS) & (under_way != _UNDER_WAY) & (owed != _SCALES - 1)),
            statistics.row.valid.eq(walk.row.valid & room & ~shape.affine),
            statistics.row.payload.source.eq(walk.row.payload.source),
            statistics.row.payload.take.eq(walk.row.payload.take),
            walk.row.ready.eq(room & (statistics.row.ready | shape.affine)),
            named.eq(walk.row.valid & walk.row.ready),
            rows.w_en.eq(named),
            rows.w_data.eq(walk.row.payload),
            scales.w_en.eq(named & shape.scales),
            scales.w_data.eq(walk.row.payload.scale),
        ]

        begun, written, scaled = self._elaborate_row(m, shape, rows)
        m.d.sync += [
            waiting.eq(waiting + named - begun),
            under_way.eq(under_way + named - written),
            owed.eq(owed + (named & shape.scales) - scaled),
        ]
        m.d.comb += walk.ended.eq((under_way == 0) & (owed == 0))
        self._elaborate_read(m, (statistics.read, finish.read, finish.read_table))
        return m

    def _elaborate_row(self, m: Module, shape, rows):
        """From a row that is named to its results and its scale.

        Returns whether a row's results are begun, its last result and its scale written.
        """
        statistics, scalars, finish = (
            getattr(m.submodules, name) for name in ("statistics", "scalars", "finish")
        )
        # The scalars work on one row after the other.
        m.submodules.jobs = jobs = SyncFIFOBuffered(width=job_layout().size, depth=_ROWS + 1)
        job = data.View(job_layout(), jobs.w_data)
        with m.If(shape.softmax):
            m.d.comb += [
                job.powers.sum.eq(finish.sum),
                job.powers.nan.eq(finish.nan),
                jobs.w_en.eq(finish.summed),
            ]
        with m.Elif(shape.normalize):
            m.d.comb += [job.moments.eq(statistics.moments), jobs.w_en.eq(statistics.summed)]
        with m.Else():
            m.d.comb += [job.largest.eq(statistics.largest), jobs.w_en.eq(statistics.found)]
        m.d.comb += [
            scalars.job.valid.eq(jobs.r_rdy),
            scalars.job.payload.eq(jobs.r_data),
            jobs.r_en.eq(scalars.job.ready),
        ]

        # What a row's numbers are worked on with. Of SOFTMAX the shift is there before the factor:
        # a row is summed first, and waits in `again` for its factor, unless somebody else divides.
        twice = shape.softmax & ~shape.defer
        m.submodules.factors = factors = SyncFIFOBuffered(
            width=factors_layout().size, depth=_ROWS + 1
        )
        found = data.View(factors_layout(), factors.w_data)
        factor = data.View(factors_layout(), factors.r_data)
        m.submodules.gains = gains = SyncFIFOBuffered(width=32, depth=_SUMS + 1)
        m.submodules.again = again = SyncFIFOBuffered(
            width=pass_layout(self.config).size, depth=_SUMS + 1
        )
        with m.If(shape.softmax):
            m.d.comb += [
                found.shift.eq(statistics.largest ^ (1 << 31)),
                factors.w_en.eq(statistics.found),
                gains.w_en.eq(scalars.found),
            ]
        with m.Else():
            m.d.comb += [found.eq(scalars.factors), factors.w_en.eq(scalars.found)]
        m.d.comb += gains.w_data.eq(scalars.factors.factor)

        row = data.View(row_layout(self.config), rows.r_data)
        start = finish.start
        first, second, begun = Signal(), Signal(), Signal()
        sums = Signal(range(_SUMS + 1))  # passes that sum, up to when the factor is used
        m.d.comb += [
            second.eq(again.r_rdy & gains.r_rdy),
            first.eq(
                ~second
                & rows.r_rdy
                & (factors.r_rdy | shape.affine)
                & ((sums != _SUMS) | ~shape.softmax)
            ),
            start.valid.eq(first | second),
            begun.eq(start.ready & first),
            rows.r_en.eq(begun),
            factors.r_en.eq(begun & ~shape.affine),
            again.r_en.eq(start.ready & second),
            gains.r_en.eq(start.ready & second),
        ]
        with m.If(second):
            m.d.comb += start.payload.eq(again.r_data)
            m.d.comb += [
                start.payload.factor.eq(gains.r_data),
                start.payload.sums.eq(0),
                start.payload.writes.eq(1),
            ]
        with m.Else():
            m.d.comb += [
                start.payload.source.eq(row.source),
                start.payload.target.eq(row.target),
                start.payload.take.eq(row.take),
                start.payload.shift.eq(factor.shift),
                start.payload.factor.eq(factor.factor),
                start.payload.sums.eq(shape.softmax),
                start.payload.writes.eq(~twice),
            ]
        m.d.comb += [again.w_en.eq(begun & twice), again.w_data.eq(start.payload)]
        settled = Mux(shape.defer, scalars.scaled, scalars.found)
        m.d.sync += sums.eq(sums + (begun & shape.softmax) - (settled & shape.softmax))
        return begun, *self._elaborate_write(m)

    def _elaborate_write(self, m: Module):
        """Write results and scales; return whether a row's last result, and a scale, is written."""
        scalars, finish, scales = (
            getattr(m.submodules, name) for name in ("scalars", "finish", "scales")
        )
        m.submodules.ready_scales = ready = SyncFIFOBuffered(width=32, depth=_SCALES)
        m.d.comb += [ready.w_en.eq(scalars.scaled), ready.w_data.eq(scalars.scale)]
        write, granule = self.write, finish.granule
        words = GRANULE // SCALE_BYTES
        place, address = scales.r_data[: words.bit_length() - 1], scales.r_data[2:]
        taken, scaled = Signal(), Signal()
        m.d.comb += [
            taken.eq(write.valid & write.ready),
            write.address.eq(granule.payload.address),
            write.banks.eq(banks_of(m, self.config, write.address)),
            write.data.eq(granule.payload.data),
            write.mask.eq(~0),
            write.valid.eq(granule.valid),
        ]
        # A scale's address has been there for longer.
        with m.If(ready.r_rdy):
            m.d.comb += [
                write.valid.eq(1),
                write.address.eq(address),
                write.data.eq(ready.r_data.replicate(words)),
                write.mask.eq(Const((1 << SCALE_BYTES) - 1, SCALE_BYTES) << place * SCALE_BYTES),
                scaled.eq(write.ready),
            ]
        m.d.comb += [
            ready.r_en.eq(scaled),
            scales.r_en.eq(scaled),
            granule.ready.eq(write.ready & ~ready.r_rdy),
        ]
        return granule.valid & granule.ready & granule.payload.last, scaled

    def _elaborate_read(self, m: Module, ports) -> None:
        """Share the read port: the first of the parts that ask goes first."""
        read = self.read
        asks = Cat(port.valid for port in ports)
        chosen = Signal(len(ports))
        m.d.comb += [
            chosen.eq(asks & ~(asks - 1)),
            read.valid.eq(asks.any()),
            read.banks.eq(banks_of(m, self.config, read.address)),
        ]
        answered = delayed(m, 1, chosen, READ_LATENCY, "answered")
        for i, port in enumerate(ports):
            with m.If(chosen[i]):
                m.d.comb += read.address.eq(port.address)
            m.d.comb += [
                port.ready.eq(read.ready & chosen[i]),
                port.data_valid.eq(read.data_valid & answered[i]),
                port.data.eq(read.data),
            ]
