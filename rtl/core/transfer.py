"""The walk over a transfer's rows, shared by the load and the store unit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Status, TransferBody
from ..memory.bus import BURST_BYTES
from ..tech.gate import Gate
from .ports import iteration_layout

__all__ = ["TransferWalk", "burst_layout", "granules", "misaligned"]

_GRANULE_BITS = (GRANULE - 1).bit_length()
_BLOCK_BITS = (BURST_BYTES // GRANULE - 1).bit_length()


def granules(value: Value) -> Value:
    """Return a byte address, stride or length in granules, unsigned."""
    return Value.cast(value)[_GRANULE_BITS:]


def misaligned(*values: Value) -> Value:
    """Return whether any of the byte addresses, strides or lengths is not whole granules."""
    return Cat(Value.cast(value)[:_GRANULE_BITS] for value in values).any()


def burst_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a burst of granules that lies inside one block of card memory.

    ``memory``: address of the first granule, in granules. ``end``: index of the last one in the
    block. ``scratchpad``: where the first one lies, in granules. ``last``: the iteration's last.
    """
    return data.StructLayout(
        {
            "memory": unsigned(config.memory_addr_width - _GRANULE_BITS),
            "end": unsigned(_BLOCK_BITS),
            "scratchpad": unsigned(config.granule_addr_width),
            "last": unsigned(1),
        }
    )


