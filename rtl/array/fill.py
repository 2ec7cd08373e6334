"""The fill path: reads windows of the resident operand and turns them into operand words."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..core.ports import ReadPort
from ..isa import Format, MatmulBody, Status
from .ports import fill_layout

__all__ = ["Fill"]

_READ_AHEAD = 8
"""Chunks read or asked for, and not yet in a column."""


class _Serializer(wiring.Component):
    """One column's transposition: takes chunks of consecutive k, gives an operand word a cycle.

    Members
    -------
    fp16 : format
    load : load ``chunk`` into the waiting register of lane 0 or 1
    transfer : move what waits into the shift registers
    shift : next word
    word : the current one
    """

    def __init__(self, chunk_bytes: int) -> None:
        self._parts = chunk_bytes // 8
        super().__init__(
            {
                "fp16": In(1),
                "load": In(2),
                "chunk": In(8 * chunk_bytes),
                "transfer": In(1),
                "shift": In(1),
                "word": Out(16),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = []
        for lane in range(2):
            # In parts of 64 bits, which simulate faster than one wide register.
            waiting, parts = (
                [Signal(64, name=f"{name}{lane}_{i}", reset_less=True) for i in range(self._parts)]
                for name in ("waiting", "part")
            )

            def shifted(bits: int, parts=parts) -> list:
                above = [*parts[1:], Const(0, 64)]
                return [
                    part.eq(Cat(part[bits:], upper[:bits]))
                    for part, upper in zip(parts, above, strict=True)
                ]

            with m.If(self.load[lane]):
                m.d.sync += Cat(waiting).eq(self.chunk)
            with m.If(self.transfer):
                m.d.sync += Cat(parts).eq(Cat(waiting))
            with m.Elif(self.shift):
                if lane == 0:
                    with m.If(self.fp16):
                        m.d.sync += shifted(16)
                    with m.Else():
                        m.d.sync += shifted(8)
                else:
                    m.d.sync += shifted(8)
            words.append(parts[0])
        m.d.comb += self.word.eq(Mux(self.fp16, words[0][:16], Cat(words[0][:8], words[1][:8])))
        return m


class Fill(wiring.Component):
    """Fills the operand memories of all columns in step, one word a column and cycle.

    For each column block of an iteration, element k of each column is written to the next ring
    address: the block's k run through the ring in order. Reads follow the windows that
    `MatmulBody` describes; each takes up to `CardConfig.fill_bytes` from any byte address. Writing
    stops where the ring still holds words that an engine has not released.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(stream)``
        Byte address of the resident operand: starts an iteration.
    body : ``In(MatmulBody)``
        The command; still while it runs.
    read : ``Out(ReadPort)``
        As wide as two chunks.
    fill : ``Out(fill_layout).array(cols)``
    release : ``In(1)``
        Pulses when every engine is done with the oldest block.
    error : ``Out(1)``, status : ``Out(Status)``
        Pulses on an address outside the scratchpad.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(stream.Signature(unsigned(32))),
                "body": In(MatmulBody),
                "read": Out(ReadPort(config, 2 * config.fill_bytes // GRANULE)),
                "fill": Out(fill_layout(config)).array(config.cols),
                "release": In(1),
                "error": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fp16 = Signal()
        m.d.comb += fp16.eq(self.body.in_format == Format.FP16)
        config = self._config
        count = range(2 * config.cols + 1)
        chunk = data.StructLayout({"columns": count, "words": range(config.fill_bytes + 1)})
        m.submodules.chunks = chunks = SyncFIFO(width=chunk.size, depth=4)
        m.submodules.loads = loads = SyncFIFO(width=8 * config.fill_bytes, depth=_READ_AHEAD)
        self._read(m, fp16, chunk, chunks, loads)
        self._write(m, fp16, chunk, chunks, loads)
        return m

    def _read(self, m: Module, fp16, chunk, chunks: SyncFIFO, loads: SyncFIFO) -> None:
        """Walk blocks, runs, chunks and columns; read one chunk a cycle."""
        config, body = self._config, self.body
        size = config.fill_bytes
        spot = data.StructLayout({"offset": signed(32), "outer": signed(32), "inner": unsigned(16)})
        active = Signal()
        base, run_base, chunk_base = Signal(32), Signal(32), Signal(32)
        columns, run_left, k_left = Signal(16), Signal(16), Signal(16)
        block_spot, here, next_spot = Signal(spot), Signal(spot), Signal(spot)
        index = Signal(range(2 * config.cols))
        limit, words = Signal(range(2 * config.cols + 1)), Signal(range(size + 1))
        block_columns = Mux(fp16, config.cols, 2 * config.cols)
        chunk_bytes = Signal(range(size + 1))
        with m.If(here.inner + 1 == body.n_inner):
            outer = (here.outer + body.x_outer_stride)[:32]
            m.d.comb += [
                next_spot.offset.eq(outer),
                next_spot.outer.eq(outer),
                next_spot.inner.eq(0),
            ]
        with m.Else():
            m.d.comb += [
                next_spot.offset.eq(here.offset + body.x_inner_stride),
                next_spot.outer.eq(here.outer),
                next_spot.inner.eq(here.inner + 1),
            ]
        m.d.comb += [
            limit.eq(Mux(columns < block_columns, columns, block_columns)),
            chunk_bytes.eq(Mux(run_left < size, run_left, size)),
            words.eq(Mux(fp16, chunk_bytes >> 1, chunk_bytes)),
        ]

        asked_address, asked_last = Signal(32), Signal(range(size))
        asked = Signal()
        room = Signal(range(_READ_AHEAD + 1), init=_READ_AHEAD)
        outside = Signal()
        spad_bits = (config.scratchpad_bytes - 1).bit_length()
        m.d.comb += [
            outside.eq((asked_address + asked_last)[spad_bits:].any()),
            self.read.valid.eq(asked & room.any() & ~outside),
            self.read.address.eq(asked_address[4:]),
            self.error.eq(asked & outside),
            self.status.eq(Status.BAD_ADDRESS),
        ]
        accepted = self.read.valid & self.read.ready
        step = active & (~asked | accepted) & chunks.w_rdy
        m.d.comb += self.start.ready.eq(~active)
        with m.If(accepted):
            m.d.sync += asked.eq(0)
        with m.If(self.start.ready & self.start.valid):
            m.d.sync += [
                active.eq(1),
                base.eq(self.start.payload),
                run_base.eq(self.start.payload),
                chunk_base.eq(self.start.payload),
                columns.eq(body.n),
                run_left.eq(body.run_bytes),
                k_left.eq(body.k),
                block_spot.eq(0),
                here.eq(0),
                index.eq(0),
            ]
        end_chunk = index + 1 == limit
        with m.If(step):
            m.d.sync += [
                asked.eq(1),
                asked_address.eq(chunk_base + here.offset),
                asked_last.eq(chunk_bytes - 1),
                here.eq(next_spot),
                index.eq(index + 1),
            ]
            with m.If(end_chunk):
                m.d.sync += [index.eq(0), here.eq(block_spot), k_left.eq(k_left - words)]
                with m.If(run_left > size):
                    m.d.sync += [
                        run_left.eq(run_left - size),
                        chunk_base.eq(chunk_base + size),
                    ]
                with m.Elif(k_left > words):
                    next_run = (run_base + body.x_run_stride)[:32]
                    m.d.sync += [
                        run_left.eq(body.run_bytes),
                        run_base.eq(next_run),
                        chunk_base.eq(next_run),
                    ]
                with m.Else():
                    m.d.sync += [
                        run_left.eq(body.run_bytes),
                        run_base.eq(base),
                        chunk_base.eq(base),
                        k_left.eq(body.k),
                        columns.eq(columns - limit),
                        block_spot.eq(next_spot),
                        here.eq(next_spot),
                    ]
                    with m.If(columns <= block_columns):
                        m.d.sync += active.eq(0)
        info = data.View(chunk, chunks.w_data)
        m.d.comb += [
            # Ahead of its chunks, since these may not all find room before the first is taken.
            chunks.w_en.eq(step & ~index.any()),
            info.columns.eq(limit),
            info.words.eq(words),
        ]

        # Two cycles later the granules that hold the chunk are here: pick its bytes.
        shift1, shift2 = Signal(4), Signal(4)
        m.d.sync += [shift1.eq(asked_address[:4]), shift2.eq(shift1)]
        aligned = Signal(8 * size, reset_less=True)
        aligned_valid = Signal()
        m.d.sync += aligned_valid.eq(self.read.data_valid)
        with m.If(self.read.data_valid):
            m.d.sync += aligned.eq(self.read.data >> (shift2 << 3))
        m.d.comb += [loads.w_en.eq(aligned_valid), loads.w_data.eq(aligned)]
        m.d.sync += room.eq(room - accepted + (loads.r_en & loads.r_rdy))

    def _write(self, m: Module, fp16, chunk, chunks: SyncFIFO, loads: SyncFIFO) -> None:
        """Load the columns' serializers in turn; write a word to all of them at once."""
        config = self._config
        columns = [_Serializer(config.fill_bytes) for _ in range(config.cols)]
        loaded = Signal(range(2 * config.cols + 1))
        info = data.View(chunk, chunks.r_data)
        full = Signal()
        words = Signal(range(config.fill_bytes + 1))
        space = Signal(range(config.operand_depth + 1), init=config.operand_depth)
        address = Signal(range(config.operand_depth))
        write, transfer, load = Signal(), Signal(), Signal()
        m.d.comb += [
            full.eq(chunks.r_rdy & (loaded == info.columns)),
            write.eq(words.any() & space.any()),
            transfer.eq(full & (~words.any() | (write & (words == 1)))),
            chunks.r_en.eq(transfer),
            # The registers that wait are free again once they were transferred.
            load.eq(loads.r_rdy & chunks.r_rdy & ~full),
            loads.r_en.eq(load),
        ]
        with m.If(transfer):
            m.d.sync += [loaded.eq(0), words.eq(info.words)]
        with m.Elif(write):
            m.d.sync += words.eq(words - 1)
        with m.If(load):
            m.d.sync += loaded.eq(loaded + 1)
        with m.If(write):
            m.d.sync += address.eq(address + 1)
        m.d.sync += space.eq(space - write + Mux(self.release, self.body.k, 0))

        for c, column in enumerate(columns):
            m.submodules[f"column_{c}"] = column
            m.d.comb += [
                column.fp16.eq(fp16),
                column.chunk.eq(loads.r_data),
                column.transfer.eq(transfer),
                column.shift.eq(write),
            ]
            with m.If(fp16):
                m.d.comb += column.load[0].eq(load & (loaded == c))
            with m.Else():
                m.d.comb += [
                    column.load[0].eq(load & (loaded == 2 * c)),
                    column.load[1].eq(load & (loaded == 2 * c + 1)),
                ]
            m.d.sync += [
                self.fill[c].value.eq(column.word),
                self.fill[c].address.eq(address),
                self.fill[c].valid.eq(write),
            ]
