"""The row engine: walks the directory, fetches its streams, and issues one weight a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import DirectoryEntry, Format, MatmulBody, MatmulFlag, Status
from .ports import stream_layout, visit_layout
from .stream_port import EngineFetch

__all__ = ["RowEngine", "engine_start_layout"]

_FETCH_AHEAD = 4
"""Granules that an engine holds or has asked for."""


def engine_start_layout(config: CardConfig) -> data.StructLayout:
    """Layout of an iteration's start: granule address of the engine's first directory entry and of
    the blob, byte address of the output."""
    return data.StructLayout({"entry": unsigned(28), "blob": unsigned(28), "output": unsigned(32)})


def _visit_queue_layout() -> data.StructLayout:
    return data.StructLayout(
        {"count": unsigned(16), "visit": visit_layout(), "release": unsigned(1)}
    )


class RowEngine(wiring.Component):
    """Turns one engine's part of the stream blob into weights, one a cycle.

    For every column block, and in it for every directory entry of the engine, the stream is
    fetched, decoded and issued. A weight is issued when its operand has reached the row, a visit's
    last weight also only when the drain is free and the epilogue lane has room. There is no bubble
    between visits, blocks or iterations that are ready in time.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(stream)``
        Starts an iteration (`engine_start_layout`); one may wait while another runs.
    body : ``In(MatmulBody)``
        The command; still while it runs.
    fetch : ``Out(EngineFetch)``
        To the scratchpad.
    filled : ``In(1)``
        Pulses for each operand word that has reached the row.
    stream : ``Out(stream_layout)``
    visit : ``Out(stream)``
        Descriptor of each visit (`visit_layout`), before its first weight.
    credit : ``In(1)``
        Pulses when a non-empty visit has left the lane's input; two may be in it.
    active, stall_stream, stall_fill, stall_drain : ``Out(1)``
        What the engine did in this cycle; none of them when it has no work.
    error : ``Out(1)``, status : ``Out(Status)``
        Pulses when the blob is wrong.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(stream.Signature(engine_start_layout(config))),
                "body": In(MatmulBody),
                "fetch": Out(EngineFetch(config)),
                "filled": In(1),
                "stream": Out(stream_layout(config)),
                "visit": Out(stream.Signature(visit_layout())),
                "credit": In(1),
                "active": Out(1),
                "stall_stream": Out(1),
                "stall_fill": Out(1),
                "stall_drain": Out(1),
                "error": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._fp16 = Signal()
        self._sparse = Signal()
        m.d.comb += [
            self._fp16.eq(self.body.in_format == Format.FP16),
            self._sparse.eq((self.body.flags & MatmulFlag.SPARSE.value) != 0),
        ]
        m.submodules.granules = granules = SyncFIFO(width=128, depth=_FETCH_AHEAD)
        layout = _visit_queue_layout()
        m.submodules.visits = visits = SyncFIFO(width=layout.size, depth=2)
        walking = self._walk(m, granules, visits)
        self._issue(m, granules, visits, layout, walking)
        return m

    def _fail(self, m: Module, status: Status) -> None:
        m.d.sync += [self.error.eq(1), self.status.eq(status)]

    def _walk(self, m: Module, granules: SyncFIFO, visits: SyncFIFO) -> Signal:
        """Fetch directory entries, one ahead, and the granules of the streams that they name.

        Returns whether anything is still to be fetched.
        """
        config, body = self._config, self.body
        m.d.sync += self.error.eq(0)

        # The walk over the directory, once a column block.
        walking = Signal()
        first_entry, entry = Signal(28), Signal(28)
        blob, output = Signal(28), Signal(32)
        visit, columns = Signal(16), Signal(16)
        block_first = Signal()
        block_columns = Mux(self._fp16, config.cols, 2 * config.cols)
        asked = Signal()
        ahead = Signal(data.StructLayout({"entry": DirectoryEntry, "blob": unsigned(28)}))
        ahead_valid = Signal()
        flags = data.StructLayout(
            {"first": 1, "new": 1, "last": 1, "iteration_last": 1, "output": unsigned(32)}
        )
        ahead_flags = Signal(flags)

        m.d.comb += self.start.ready.eq(~walking)
        with m.If(~walking & self.start.valid):
            start = self.start.payload
            m.d.sync += [
                walking.eq(1),
                first_entry.eq(start.entry),
                entry.eq(start.entry),
                blob.eq(start.blob),
                output.eq(start.output),
                visit.eq(0),
                columns.eq(body.n),
                block_first.eq(1),
            ]

        entry_outside = entry[config.granule_addr_width :].any()
        ask_entry = walking & ~ahead_valid & ~asked
        with m.If(ask_entry & entry_outside):
            self._fail(m, Status.BAD_ADDRESS)
        block_last = Signal()
        last_block = Signal()
        m.d.comb += [
            block_last.eq(visit == body.visits - 1),
            last_block.eq(columns <= block_columns),
        ]
        with m.If(self.fetch.entry_valid):
            m.d.sync += [
                asked.eq(0),
                ahead_valid.eq(1),
                ahead.entry.eq(self.fetch.data),
                ahead.blob.eq(blob),
                ahead_flags.first.eq(block_first),
                ahead_flags.new.eq(visit == 0),
                ahead_flags.last.eq(block_last),
                ahead_flags.iteration_last.eq(block_last & last_block),
                ahead_flags.output.eq(output),
            ]
            with m.If(~block_last):
                m.d.sync += [visit.eq(visit + 1), entry.eq(entry + config.rows)]
            with m.Elif(~last_block):
                m.d.sync += [
                    visit.eq(0),
                    entry.eq(first_entry),
                    columns.eq(columns - block_columns),
                    block_first.eq(0),
                ]
            with m.Else():
                m.d.sync += walking.eq(0)

        # The stream of the entry that is ahead.
        address, left = Signal(28), Signal(signed(17))
        per_granule = Signal(5)
        with m.If(self._sparse):
            m.d.comb += per_granule.eq(Mux(self._fp16, 5, 8))
        with m.Else():
            m.d.comb += per_granule.eq(Mux(self._fp16, 8, 16))
        queued = data.View(_visit_queue_layout(), visits.w_data)
        taken = ahead_valid & (left <= 0) & visits.w_rdy
        with m.If(taken):
            m.d.sync += [
                ahead_valid.eq(0),
                address.eq(ahead.blob + ahead.entry.stream),
                left.eq(ahead.entry.count),
            ]
            size_mask = Signal(2)
            with m.Switch(body.out_format):
                with m.Case(Format.FP16):
                    m.d.comb += size_mask.eq(1)
                with m.Case(Format.FP32, Format.INT32):
                    m.d.comb += size_mask.eq(3)
            with m.If(ahead.entry.count.any()):
                with m.If((ahead.entry.out_offset[:2] & size_mask).any()):
                    self._fail(m, Status.BAD_ALIGNMENT)
                with m.If(~self._sparse & (ahead.entry.count != body.k)):
                    self._fail(m, Status.BAD_INDEX)
        m.d.comb += [
            visits.w_en.eq(taken),
            queued.count.eq(ahead.entry.count),
            queued.release.eq(ahead_flags.last),
            queued.visit.address.eq(ahead_flags.output + ahead.entry.out_offset),
            queued.visit.bias.eq(ahead.entry.bias),
            queued.visit.scale.eq(ahead.entry.scale),
            queued.visit.block_first.eq(ahead_flags.first),
            queued.visit.block_new.eq(ahead_flags.new),
            queued.visit.empty.eq(~ahead.entry.count.any()),
            queued.visit.iteration_last.eq(ahead_flags.iteration_last),
        ]

        room = Signal(range(_FETCH_AHEAD + 1), init=_FETCH_AHEAD)
        ask_granule = (left > 0) & room.any()
        granule_outside = address[config.granule_addr_width :].any()
        with m.If(ask_granule & granule_outside):
            self._fail(m, Status.BAD_ADDRESS)
        m.d.comb += [
            self.fetch.valid.eq((ask_entry & ~entry_outside) | (ask_granule & ~granule_outside)),
            self.fetch.entry.eq(ask_entry & ~entry_outside),
            self.fetch.address.eq(Mux(self.fetch.entry, entry, address)),
            granules.w_en.eq(self.fetch.granule_valid),
            granules.w_data.eq(self.fetch.data),
        ]
        asked_granule = self.fetch.valid & self.fetch.ready & ~self.fetch.entry
        with m.If(self.fetch.valid & self.fetch.ready & self.fetch.entry):
            m.d.sync += asked.eq(1)
        with m.If(asked_granule):
            m.d.sync += [address.eq(address + 1), left.eq(left - per_granule)]
        m.d.sync += room.eq(room - asked_granule + (granules.r_en & granules.r_rdy))

        return walking | ahead_valid | (left > 0)

    def _issue(
        self,
        m: Module,
        granules: SyncFIFO,
        visits: SyncFIFO,
        layout: data.StructLayout,
        walking,
    ) -> None:
        """Decode granules into the head register, and issue the head."""
        config, body = self._config, self.body
        depth_bits = (config.operand_depth - 1).bit_length()

        # Issue: the head leaves when its operand is there, a last one also when the drain is free.
        head = Signal(stream_layout(config))
        head_k = Signal(depth_bits)
        head_valid = Signal()
        # Words of the head's block that have arrived; negative where the engine is done with a
        # block that is still being filled.
        available = Signal(signed(depth_bits + 2))
        spacing = Signal(range(config.min_visit))
        credits = Signal(2, init=2)
        operand_ready, drain_ready, issue = Signal(), Signal(), Signal()
        m.d.comb += [
            operand_ready.eq(head_k < available),
            drain_ready.eq(~head.last | (~spacing.any() & credits.any())),
            issue.eq(head_valid & operand_ready & drain_ready),
            self.active.eq(issue & head.valid),
            self.stall_fill.eq(head_valid & ~operand_ready),
            self.stall_drain.eq(head_valid & operand_ready & ~drain_ready),
        ]
        m.d.sync += [
            self.stream.eq(head),
            self.stream.valid.eq(issue & head.valid),
            self.stream.release.eq(issue & head.release),
            available.eq(available + self.filled - Mux(issue & head.release, body.k, 0)),
            credits.eq(credits + self.credit - (issue & head.last)),
        ]
        with m.If(issue & head.last):
            m.d.sync += spacing.eq(config.min_visit - 1)
        with m.Elif(spacing.any()):
            m.d.sync += spacing.eq(spacing - 1)

        # Decode: one entry a cycle from the granule's values and deltas into the head. What has
        # been used up is replaced in the same cycle, so that there is no bubble.
        low, high, deltas = Signal(64), Signal(64), Signal(64)
        in_granule = Signal(5)
        in_visit = Signal(16)
        visit_first, visit_release = Signal(), Signal()
        k, ring = Signal(depth_bits + 1), Signal(depth_bits)
        ring_base = Signal(depth_bits)

        head_free = ~head_valid | issue
        decode, end_visit, end_granule = Signal(), Signal(), Signal()
        value = Mux(self._fp16, low[:16], low[:8])
        skip = Mux(self._sparse, deltas[:8], 0)
        m.d.comb += [
            decode.eq(head_free & in_granule.any() & in_visit.any()),
            end_visit.eq(decode & (in_visit == 1)),
            end_granule.eq(decode & ((in_granule == 1) | (in_visit == 1))),
        ]
        entry_k = Signal(depth_bits + 2)
        m.d.comb += entry_k.eq(k + skip)
        with m.If(head_free):
            m.d.sync += head_valid.eq(decode)
        with m.If(decode):
            m.d.sync += [
                head.value.eq(value),
                head.address.eq(ring + skip),
                head_k.eq(entry_k),
                head.valid.eq(1),
                head.first.eq(visit_first),
                head.last.eq(in_visit == 1),
                head.release.eq(visit_release & (in_visit == 1)),
                k.eq(entry_k + 1),
                ring.eq(ring + skip + 1),
                in_visit.eq(in_visit - 1),
                in_granule.eq(Mux(in_visit == 1, 0, in_granule - 1)),
                visit_first.eq(0),
                deltas.eq(deltas >> 8),
            ]
            with m.If(self._fp16):
                m.d.sync += [low.eq(Cat(low[16:], high[:16])), high.eq(high >> 16)]
            with m.Else():
                m.d.sync += [low.eq(Cat(low[8:], high[:8])), high.eq(high >> 8)]
            with m.If(entry_k >= body.k):
                self._fail(m, Status.BAD_INDEX)

        with m.If(~in_granule.any() | end_granule):
            m.d.comb += granules.r_en.eq(1)
            with m.If(granules.r_rdy):
                upper = granules.r_data[64:]
                m.d.sync += [
                    low.eq(granules.r_data[:64]),
                    high.eq(upper),
                    deltas.eq(Mux(self._fp16, upper >> 16, upper)),
                ]
                with m.If(self._sparse):
                    m.d.sync += in_granule.eq(Mux(self._fp16, 5, 8))
                with m.Else():
                    m.d.sync += in_granule.eq(Mux(self._fp16, 8, 16))

        queued = data.View(layout, visits.r_data)
        # An empty visit passes the head as a bubble, to keep its place in the order.
        wanted = ~in_visit.any() | end_visit
        empty_ready = head_free & ~decode
        m.d.comb += [
            self.visit.payload.eq(queued.visit),
            self.visit.valid.eq(visits.r_rdy & wanted & (~queued.visit.empty | empty_ready)),
            visits.r_en.eq(self.visit.valid & self.visit.ready),
        ]
        with m.If(visits.r_en):
            base = Signal(depth_bits)
            m.d.comb += base.eq(ring_base)
            m.d.sync += [
                in_visit.eq(queued.count),
                visit_first.eq(1),
                visit_release.eq(queued.release),
                k.eq(0),
                ring.eq(base),
            ]
            with m.If(queued.release):
                m.d.sync += ring_base.eq(base + body.k)
            with m.If(queued.visit.empty):
                m.d.sync += [
                    head_valid.eq(1),
                    head_k.eq(0),
                    head.valid.eq(0),
                    head.first.eq(0),
                    head.last.eq(0),
                    head.release.eq(queued.release),
                ]

        busy = walking | visits.r_rdy | in_visit.any()
        m.d.comb += self.stall_stream.eq(~head_valid & busy)
