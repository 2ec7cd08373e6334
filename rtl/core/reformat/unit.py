"""The unit that runs REFORMAT: its loops, addresses and checks around the three operations."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered

from ...config import GRANULE
from ...isa import ReformatBody, Status
from ..ports import READ_LATENCY, banks_of
from ..transfer import granules
from ..vector_part import VectorPart
from .compress import Compressor
from .expand import Expander
from .form import bad_alignment, bad_format, bad_length, form_layout, make_form
from .transpose import Transposer, row_layout
from .walk import Walk

__all__ = ["ReformatUnit"]

_ROWS = 8
"""Granules of input between the request and who takes them: three more than it takes."""

_SCALES = 4
"""Granules of scales that are there, or requested: each lasts for a row, or for 64 results."""

_RESULTS = 12
"""Granules between the step that places them and their write: four more than it takes."""

_COUNT_BYTES = 2
_COUNT_BITS = (_COUNT_BYTES - 1).bit_length()


class ReformatUnit(VectorPart):
    """Transposes rows, compresses them, or expands block-scaled numbers (REFORMAT).

    TRANSPOSE works tile by tile, each as many rows and columns as a granule has numbers: one
    granule in and one out a cycle. EXPAND writes one granule a cycle. COMPRESS makes one entry of
    a stream a cycle, and steps over a granule of zeros in one. Iterations follow each other with a
    few cycles between.

    Each iteration is checked when it starts, in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT,
    and each access for BAD_ADDRESS. What iterations before wrote is complete when the error is
    raised; of the one that fails some results may be written, but none if its first read, or its
    first write, or its first count is outside the scratchpad. Nothing starts until reset. Reads
    run ahead of writes, into the next iteration, too.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        start = self.unit.start
        operand = start.payload.operand
        body = ReformatBody(start.payload.body)
        self._form_now = make_form(m, body)
        self._form = form = Signal(form_layout(), reset_less=True)
        m.d.sync += form.eq(self._form_now)
        self._body = body

        # Reading, and writing, walk through iterations of their own.
        width = len(granules(operand[1]))
        m.submodules.in_walk = in_walk = Walk(width, 3)
        m.submodules.out_walk = out_walk = Walk(width, 4)
        m.submodules.index_walk = index_walk = Walk(32 - _COUNT_BITS, 3)
        m.submodules.transposer = Transposer()
        m.submodules.expander = Expander()
        m.submodules.compressor = Compressor()

        # The iteration that begins in the next cycle, its results when those before are placed.
        next_valid = Signal()
        next_in = Signal(width, reset_less=True)
        next_out = Signal(width, reset_less=True)
        next_index = Signal(len(index_walk.base), reset_less=True)
        read_failed, write_failed, reported = Signal(), Signal(), Signal()
        self._read_failed, self._write_failed = read_failed, write_failed
        outstanding = Signal(2)
        status = Signal(Status)
        accepted, sound = Signal(), Signal()
        bad = [
            (bad_length(body), Status.BAD_LENGTH),
            (bad_format(m, body), Status.BAD_FORMAT),
            (bad_alignment(self._form_now, body, operand), Status.BAD_ALIGNMENT),
        ]
        begin_in, begin_out = Signal(), Signal()
        m.d.comb += [
            start.ready.eq(~(in_walk.valid | next_valid | read_failed | write_failed)),
            accepted.eq(start.valid & start.ready),
            sound.eq(accepted & ~Cat(fault for fault, _ in bad).any()),
            begin_out.eq(next_valid & ~out_walk.valid),
            in_walk.begin.eq(begin_in),
            in_walk.base.eq(next_in),
            out_walk.begin.eq(begin_out),
            out_walk.base.eq(next_out),
            # EXPAND reads by its index, COMPRESS writes.
            index_walk.begin.eq(Mux(form.expand, begin_in, form.compress & begin_out)),
            index_walk.base.eq(next_index),
        ]
        m.d.sync += begin_in.eq(sound)
        with m.If(begin_out):
            m.d.sync += next_valid.eq(0)
        with m.If(sound):
            m.d.sync += [
                next_valid.eq(1),
                next_in.eq(granules(operand[1])),
                next_out.eq(granules(operand[2])),
                next_index.eq(operand[0][_COUNT_BITS:]),
            ]
        for i, (fault, code) in enumerate(bad):
            with m.If(accepted & fault) if i == 0 else m.Elif(accepted & fault):
                m.d.sync += [read_failed.eq(1), status.eq(code)]

        self._elaborate_loops(m)
        stop = Signal()
        read_outside = self._elaborate_read(m, stop)
        write_outside, written, pending = self._elaborate_write(m, stop)
        with m.If(read_outside):
            m.d.sync += [read_failed.eq(1), status.eq(Status.BAD_ADDRESS)]
        # It is of the same iteration as what fails above, or of the one before.
        with m.If(write_outside):
            m.d.sync += [write_failed.eq(1), status.eq(Status.BAD_ADDRESS)]

        m.d.sync += outstanding.eq(outstanding + accepted - self.unit.done)
        m.d.comb += [
            # What fails on its way in is the newest iteration: the one before goes on.
            stop.eq(write_failed | (read_failed & (outstanding == 1))),
            self.unit.status.eq(status),
        ]
        m.d.sync += self.unit.error.eq(0)
        with m.If(stop & (pending == 0) & ~reported):
            m.d.sync += [reported.eq(1), self.unit.error.eq(1)]
        m.d.sync += self.unit.done.eq(written)
        return m

    def _elaborate_loops(self, m: Module) -> None:
        """Give the walks their loops, which follow from the body."""
        body, form = self._body, self._form
        subs = m.submodules
        row, batch = granules(body.in_stride), granules(body.in_batch_stride)
        with m.If(form.transpose):
            # A column of granules, row by row; then the next one.
            _loops(m, subs.in_walk, (body.rows, row), (form.row_granules, 1), (body.batch, batch))
        with m.Else():
            _loops(m, subs.in_walk, (form.row_granules, 1), (body.rows, row), (body.batch, batch))
        m.d.comb += subs.in_walk.short.eq(subs.in_walk.bound[0])

        row, batch = granules(body.out_stride), granules(body.out_batch_stride)
        tile = Signal(len(row), reset_less=True)
        m.d.sync += tile.eq(row.shift_left(2))
        with m.Switch(form.places_log):
            for log in (3, 4):
                with m.Case(log):
                    m.d.sync += tile.eq(row.shift_left(log))
        rows, last = (body.rows, row), (body.batch, batch)
        with m.If(form.transpose):
            # The columns of a tile; the tile below; the next granule of all rows.
            columns = Signal(5)
            m.d.comb += columns.eq(Const(1) << form.places_log)
            tiles = ((form.column_granules, 1), (form.row_granules, tile))
            _loops(m, subs.out_walk, (columns, row), *tiles, last)
            m.d.comb += subs.out_walk.short.eq(form.tail)
        with m.Else():
            bound = Mux(form.expand, form.expanded_granules, 0)
            _loops(m, subs.out_walk, (bound, 1), (1, 0), rows, last)
            m.d.comb += subs.out_walk.short.eq(bound)

        row, batch = body.index_stride[_COUNT_BITS:], body.index_batch_stride[_COUNT_BITS:]
        bound = Mux(form.expand, form.scale_granules, 1)
        step = GRANULE // _COUNT_BYTES
        _loops(m, subs.index_walk, (bound, step), (body.rows, row), (body.batch, batch))
        m.d.comb += subs.index_walk.short.eq(bound)

    def _outside(self, address):
        """Return whether an address in granules is outside the scratchpad."""
        return address[self.config.granule_addr_width :].any()

    def _elaborate_read(self, m: Module, stop):
        """Request granules, and hand them out; return whether one is outside."""
        form, subs = self._form, m.submodules
        in_walk, index_walk = subs.in_walk, subs.index_walk
        subs.rows = rows = SyncFIFOBuffered(width=row_layout().size, depth=_ROWS)
        subs.scales = scales = SyncFIFOBuffered(width=8 * GRANULE, depth=_SCALES)
        rows_left = Signal(range(_ROWS + 1), init=_ROWS)
        scales_left = Signal(range(_SCALES + 1), init=_SCALES)

        # Scales come before the first of their numbers.
        due, asked, issue = Signal(), Signal(), Signal()
        address = Signal(len(in_walk.address))
        outside, want = Signal(), Signal()
        last = Signal()
        tile_ends = Signal()
        with m.Switch(form.places_log):
            for log in (2, 3, 4, 5):
                with m.Case(log):
                    m.d.comb += tile_ends.eq(in_walk.index[:log].all())
                    if log >= 4:
                        per_scales = (32 * GRANULE >> log).bit_length() - 1
                        m.d.comb += due.eq(form.expand & ~asked & ~in_walk.index[:per_scales].any())
        m.d.comb += [
            address.eq(Mux(due, _granules_of_counts(index_walk.address), in_walk.address)),
            want.eq(in_walk.valid & ~stop & ~self._read_failed),
            outside.eq(want & self._outside(address)),
            self.read.valid.eq(
                want & ~self._outside(address) & Mux(due, scales_left.any(), rows_left.any())
            ),
            self.read.address.eq(address),
            self.read.banks.eq(banks_of(m, self.config, address)),
            issue.eq(self.read.valid & self.read.ready),
            in_walk.step.eq(issue & ~due),
            last.eq(in_walk.ends[0] | (form.transpose & tile_ends)),
        ]
        with m.If(issue):
            m.d.sync += asked.eq(due)

        asked_rows, asked_scales = Signal(READ_LATENCY), Signal(READ_LATENCY)
        lasts = Signal(READ_LATENCY, reset_less=True)
        m.d.sync += [
            asked_rows.eq(Cat(issue & ~due, asked_rows)),
            asked_scales.eq(Cat(issue & due, asked_scales)),
            lasts.eq(Cat(last, lasts)),
            rows_left.eq(rows_left - (issue & ~due) + (rows.r_en & rows.r_rdy)),
            scales_left.eq(scales_left - (issue & due) + (scales.r_en & scales.r_rdy)),
        ]
        m.d.comb += [
            rows.w_en.eq(asked_rows[-1]),
            rows.w_data.eq(Cat(self.read.data, lasts[-1])),
            scales.w_en.eq(asked_scales[-1]),
            scales.w_data.eq(self.read.data),
        ]
        self._scales_asked = issue & due
        return outside

    def _elaborate_write(self, m: Module, stop):
        """Place results, and write them as they come from the operations.

        Returns whether a place is outside, whether an iteration's last result is written, and how
        many results are placed and not written.
        """
        form, subs = self._form, m.submodules
        out_walk, index_walk = subs.out_walk, subs.index_walk
        target_layout = data.StructLayout(
            {
                "address": unsigned(self.config.granule_addr_width),
                "is_count": unsigned(1),
                "offset": unsigned(3),
                "tail": unsigned(1),
                "final": unsigned(1),
            }
        )
        subs.targets = targets = SyncFIFOBuffered(width=target_layout.size, depth=_RESULTS)
        subs.results = results = SyncFIFOBuffered(width=8 * GRANULE, depth=_RESULTS)
        pending = Signal(range(_RESULTS + 1))
        place, outside = Signal(), Signal()
        there, is_count = self._elaborate_operations(m, place)

        index = _granules_of_counts(index_walk.address)
        target, placed = Signal(target_layout), target_layout(targets.r_data)
        wanted = Signal()
        m.d.comb += [
            wanted.eq(out_walk.valid & there & ~stop),
            outside.eq(
                (~is_count & self._outside(out_walk.address))
                | (form.compress & self._outside(index))
            ),
            place.eq(wanted & ~outside & (pending != _RESULTS)),
            out_walk.step.eq(place),
            out_walk.leave.eq(is_count),
            index_walk.step.eq(self._scales_asked | (place & is_count)),
            target.address.eq(Mux(is_count, index, out_walk.address)),
            target.is_count.eq(is_count),
            target.offset.eq(index_walk.address),
            target.tail.eq(Mux(form.transpose, out_walk.ends[1], form.expand & out_walk.ends[0])),
            target.final.eq(out_walk.ends.all() & (is_count | ~form.compress)),
            targets.w_en.eq(place),
            targets.w_data.eq(target),
        ]

        written = Signal()
        m.d.comb += [
            # Its target has been there for as long as a result, or longer.
            self.write.valid.eq(results.r_rdy),
            self.write.address.eq(placed.address),
            self.write.banks.eq(banks_of(m, self.config, placed.address)),
            self.write.mask.eq(~0),
            written.eq(self.write.valid & self.write.ready),
            targets.r_en.eq(written),
            results.r_en.eq(written),
        ]
        with m.If(placed.is_count):
            m.d.comb += self.write.mask.eq(Const(3, 2) << (placed.offset << _COUNT_BITS))
        for i in range(GRANULE):
            kept = ~placed.tail | (form.tail_byte >= i)
            m.d.comb += self.write.data.word_select(i, 8).eq(
                Mux(kept, results.r_data.word_select(i, 8), 0)
            )
        m.d.sync += pending.eq(pending + place - written)
        return wanted & outside, written & placed.final, pending

    def _elaborate_operations(self, m: Module, place):
        """Give the operations their input, and let ``place`` take a result of the one that runs.

        Returns whether there is one, and whether it is a count. The result itself comes to the
        queue of results when it is made.
        """
        form, subs = self._form, m.submodules
        transposer, expander, compressor = subs.transposer, subs.expander, subs.compressor
        rows, scales, results = subs.rows, subs.scales, subs.results
        row = Signal(row_layout())
        there, is_count = Signal(), Signal()
        row_ends = subs.out_walk.ends[0]
        number = subs.out_walk.index  # of this result in its row, or of the column in its tile
        m.d.comb += [
            row.eq(rows.r_data),
            transposer.size.eq(form.size),
            transposer.row.payload.eq(row),
            transposer.row.valid.eq(form.transpose & rows.r_rdy),
            transposer.take.eq(form.transpose & place),
            transposer.column.eq(number),
            transposer.last.eq(row_ends),
            compressor.format.as_value().eq(self._body.in_format),
            compressor.tail.eq(form.tail),
            compressor.row.payload.eq(row),
            compressor.row.valid.eq(form.compress & rows.r_rdy),
            compressor.take.eq(form.compress & place),
            expander.format.as_value().eq(self._body.in_format),
            expander.place.eq(number[: len(expander.place)]),
            expander.numbers.eq(row.data),
            expander.scales.eq(scales.r_data),
            expander.take.eq(form.expand & place),
            scales.r_en.eq(expander.take & (expander.scales_last | row_ends)),
            is_count.eq(form.compress & compressor.is_count),
        ]
        with m.If(form.transpose):
            m.d.comb += [
                there.eq(transposer.ready),
                rows.r_en.eq(transposer.row.ready),
                results.w_en.eq(transposer.valid_o),
                results.w_data.eq(transposer.granule),
            ]
        with m.Elif(form.compress):
            m.d.comb += [
                there.eq(compressor.valid),
                rows.r_en.eq(compressor.row.ready),
                results.w_en.eq(compressor.take),
                results.w_data.eq(compressor.granule),
            ]
        with m.Else():
            m.d.comb += [
                there.eq(rows.r_rdy & scales.r_rdy),
                rows.r_en.eq(expander.take & (expander.numbers_last | row_ends)),
                results.w_en.eq(expander.valid_o),
                results.w_data.eq(expander.granule),
            ]
        return there, is_count


def _granules_of_counts(value):
    """Return an address in counts in granules."""
    return value[(GRANULE // _COUNT_BYTES - 1).bit_length() :]


def _loops(m: Module, walk: Walk, *loops) -> None:
    """Give a walk the bound and stride of each loop, the innermost first."""
    for i, (bound, stride) in enumerate(loops):
        m.d.comb += [walk.bound[i].eq(bound), walk.stride[i].eq(stride)]
