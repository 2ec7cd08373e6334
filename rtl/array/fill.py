"""The fill path: reads windows of the resident operand and turns them into operand words."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, RELEASE_WORDS, CardConfig
from ..core.ports import ReadPort, banks_of
from ..elastic import Elastic
from ..hierarchy import Repeated
from ..isa import MatmulBody, Mode, Status
from ..numerics.widen import number_layout
from ..tech.gate import Gate
from .chunk_loader import ChunkLoader
from .fill_walk import row_layout, walk_rows
from .ports import fill_layout
from .serializer import SETS, Serializer

__all__ = ["Fill"]

_SPOT = data.StructLayout({"offset": 32, "outer": 32, "inner": 16})
"""Where a column is: its byte offset, that of its outer loop's start, and how many more columns
there are from there on, this one included."""


class Fill(wiring.Component):
    """Fills the operand memories of all columns in step, one word a column and cycle.

    For each column block of an iteration, element k of each column is widened to the array's mode
    and written to the next ring address: the block's k run through the ring in order; after the
    last one the address advances to the next multiple of `RELEASE_WORDS`. Reads follow the windows
    that `MatmulBody` describes; each takes a *chunk*: up to `CardConfig.fill_bytes` of one block
    column, from any byte address. Writing stops where the ring still holds words that an engine has
    not released. Iterations follow each other, of one command or of several with the same mode.

    A chunk is read of each block column before its words are written: where no read waits, the
    first word leaves ``min(n, cols * LANES) + 13`` cycles after ``start``. A chunk is asked for in
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
        High from an address outside the scratchpad on; nothing behind it is read. Iterations have
        the two bits by turns, the first one after a reset the first.
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
        # The mode of what is loaded and written, which comes later than the start. What the walk
        # has of it is void before one.
        mode, started = Signal(Mode), Signal()
        m.d.sync += started.eq(self.start.valid & self.start.ready)
        columns = [Serializer(config) for _ in range(config.cols)]
        for c, column in enumerate(columns):
            m.submodules[f"column_{c}"] = Repeated(column, "serializer")
            m.d.comb += column.mode.eq(mode)
        # What is still to be known of a chunk when all block columns have been read of.
        chunk = data.StructLayout(
            {
                "words_less": range(2 * config.fill_bytes),
                "single": 1,
                "number": number_layout(),
                "block_end": 1,
                "iteration_end": 1,
            }
        )
        m.submodules.chunks = chunks = Memory(shape=chunk, depth=SETS, init=[])
        chunk_in, chunk_out = chunks.write_port(), chunks.read_port(domain="comb")
        # Sets that are free to be asked for, and those that wait and all of which has arrived.
        free, full = Signal(range(SETS + 1), init=SETS), Signal(range(SETS + 1))
        next_free, any_free = Signal.like(free), Signal(init=1)
        next_full, any_full = Signal.like(full), Signal()
        command, claimed, asked = self._ask(m, any_free, chunk_in)
        with m.If(started):
            m.d.sync += mode.eq(command.mode)
        m.submodules.loader = loader = ChunkLoader(config)
        m.d.comb += [
            loader.mode.eq(mode),
            loader.asked.eq(asked),
            loader.data.eq(self.read.data),
            loader.data_valid.eq(self.read.data_valid),
        ]
        for column, load in zip(columns, loader.load, strict=True):
            m.d.comb += [
                column.load.eq(load),
                *(port.eq(row) for port, row in zip(column.load_rows, loader.rows, strict=True)),
                *(port.eq(part) for port, part in zip(column.chunk, loader.chunk, strict=True)),
            ]
        taken, done = self._write(m, any_full, chunk_out.data, columns)
        m.d.sync += chunk_out.addr.eq(chunk_out.addr + taken)
        m.d.comb += [
            next_free.eq(free - claimed + done),
            next_full.eq(full + loader.arrived - taken),
        ]
        m.d.sync += [
            free.eq(next_free),
            any_free.eq(next_free.any()),
            full.eq(next_full),
            any_full.eq(next_full.any()),
        ]
        return m

    def _ask(self, m: Module, free, chunks):
        """Ask for one chunk a cycle: for each row, of one block column after the other.

        Returns what is kept of the command, whether a set was claimed, and `asked_layout` of the
        request on the port.
        """
        config = self._config
        row, asking, taken = Signal(row_layout(config), reset_less=True), Signal(), Signal()
        # The row after it waits in a register, so that the walk goes on by itself.
        waiting_row, waits, walked = Signal.like(row), Signal(), Signal()
        # Whether nothing is to be walked or asked for, twice: one of them has many loads.
        idle, busy, goes_idle = Signal(init=1), Signal(), Signal()
        m.d.comb += self.start.ready.eq(~busy)
        m.d.sync += [idle.eq(goes_idle), busy.eq(~goes_idle)]
        command, next_row, known, walking = walk_rows(
            m, config, self.start, self.body, idle=idle, taken=walked
        )
        with m.If(~waits):
            m.d.sync += waiting_row.eq(next_row)
        m.d.sync += waits.eq(Mux(waits, ~taken, walked & asking))
        turn = Signal()  # of the iteration that is asked for, or is next

        # The block column's offset from where column 0 would be, that of its outer loop's start,
        # and its place from there, counted down. The block's first one is kept.
        here, block_spot = Signal(_SPOT, reset_less=True), Signal(_SPOT, reset_less=True)
        following, inner_last = Signal(_SPOT), Signal(reset_less=True)
        offset = Signal(32)
        m.d.comb += [
            offset.eq(
                Mux(
                    inner_last,
                    (here.outer + command.x_outer_stride)[:32],
                    (here.offset + command.x_inner_stride)[:32],
                )
            ),
            following.offset.eq(offset),
            following.outer.eq(Mux(inner_last, offset, here.outer)),
            following.inner.eq(Mux(inner_last, command.n_inner, here.inner - 1)),
        ]

        # A request is worked out in one cycle, checked in the next, and waits in a register.
        placed = Signal()
        address, last = Signal(32, reset_less=True), Signal(range(config.fill_bytes))
        first, end, wide, placed_turn = Signal(init=1), Signal(), Signal(), Signal()
        go, begins = Signal(), Signal()
        end_row = Signal(reset_less=True)  # ``left`` is 1
        left = Signal.like(row.columns, reset_less=True)

        def when_open(name: str, now: Value, always: Value | int = 0) -> Signal:
            """Whether ``now`` and there is room for a request, which is late; or ``always``."""
            m.submodules[name] = gate = Gate(
                lambda now, placed, go, always: always or (now and (go or not placed))
            )
            m.d.comb += gate.bits.eq(Cat(now, placed, go, always))
            return gate.out

        # Steps that can be made; of them those that end a row.
        can, can_end = Signal(), Signal()
        m.d.comb += [can.eq(asking & (~first | free)), can_end.eq(can & end_row)]
        step, row_ends = when_open("steps", can), when_open("row_ends", can_end)
        m.d.comb += [
            walked.eq(known & ~waits),
            goes_idle.eq(Mux(idle, ~self.start.valid, ~walking & ~waits & row_ends)),
            begins.eq(~asking & (waits | walked)),
            taken.eq(begins | (waits & row_ends)),
        ]
        m.d.sync += [
            placed.eq(when_open("places", can, placed & ~go)),
            asking.eq(begins | (asking & ~(row_ends & ~waits))),
            turn.eq(turn ^ (row_ends & row.block_end & row.last_block)),
        ]
        with m.If(step):
            m.d.sync += first.eq(end_row)
        # What is void otherwise is set in any case: it has not to wait for the step.
        with m.If(~placed | go):
            m.d.sync += [
                address.eq(row.base + here.offset),
                last.eq(row.bytes - 1),
                end.eq(end_row),
                wide.eq(command.number.is_wide),
                placed_turn.eq(turn),
            ]
        follows_last, goes_back = Signal(), Signal()
        m.d.comb += [
            goes_back.eq(end_row & ~row.block_end),
            follows_last.eq(Mux(inner_last, command.n_inner == 1, here.inner == 2)),
        ]
        with m.If(step):
            m.d.sync += [
                here.eq(Mux(goes_back, block_spot, following)),
                inner_last.eq(Mux(goes_back, block_spot.inner == 1, follows_last)),
            ]
        # Before the step, where it is to come: nothing goes back then.
        with m.If(asking & end_row & row.block_end):
            m.d.sync += block_spot.eq(following)
        with m.If(idle):
            inner = self.body.n_inner
            m.d.sync += [
                *(spot.eq(Cat(Const(0, 64), inner)) for spot in (here, block_spot)),
                inner_last.eq(inner == 1),
            ]
        # Where no row follows, what is taken of it is void: so it has not to be known.
        following_row = data.View(row.shape(), Mux(waits, waiting_row, next_row))
        with m.If(when_open("row_sets", can_end, ~asking)):
            m.d.sync += row.eq(following_row)
        with m.If(when_open("left_sets", can, ~asking)):
            goes_on = asking & ~end_row
            m.d.sync += [
                left.eq(Mux(goes_on, left - 1, following_row.columns)),
                end_row.eq(Mux(goes_on, left == 2, following_row.single)),
            ]
        # In a register: it is wanted when the chunk arrives, and the step is known late.
        info = Signal(chunks.data.shape(), reset_less=True)
        words = Signal(range(2 * config.fill_bytes + 1))
        with m.If(command.number.is_int4):
            m.d.comb += words.eq(row.bytes << 1)
        with m.Elif(command.number.is_wide):
            m.d.comb += words.eq(row.bytes >> 1)
        with m.Else():
            m.d.comb += words.eq(row.bytes)
        m.d.comb += chunks.data.eq(info)
        m.d.sync += [
            chunks.en.eq(row_ends),
            chunks.addr.eq(chunks.addr + chunks.en),
            info.words_less.eq(words - 1),
            info.single.eq(words == 1),
            info.number.eq(command.number),
            info.block_end.eq(row.block_end),
            info.iteration_end.eq(row.block_end & row.last_block),
        ]
        place = self._request(m, go, placed, address, last, Cat(wide, end), placed_turn)
        return command, when_open("claims", asking & first & free), place

    def _request(self, m: Module, go, placed, address, last, marks, turn) -> Value:
        """Ask for the chunk from ``address`` to ``last`` bytes on, if it is in the scratchpad, as
        all before it were."""
        spad_bits = (self._config.scratchpad_bytes - 1).bit_length()
        low, outside, stopped = Signal(spad_bits + 1), Signal(), Signal()
        in_granule = Signal(range(2 * self._config.fill_bytes))
        layout = data.StructLayout(
            {
                "address": spad_bits,
                "banks": self._config.scratchpad_banks,
                "needed": len(self.read.needed),
                "marks": len(marks),
            }
        )
        m.submodules.requests = requests = Elastic(layout)
        source, request = requests.source, requests.target.payload
        needed = source.payload.needed
        m.d.comb += [
            low.eq(address[:spad_bits] + last),
            in_granule.eq(address[:4] + last),
            outside.eq(placed & (address[spad_bits:].any() | low[-1])),
            source.valid.eq(placed & ~outside & ~stopped),
            source.payload.address.eq(address),
            *(part.eq(in_granule[4:] >= i) for i, part in enumerate(needed)),
            source.payload.banks.eq(
                banks_of(m, self._config, address[4:spad_bits], len(needed), needed)
            ),
            source.payload.marks.eq(marks),
            go.eq(source.ready),
            requests.target.ready.eq(self.read.ready),
            self.read.needed.eq(request.needed),
            self.read.valid.eq(requests.target.valid),
            self.read.address.eq(request.address[4:]),
            self.read.banks.eq(request.banks),
            self.status.eq(Status.BAD_ADDRESS),
        ]
        with m.If(outside & ~stopped):
            m.d.sync += [stopped.eq(1), self.error.eq(Mux(turn, 2, 1))]
        return Cat(request.address[:4], request.marks)

    def _write(self, m: Module, full, chunk, columns: list[Serializer]) -> tuple[Signal, Signal]:
        """Write words of full sets to all columns; return whether the next set is taken, and
        whether a word is the last one of its set."""
        config = self._config
        low = (RELEASE_WORDS - 1).bit_length()
        units = config.operand_depth // RELEASE_WORDS
        space, next_space = (Signal(range(units + 1), init=units) for _ in range(2))
        address = Signal(range(config.operand_depth))
        # The set that is written, and how many of its words come behind this one.
        having, load = Signal(), Signal()
        now = Signal(chunk.shape(), reset_less=True)
        nibbles = Signal(3, reset_less=True)
        left, last = Signal(range(2 * config.fill_bytes), reset_less=True), Signal(reset_less=True)
        write, done = Signal(), Signal()  # a word is written: decided a cycle ahead
        next_having, next_claim, next_any = Signal(), Signal(), Signal()
        # The ring is claimed in the units that it is released in: with the first word of one.
        claim = Signal(init=1)
        step = Signal(3)
        m.d.comb += [
            step.eq(2),
            load.eq(full & (~having | done)),
        ]
        with m.If(chunk.number.is_int4):
            m.d.comb += step.eq(1)
        with m.Elif(chunk.number.is_wide):
            m.d.comb += step.eq(4)
        m.d.comb += [
            done.eq(write & last),
            next_space.eq(space - (write & claim) + self.release),
            next_any.eq(next_space.any()),
            next_having.eq(load | (having & ~done)),
            next_claim.eq(Mux(write, address[:low].all() | (last & now.block_end), claim)),
        ]
        m.d.sync += [
            space.eq(next_space),
            claim.eq(next_claim),
            having.eq(next_having),
            write.eq(next_having & (~next_claim | next_any)),
        ]
        with m.If(write):
            m.d.sync += [
                address.eq(address + 1),
                left.eq(left - 1),
                last.eq(left == 1),
            ]
        with m.If(done):
            with m.If(now.block_end):
                m.d.sync += address.eq(Cat(Const(0, low), address[low:] + 1))
        with m.If(load):
            m.d.sync += [
                now.eq(chunk),
                nibbles.eq(step),
                left.eq(chunk.words_less),
                last.eq(chunk.single),
            ]

        # The word leaves the serializers some cycles after it was picked.
        layout = data.StructLayout({"address": address.shape(), "valid": 1, "last": 1})
        picked = Cat(address, write, done & now.iteration_end)
        steps = [Signal(layout, name=f"picked{i}") for i in range(Serializer.LATENCY)]
        for step in steps:
            m.d.sync += step.eq(picked)
            picked = step
        m.d.comb += self.done.eq(picked.last)
        for port, column in zip(self.fill, columns, strict=True):
            m.d.comb += [
                column.pick.eq(write),
                column.pick_last.eq(last),
                column.nibbles.eq(nibbles),
                column.number.eq(now.number),
                port.value.eq(column.word),
                port.address.eq(picked.address),
                port.valid.eq(picked.valid),
            ]
        return load, done