class TransferWalk(wiring.Component):
    """Checks the iterations of a transfer and cuts their rows into bursts.

    Up to one burst a cycle; three cycles between the rows of one iteration and those of the next,
    which hide behind the bursts of the last row. Each iteration is checked when it starts, in the
    order BAD_LENGTH, BAD_ALIGNMENT; each row for BAD_ADDRESS before its first burst. What came
    before the failure is still transferred: the error is raised when ``idle`` says that it has
    arrived. After an error nothing starts until reset.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(stream)``
        `iteration_layout` with a `TransferBody`.
    burst : ``Out(stream)``
        `burst_layout`.
    idle : ``In(1)``
        Every burst that was taken has taken effect.
    error : ``Out(1)``
        One cycle, with ``status``.
    status : ``Out(Status)``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(stream.Signature(iteration_layout())),
                "burst": Out(stream.Signature(burst_layout(config))),
                "idle": In(1),
                "error": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        body = TransferBody(self.start.payload.body)
        operand = self.start.payload.operand
        status = Signal(Status)
        m.d.comb += self.status.eq(status)
        m.d.sync += self.error.eq(0)

        # The next row's place on each side, and how many rows and planes are left with it.
        y, z = Signal(16, reset_less=True), Signal(16, reset_less=True)
        last_y, last_z = Signal(reset_less=True), Signal(reset_less=True)
        one_y = Signal()
        # The row before this one is its plane's first: the plane is taken from it a cycle later.
        fresh = Signal()
        from_plane = Signal(reset_less=True)  # the next row begins at the plane, not at this row
        m.d.sync += [fresh.eq(0), from_plane.eq(last_y)]
        m.d.sync += one_y.eq(body.y == 1)
        empty, unaligned = Signal(reset_less=True), Signal(reset_less=True)
        x = granules(body.x_bytes)
        sides = []
        for number, (name, size) in enumerate(
            (("memory", config.memory_bytes), ("scratchpad", config.scratchpad_bytes))
        ):
            strides = [granules(getattr(body, f"{name}_{axis}_stride")) for axis in "yz"]
            start = granules(operand[number])
            sides.append(_Side(m, name, size, x, start, strides, last_y, from_plane, fresh))
        memory, scratchpad = sides

        # The rest of the row that is cut into bursts. It has been checked: the widths are exact.
        rest_valid = Signal()
        rest_last = Signal(reset_less=True)
        rest_memory = Signal(config.memory_addr_width - _GRANULE_BITS, reset_less=True)
        rest_scratchpad = Signal(config.granule_addr_width, reset_less=True)
        # Index of its last granule, counted from the beginning of the first one's block.
        rest_end = Signal(config.granule_addr_width + 1, reset_less=True)
        rest_ready = Signal()

        block = BURST_BYTES // GRANULE
        offset = rest_memory[:_BLOCK_BITS]
        fits = Signal(reset_less=True)  # it ends in this block; found out a cycle ahead
        moves, step = Signal(), Signal()
        burst = self.burst
        m.submodules.leaves = leaves = Gate(
            lambda here, held, ready, fits: not here or (fits and (not held or ready))
        )
        m.submodules.changes = changes = Gate(
            lambda here, held, ready, _: not here or not held or ready
        )
        m.d.comb += [
            moves.eq(~burst.valid | burst.ready),
            step.eq(rest_valid & moves),
            leaves.bits.eq(Cat(rest_valid, burst.valid, burst.ready, fits)),
            changes.bits.eq(Cat(rest_valid, burst.valid, burst.ready)),
            rest_ready.eq(leaves.out),
        ]
        with m.If(moves):
            m.d.sync += [
                burst.valid.eq(rest_valid),
                burst.payload.memory.eq(rest_memory),
                burst.payload.end.eq(Mux(fits, rest_end[:_BLOCK_BITS], block - 1)),
                burst.payload.scratchpad.eq(rest_scratchpad),
                burst.payload.last.eq(rest_last & fits),
            ]
        with m.If(step):
            m.d.sync += rest_valid.eq(~fits)
        # Where no row follows, what is copied of it is void: few conditions on many bits.
        with m.If(changes.out):
            with m.If(~rest_valid | fits):
                m.d.sync += [
                    rest_last.eq(last_y & last_z),
                    rest_memory.eq(memory.row),
                    rest_scratchpad.eq(scratchpad.row),
                    rest_end.eq(memory.row[:_BLOCK_BITS] + memory.last),
                    fits.eq(
                        memory.short
                        & ~(memory.row[:_BLOCK_BITS] + memory.last[:_BLOCK_BITS])[_BLOCK_BITS]
                    ),
                ]
            with m.Else():
                m.d.sync += [
                    rest_memory.eq(Cat(Const(0, _BLOCK_BITS), rest_memory[_BLOCK_BITS:] + 1)),
                    rest_scratchpad.eq(rest_scratchpad + block - offset),
                    rest_end[_BLOCK_BITS:].eq(rest_end[_BLOCK_BITS:] - 1),
                    fits.eq(rest_end[_BLOCK_BITS:] == 1),
                ]

        with m.FSM():
            with m.State("Start"):
                m.d.comb += self.start.ready.eq(1)
                m.d.sync += [
                    *(statement for side in sides for statement in side.begin()),
                    fresh.eq(1),
                    empty.eq((body.x_bytes == 0) | (body.y == 0) | (body.z == 0)),
                    unaligned.eq(
                        misaligned(
                            body.x_bytes,
                            operand[0],
                            operand[1],
                            body.memory_y_stride,
                            body.memory_z_stride,
                            body.scratchpad_y_stride,
                            body.scratchpad_z_stride,
                        )
                    ),
                    y.eq(body.y),
                    z.eq(body.z),
                ]
                with m.If(self.start.valid):
                    m.next = "Check"

            with m.State("Check"):
                m.d.sync += [last_y.eq(y == 1), from_plane.eq(y == 1), last_z.eq(z == 1)]
                m.d.sync += status.eq(Mux(empty, Status.BAD_LENGTH, Status.BAD_ALIGNMENT))
                m.next = "Row"
                with m.If(empty | unaligned):
                    m.next = "Fail"

            with m.State("Row"):
                m.d.sync += status.eq(Status.BAD_ADDRESS)  # whether it is one is known late
                with m.If(rest_ready):
                    m.d.sync += [
                        rest_valid.eq(1),
                        *(statement for side in sides for statement in side.advance()),
                        y.eq(Mux(last_y, body.y, y - 1)),
                        last_y.eq(Mux(last_y, one_y, y == 2)),
                        from_plane.eq(~last_y & (y == 2)),
                        fresh.eq(last_y),
                    ]
                    with m.If(last_y):
                        m.d.sync += [z.eq(z - 1), last_z.eq(z == 2)]
                    with m.If(last_y & last_z):
                        m.next = "Start"
                with m.If(memory.outside | scratchpad.outside):
                    m.d.sync += rest_valid.eq(rest_valid & ~rest_ready)
                    m.next = "Fail"

            with m.State("Fail"):
                with m.If(self.idle & ~rest_valid & ~burst.valid):
                    m.d.sync += self.error.eq(1)
                    m.next = "Dead"

            with m.State("Dead"):
                pass
        return m


class _Side:
    """Where the rows of a transfer lie in one of its two memories, in granules.

    A row that is outside ends the transfer, so that an address that a stride is added to is inside:
    of the stride's bits above the memory's own only two cases matter. What follows from the
    command's body is registered: it is there two cycles after an iteration begins.

    Attributes
    ----------
    row : Signal
        The next row's first granule.
    last : Signal
        A row's last granule, counted from its first.
    short : Signal
        A row has at most as many granules as a block.
    outside : Signal
        A granule of that row is not in the memory.
    """

    def __init__(
        self,
        m: Module,
        name: str,
        size: int,
        x: Value,
        start: Value,
        strides: list[Value],
        last_y: Value,
        from_plane: Value,
        fresh: Value,
    ) -> None:
        bits = (size // GRANULE - 1).bit_length()
        self._start = start
        self.row = Signal(bits, name=f"{name}_row", reset_less=True)
        plane = Signal(bits, name=f"{name}_plane", reset_less=True)
        with m.If(fresh):
            m.d.sync += plane.eq(self.row)
        self._away = Signal(name=f"{name}_away", reset_less=True)  # the row's first granule is

        # The row's last granule, counted from its first; and whether no row is so short.
        self.last, long = Signal(bits, name=f"{name}_last"), Signal(name=f"{name}_long")
        m.d.sync += self.last.eq(x[:bits] - 1)
        m.d.sync += long.eq((x[bits + 1 :].any()) | (x[bits] & x[:bits].any()))
        self.short = Signal(name=f"{name}_short")
        beyond = x[_BLOCK_BITS : bits + 1]
        m.d.sync += self.short.eq(~beyond.any() | ((beyond == 1) & ~x[:_BLOCK_BITS].any()))
        self.outside = Signal(name=f"{name}_outside")
        m.d.comb += self.outside.eq(self._away | long | (self.row + self.last)[bits])

        stays = []  # whether a step stays inside without a carry, and whether with one
        for axis, stride in zip("yz", strides, strict=True):
            above = Signal(2, name=f"{name}_{axis}_above")
            m.d.sync += above.eq(Cat(~stride[bits:].any(), stride[bits:].all()))
            stays.append(above)
        self._next = Signal(bits + 1, name=f"{name}_next")
        m.d.comb += self._next.eq(
            Mux(from_plane, plane, self.row) + Mux(last_y, strides[1][:bits], strides[0][:bits])
        )
        self._leaves = ~Mux(last_y, stays[1], stays[0]).bit_select(self._next[bits], 1)
        self._bits = bits

    def begin(self) -> list:
        """Statements of the cycle in which an iteration begins."""
        inside = self._start[: self._bits]
        return [
            self.row.eq(inside),
            self._away.eq(self._start[self._bits :].any()),
        ]

    def advance(self) -> list:
        """Statements that go on to the next row."""
        return [self.row.eq(self._next), self._away.eq(self._leaves)]
