"""The walk over a transfer's rows, shared by the load and the store unit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Status, TransferBody
from ..memory.bus import BURST_BYTES
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

    Up to one burst a cycle; two cycles between the rows of one iteration and those of the next,
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
        x = granules(body.x_bytes)
        memory_size = config.memory_bytes // GRANULE
        scratchpad_size = config.scratchpad_bytes // GRANULE

        # The row that is next, and the row that its plane (its z) began with, all in granules.
        width = len(x)
        memory = Signal(width, reset_less=True)
        memory_plane = Signal(width, reset_less=True)
        scratchpad = Signal(width, reset_less=True)
        scratchpad_plane = Signal(width, reset_less=True)
        y = Signal(16, reset_less=True)
        z = Signal(16, reset_less=True)
        status = Signal(Status)
        m.d.comb += self.status.eq(status)
        m.d.sync += self.error.eq(0)

        row_last_y = Signal()
        row_last = Signal()
        m.d.comb += [
            row_last_y.eq(y + 1 == body.y),
            row_last.eq(row_last_y & (z + 1 == body.z)),
        ]

        # The rest of the row that is cut into bursts. It has been checked: the widths are exact.
        rest_valid = Signal()
        rest_last = Signal(reset_less=True)
        rest_memory = Signal(config.memory_addr_width - _GRANULE_BITS, reset_less=True)
        rest_scratchpad = Signal(config.granule_addr_width, reset_less=True)
        rest_count = Signal(config.granule_addr_width + 1, reset_less=True)
        rest_ready = Signal()

        block = BURST_BYTES // GRANULE
        offset = rest_memory[:_BLOCK_BITS]
        fits = Signal()
        step = Signal()
        burst = self.burst
        m.d.comb += [
            fits.eq(offset + rest_count <= block),
            step.eq(rest_valid & (~burst.valid | burst.ready)),
            rest_ready.eq(~rest_valid | (step & fits)),
        ]
        with m.If(burst.ready):
            m.d.sync += burst.valid.eq(0)
        with m.If(step):
            m.d.sync += [
                burst.valid.eq(1),
                burst.payload.memory.eq(rest_memory),
                burst.payload.end.eq(Mux(fits, offset + rest_count - 1, block - 1)),
                burst.payload.scratchpad.eq(rest_scratchpad),
                burst.payload.last.eq(rest_last & fits),
                rest_valid.eq(~fits),
                rest_memory.eq(Cat(Const(0, _BLOCK_BITS), rest_memory[_BLOCK_BITS:] + 1)),
                rest_scratchpad.eq(rest_scratchpad + block - offset),
                rest_count.eq(rest_count + offset - block),
            ]

        with m.FSM():
            with m.State("Start"):
                m.d.comb += self.start.ready.eq(1)
                m.d.sync += [
                    memory.eq(granules(operand[0])),
                    memory_plane.eq(granules(operand[0])),
                    scratchpad.eq(granules(operand[1])),
                    scratchpad_plane.eq(granules(operand[1])),
                    y.eq(0),
                    z.eq(0),
                ]
                with m.If(self.start.valid):
                    m.next = "Row"
                    with m.If((body.x_bytes == 0) | (body.y == 0) | (body.z == 0)):
                        m.d.sync += status.eq(Status.BAD_LENGTH)
                        m.next = "Fail"
                    with m.Elif(
                        misaligned(
                            body.x_bytes,
                            operand[0],
                            operand[1],
                            body.memory_y_stride,
                            body.memory_z_stride,
                            body.scratchpad_y_stride,
                            body.scratchpad_z_stride,
                        )
                    ):
                        m.d.sync += status.eq(Status.BAD_ALIGNMENT)
                        m.next = "Fail"

            with m.State("Row"):
                outside = (memory + x > memory_size) | (scratchpad + x > scratchpad_size)
                next_memory = Signal(width)
                next_scratchpad = Signal(width)
                with m.If(row_last_y):
                    m.d.comb += [
                        next_memory.eq(memory_plane + granules(body.memory_z_stride)),
                        next_scratchpad.eq(scratchpad_plane + granules(body.scratchpad_z_stride)),
                    ]
                with m.Else():
                    m.d.comb += [
                        next_memory.eq(memory + granules(body.memory_y_stride)),
                        next_scratchpad.eq(scratchpad + granules(body.scratchpad_y_stride)),
                    ]
                with m.If(outside):
                    m.d.sync += status.eq(Status.BAD_ADDRESS)
                    m.next = "Fail"
                with m.Elif(rest_ready):
                    m.d.sync += [
                        rest_valid.eq(1),
                        rest_last.eq(row_last),
                        rest_memory.eq(memory),
                        rest_scratchpad.eq(scratchpad),
                        rest_count.eq(x),
                        memory.eq(next_memory),
                        scratchpad.eq(next_scratchpad),
                        y.eq(Mux(row_last_y, 0, y + 1)),
                    ]
                    with m.If(row_last_y):
                        m.d.sync += [
                            memory_plane.eq(next_memory),
                            scratchpad_plane.eq(next_scratchpad),
                            z.eq(z + 1),
                        ]
                    with m.If(row_last):
                        m.next = "Start"

            with m.State("Fail"):
                with m.If(self.idle & ~rest_valid & ~burst.valid):
                    m.d.sync += self.error.eq(1)
                    m.next = "Dead"

            with m.State("Dead"):
                pass
        return m
