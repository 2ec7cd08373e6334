"""The fill path: reads windows of the resident operand and turns them into operand words."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, RELEASE_WORDS, CardConfig
from ..core.ports import ReadPort
from ..hierarchy import Repeated
from ..isa import LANES, Format, MatmulBody, Mode, Status
from ..numerics.widen import mode_of
from .ports import fill_layout
from .serializer import SETS, Serializer

__all__ = ["Fill"]

_SPOT = data.StructLayout({"offset": signed(32), "outer": signed(32), "inner": unsigned(16)})
"""Where a column is: its byte offset, that of its outer loop's start, and its place from there."""


class Fill(wiring.Component):
    """Fills the operand memories of all columns in step, one word a column and cycle.

    For each column block of an iteration, element k of each column is widened to the array's mode
    and written to the next ring address: the block's k run through the ring in order; after the
    last one the address advances to the next multiple of `RELEASE_WORDS`. Reads follow the windows
    that `MatmulBody` describes; each takes a *chunk*: up to `CardConfig.fill_bytes` of one block
    column, from any byte address. Writing stops where the ring still holds words that an engine has
    not released. Iterations follow each other, of one command or of several with the same mode.

    A chunk is read of each block column before its words are written: where no read waits, the
    first word leaves ``min(n, cols * LANES) + 4`` cycles after ``start``. A chunk is asked for in
    every cycle, up to `SETS` chunks of each column ahead, with no bubble between chunks, runs,
    blocks or iterations; nor is there one between words whose chunks are here.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(stream)``
        Byte address of the resident operand: starts an iteration. One of another mode than that of
        the iteration before it only after its ``done``.
    body : ``In(MatmulBody)``
        With ``start``: the command. One that breaks its rules makes words without meaning, and may
        need a reset.
    read : ``Out(ReadPort)``
        As wide as two chunks.
    fill : ``Out(fill_layout).array(cols)``
    release : ``In(1)``
        Pulses when every engine is done with the oldest `RELEASE_WORDS` words of the ring.
    done : ``Out(1)``
        Pulses with an iteration's last word. Its results may be there earlier: not every operand
        needs to meet a weight.
    error : ``Out(2)``, status : ``Out(Status)``
        High from an address outside the scratchpad on; nothing more is read. Iterations have the
        two bits by turns, the first one after a reset the first.
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
                "done": Out(1),
                "error": Out(2),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        # The mode of what is loaded and written, which comes later than the start.
        mode = Signal(Mode)
        columns = [Serializer(config) for _ in range(config.cols)]
        for c, column in enumerate(columns):
            m.submodules[f"column_{c}"] = Repeated(column, "serializer")
            m.d.comb += column.mode.eq(mode)
        # What is still to be known of a chunk when all block columns have been read of.
        chunk = data.StructLayout(
            {
                "bytes": range(config.fill_bytes + 1),
                "in_format": 8,
                "block_end": 1,
                "iteration_end": 1,
            }
        )
        m.submodules.chunks = chunks = SyncFIFO(width=chunk.size, depth=SETS)
        # Sets that are free to be asked for, and sets that all block columns have arrived in.
        free, full = Signal(range(SETS + 1), init=SETS), Signal(range(SETS + 1))
        claimed, asked = self._ask(m, mode, free.any(), chunks, chunk)
        arrived = self._load(m, mode, asked, columns)
        done = self._write(m, full.any(), data.View(chunk, chunks.r_data), columns)
        m.d.comb += chunks.r_en.eq(done)
        m.d.sync += [free.eq(free - claimed + done), full.eq(full + arrived - done)]
        return m

    def _ask(self, m: Module, mode, free, chunks: SyncFIFO, chunk: data.StructLayout):
        """Walk blocks, runs, chunks and block columns; ask for one chunk a cycle.

        Returns whether a set was claimed, and for the request on the port its place in a granule
        and whether it is its chunk's last.
        """
        config = self._config
        size = config.fill_bytes
        first_mode, _ = mode_of(m, self.body.stream_format, self.body.in_format)
        first_k_bytes, first_columns = Signal(17), Signal(range(4 * config.cols + 1))
        m.d.comb += first_k_bytes.eq(self.body.k)
        with m.Switch(self.body.in_format):
            with m.Case(Format.INT4):
                m.d.comb += first_k_bytes.eq(self.body.k >> 1)
            with m.Case(Format.FP16, Format.BF16):
                m.d.comb += first_k_bytes.eq(self.body.k << 1)
        with m.Switch(first_mode):
            for each, lanes in LANES.items():
                with m.Case(each):
                    m.d.comb += first_columns.eq(config.cols * lanes)

        # Where the walk is. An iteration's first chunk is asked for in the cycle of its start, so
        # that what would be loaded then is used at once.
        active, going = Signal(), Signal()
        turn = Signal()  # of the iteration that is walked, or is next
        m.d.comb += [self.start.ready.eq(~active), going.eq(active | self.start.valid)]
        with m.If(self.start.valid & ~active):
            m.d.sync += mode.eq(first_mode)

        def kept(shape, first: Value, name: str) -> Signal:
            """Return what ``first`` is, and was in the cycle of the start."""
            register = Signal(shape, name=f"{name}_kept", reset_less=True)
            now = Signal(shape, name=name)
            m.d.comb += now.eq(Mux(active, register, first))
            with m.If(~active):
                m.d.sync += register.eq(first)
            return now

        k_bytes = kept(17, first_k_bytes, "k_bytes")
        block_columns = kept(first_columns.shape(), first_columns, "block_columns")
        body = {
            name: kept(MatmulBody.as_shape()[name].shape, self.body[name], name)
            for name in (
                *("n_inner", "run_bytes", "runs_inner", "in_format"),
                *(f"x_{name}_stride" for name in ("run", "run_outer", "inner", "outer")),
            )
        }

        def walk(width: int, first: Value, name: str) -> tuple[Signal, Signal]:
            """Return a register that starts as ``first``, and what it is now."""
            register = Signal(width, name=name, reset_less=True)
            now = Signal(width, name=f"{name}_now")
            m.d.comb += now.eq(Mux(active, register, first))
            m.d.sync += register.eq(now)
            return register, now

        _, base_now = walk(32, self.start.payload, "base")
        chunk_base, chunk_base_now = walk(32, self.start.payload, "chunk_base")
        run_base, run_base_now = walk(32, self.start.payload, "run_base")
        outer_base, outer_base_now = walk(32, self.start.payload, "outer_base")
        runs_left, runs_left_now = walk(16, self.body.runs_inner, "runs_left")
        run_left, run_left_now = walk(16, self.body.run_bytes, "run_left")
        k_left, k_left_now = walk(17, first_k_bytes, "k_left")
        columns, columns_now = walk(16, self.body.n, "columns")

        # The block column's offset from where column 0 would be. Zero between iterations.
        block_spot, here = Signal(_SPOT), Signal(_SPOT)
        next_spot = self._next_spot(m, here, body)
        index = Signal(range(4 * config.cols))
        limit, chunk_bytes = Signal(range(4 * config.cols + 1)), Signal(range(size + 1))
        last_block = columns_now <= block_columns
        last_run = runs_left_now == 1
        next_run = (
            Mux(last_run, outer_base_now, run_base_now)
            + Mux(last_run, body["x_run_outer_stride"], body["x_run_stride"])
        )[:32]
        m.d.comb += [
            limit.eq(Mux(last_block, columns_now, block_columns)),
            chunk_bytes.eq(Mux(run_left_now < size, run_left_now, size)),
        ]

        asked, asked_address = Signal(), Signal(32)
        asked_last, asked_end, asked_turn = Signal(range(size)), Signal(), Signal()
        accepted = self.read.valid & self.read.ready
        step, end_chunk, end_run, end_block = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            step.eq(going & (~asked | accepted) & (index.any() | free)),
            end_chunk.eq(index + 1 == limit),
            end_run.eq(run_left_now <= size),
            end_block.eq(k_left_now <= chunk_bytes),
        ]
        m.d.sync += active.eq(going)
        with m.If(accepted):
            m.d.sync += asked.eq(0)
        with m.If(step):
            m.d.sync += [
                asked.eq(1),
                asked_address.eq(chunk_base_now + here.offset),
                asked_last.eq(chunk_bytes - 1),
                asked_end.eq(end_chunk),
                asked_turn.eq(turn),
                here.eq(next_spot),
                index.eq(index + 1),
            ]
            with m.If(end_chunk):
                m.d.sync += [
                    index.eq(0),
                    here.eq(block_spot),
                    k_left.eq(k_left_now - chunk_bytes),
                    run_left.eq(run_left_now - size),
                    chunk_base.eq(chunk_base_now + size),
                ]
                with m.If(end_run):
                    m.d.sync += [
                        run_left.eq(body["run_bytes"]),
                        run_base.eq(next_run),
                        chunk_base.eq(next_run),
                        runs_left.eq(runs_left_now - 1),
                    ]
                    with m.If(last_run):
                        m.d.sync += [runs_left.eq(body["runs_inner"]), outer_base.eq(next_run)]
                with m.If(end_block):
                    m.d.sync += [
                        k_left.eq(k_bytes),
                        run_left.eq(body["run_bytes"]),
                        runs_left.eq(body["runs_inner"]),
                        chunk_base.eq(base_now),
                        run_base.eq(base_now),
                        outer_base.eq(base_now),
                        columns.eq(columns_now - limit),
                        block_spot.eq(next_spot),
                        here.eq(next_spot),
                    ]
                    with m.If(last_block):
                        m.d.sync += [active.eq(0), turn.eq(~turn), block_spot.eq(0), here.eq(0)]

        info = data.View(chunk, chunks.w_data)
        m.d.comb += [
            chunks.w_en.eq(step & end_chunk),
            info.bytes.eq(chunk_bytes),
            info.in_format.eq(body["in_format"]),
            info.block_end.eq(end_block),
            info.iteration_end.eq(end_block & last_block),
        ]
        self._request(m, asked, asked_address, asked_last, asked_turn)
        return step & ~index.any(), Cat(asked_address[:4], asked_end)

    def _next_spot(self, m: Module, here, body) -> Signal:
        """Return the spot of the block column behind ``here``."""
        result = Signal(_SPOT, name="next_spot")
        inner_end = here.inner + 1 == body["n_inner"]
        offset = (
            Mux(inner_end, here.outer, here.offset)
            + Mux(inner_end, body["x_outer_stride"], body["x_inner_stride"])
        )[:32]
        m.d.comb += [
            result.offset.eq(offset),
            result.outer.eq(Mux(inner_end, offset, here.outer)),
            result.inner.eq(Mux(inner_end, 0, here.inner + 1)),
        ]
        return result

    def _request(
        self, m: Module, asked: Signal, address: Signal, last: Signal, turn: Signal
    ) -> None:
        """Ask for the chunk from ``address`` to ``last`` bytes on, if it is in the scratchpad."""
        outside = Signal()
        spad_bits = (self._config.scratchpad_bytes - 1).bit_length()
        end = Signal(range(2 * self._config.fill_bytes))
        m.d.comb += [
            end.eq(address[:4] + last),
            *(needed.eq(end[4:] >= i) for i, needed in enumerate(self.read.needed)),
            outside.eq((address + last)[spad_bits:].any()),
            self.read.valid.eq(asked & ~outside),
            self.read.address.eq(address[4:]),
            self.error.eq(Mux(asked & outside, Mux(turn, 2, 1), 0)),
            self.status.eq(Status.BAD_ADDRESS),
        ]

    def _load(self, m: Module, mode, asked, columns: list[Serializer]) -> Value:
        """Two cycles after a request its granules are here: store the chunk that they hold.

        Returns whether it completes its set.
        """
        asked1, asked2 = Signal(5), Signal(5)
        m.d.sync += [asked1.eq(asked), asked2.eq(asked1)]
        shift, last = asked2[:4], asked2[4]
        loaded_set = Signal(range(SETS))
        # Counts lanes by fours: what is not used of an index (1 of 2 lanes, 3 of 1) is passed over.
        place, lanes = Signal(range(4 * self._config.cols)), Signal(3)
        arrived = self.read.data_valid & last
        with m.Switch(mode):
            for each, count in LANES.items():
                with m.Case(each):
                    m.d.comb += lanes.eq(4 // count)
        with m.If(self.read.data_valid):
            m.d.sync += place.eq(Mux(last, 0, place + lanes))
        m.d.sync += loaded_set.eq(loaded_set + arrived)

        half = 4 * self._config.fill_bytes
        halves = [Signal(half, name=f"half{i}") for i in range(2)]
        with m.If(self.read.data_valid):
            chunk = self.read.data >> (shift << 3)
            m.d.comb += Cat(halves).eq(chunk)
        for c, column in enumerate(columns):
            for pair in range(2):
                at = place[1:] == 2 * c + pair
                m.d.comb += column.load[pair].eq(self.read.data_valid & at)
            m.d.comb += [
                column.load_odd.eq(place[0]),
                column.load_set.eq(loaded_set),
                column.chunk[0].eq(Mux(place[0], halves[1], halves[0])),
                column.chunk[1].eq(Mux(place[0], halves[0], halves[1])),
            ]
        return arrived

    def _write(self, m: Module, full, chunk, columns: list[Serializer]) -> Value:
        """Write words of full sets to all columns; return whether one is the last of its set."""
        config = self._config
        low = (RELEASE_WORDS - 1).bit_length()
        units = config.operand_depth // RELEASE_WORDS
        space = Signal(range(units + 1), init=units)
        address = Signal(range(config.operand_depth))
        picked_set = Signal(range(SETS))
        position, nibbles = Signal(range(2 * config.fill_bytes)), Signal(3)
        next_position = Signal(range(2 * config.fill_bytes + 1))
        write, claim, done = Signal(), Signal(), Signal()
        m.d.comb += nibbles.eq(2)
        with m.Switch(chunk.in_format):
            with m.Case(Format.INT4):
                m.d.comb += nibbles.eq(1)
            with m.Case(Format.FP16, Format.BF16):
                m.d.comb += nibbles.eq(4)
        m.d.comb += [
            # The ring is claimed in the units that it is released in.
            claim.eq(~address[:low].any()),
            write.eq(full & (~claim | space.any())),
            next_position.eq(position + nibbles),
            done.eq(write & (next_position == chunk.bytes << 1)),
        ]
        m.d.sync += space.eq(space - (write & claim) + self.release)
        with m.If(write):
            m.d.sync += [position.eq(next_position), address.eq(address + 1)]
        with m.If(done):
            m.d.sync += [position.eq(0), picked_set.eq(picked_set + 1)]
            with m.If(chunk.block_end):
                m.d.sync += address.eq(Cat(Const(0, low), address[low:] + 1))

        # The word leaves the serializers a cycle after it was picked.
        fill_address, fill_valid = Signal.like(address, reset_less=True), Signal()
        fill_format = Signal(8, reset_less=True)
        m.d.sync += [
            fill_address.eq(address),
            fill_format.eq(chunk.in_format),
            fill_valid.eq(write),
            self.done.eq(done & chunk.iteration_end),
        ]
        for port, column in zip(self.fill, columns, strict=True):
            m.d.comb += [
                column.pick_set.eq(picked_set),
                column.position.eq(position),
                column.in_format.eq(fill_format),
                port.value.eq(column.word),
                port.address.eq(fill_address),
                port.valid.eq(fill_valid),
            ]
        return done
