"""Where the granules of a pooling or elementwise operation lie."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from ..isa import VectorBody, VectorOp
from ..tech.adder import SegmentAdder
from ..tech.gate import Gate
from ..tech.select import select
from .transfer import granules

__all__ = ["ADDRESS_BITS", "PoolWalk", "item_layout"]

ADDRESS_BITS = len(granules(Const(0, 32)))
"""Of a 32-bit address, in granules."""


class _Step(enum.Enum, shape=unsigned(3)):
    """How one input granule follows from the one before: the innermost loop that goes on."""

    BEGIN = 0
    KERNEL_X = 1
    KERNEL_Y = 2
    GRANULE = 3
    X = 4
    Y = 5


_LOOPS = [step for step in _Step if step != _Step.BEGIN]
"""The innermost first."""


def item_layout() -> data.StructLayout:
    """Layout of what is known of an input granule.

    It is the ``first`` or the ``last`` of its window, or the ``second`` of a pair; ``final``: the
    last of the iteration.
    """
    return data.StructLayout({name: unsigned(1) for name in ("first", "second", "last", "final")})


class PoolWalk(wiring.Component):
    """Walks through the windows or pairs of iterations: a granule a cycle, from two cycles on.

    Addresses wrap.

    Members
    -------
    command : ``In(VectorBody)``
        Stands still from ``begin`` until all granules are out.
    begin : ``In(1)``
        An iteration begins, with ``operand``. Not while ``walking``.
    refuse : ``In(1)``
        In the cycle after ``begin``: it is not in order. Nothing comes of it.
    operand : ``In(32).array(3)``
    walking : ``Out(1)``
    left : ``Out(1)``
        A granule is left, of what was started.
    valid : ``Out(1)``
        The granule is there.
    ready : ``In(1)``
        Nothing moves without it.
    item : ``Out(item_layout())``
    address, out_address : ``Out(ADDRESS_BITS)``
        Of the granule, and of what its window becomes.
    """

    command: In(VectorBody)
    begin: In(1)
    refuse: In(1)
    operand: In(data.ArrayLayout(unsigned(32), 3))
    walking: Out(1)
    left: Out(1)
    valid: Out(1)
    ready: In(1)
    item: Out(item_layout())
    address: Out(ADDRESS_BITS)
    out_address: Out(ADDRESS_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Two inputs are a window of two granules, the second of which lies elsewhere.
        pair_now, pair = Signal(), Signal()
        op = self.command.op
        m.d.comb += pair_now.eq((op == VectorOp.ADD.value) | (op == VectorOp.MULTIPLY.value))
        m.d.sync += pair.eq(pair_now)

        # Stage 1 counts the loops, stage 2 adds up the addresses.
        walked_valid, asked_valid = Signal(), Signal()
        walked = Signal(item_layout(), reset_less=True)
        asked = Signal(item_layout(), reset_less=True)
        m.d.comb += [
            self.valid.eq(asked_valid),
            self.item.eq(asked),
            self.left.eq(asked_valid | walked_valid | self.walking),
        ]
        with m.If(self.ready):
            m.d.sync += [
                asked_valid.eq(walked_valid),
                asked.eq(walked),
                walked_valid.eq(self.walking & ~self.refuse),
            ]
        counts = Signal()
        m.d.comb += counts.eq(self.walking & self.ready)
        step, following, ends = self._count(m, pair_now, counts)
        second, window = Signal(), Signal()
        m.d.comb += [
            second.eq(pair & (step == _Step.KERNEL_X)),
            window.eq((step != _Step.KERNEL_X) & (step != _Step.KERNEL_Y)),
        ]
        with m.If(counts):
            m.d.sync += [
                walked.first.eq(window),
                walked.second.eq(second),
                walked.last.eq(ends[:2].all()),
                walked.final.eq(ends.all()),
            ]
        # The second granule of a pair steps as the first one did.
        by_following = Mux(pair & ~ends[0], step, following)
        strides = self._strides(m, platform, pair & ~ends[0], by_following, counts)
        self._add(m, step, counts, window, second, strides, self.ready & walked_valid, walked)
        return m

    def _count(self, m: Module, pair, counts) -> tuple[Signal, Signal, Signal]:
        """Count the loops, each from 1, where ``counts`` says so.

        Returns how the granule that is counted follows from the one before, how the next one
        follows from it, and which loops end with it.
        """
        command = self.command
        bounds = [Mux(pair, 2, command.kernel_x), command.kernel_y, command.granules]
        bounds += [command.out_x, command.out_y]
        step = Signal(_Step)
        # Each with a bit on top: the loop ends. So that bit has the same enable.
        counters = [
            Signal(len(bound) + 1, name=f"count_{loop.name.lower()}", reset_less=True)
            for loop, bound in zip(_LOOPS, bounds, strict=True)
        ]
        ends = Signal(len(_LOOPS))
        m.d.comb += ends.eq(Cat(counter[-1] for counter in counters))
        following = Signal(_Step)
        m.d.comb += following.eq(_Step.BEGIN)
        for i, loop in reversed(list(enumerate(_LOOPS))):
            with m.If(~ends[i]):
                m.d.comb += following.eq(loop)
            # It begins again if it has ended, and waits at its first granule for an iteration.
            name = counters[i].name
            m.submodules[f"{name}_adder"] = adder = SegmentAdder(len(bounds[i]))
            m.d.comb += [
                adder.total.eq(counters[i]),
                adder.first.eq(ends[i]),
                adder.goes_on.eq(self.walking),
                adder.carry_in.eq(1),
            ]
            # Else found from what the loop inside does, in a chain.
            m.submodules[f"{name}_ended"] = ended = Gate(lambda *inside: all(inside))
            m.submodules[f"{name}_goes"] = goes = Gate(
                lambda walks, ready, ended, _: not walks or (ready and ended)
            )
            m.d.comb += [
                ended.bits.eq(Cat(ends[:i], Const((1 << 4 - i) - 1, 4 - i))),
                goes.bits.eq(Cat(self.walking, self.ready, ended.out)),
            ]
            with m.If(goes.out):
                total = adder.sum[:-1]
                m.d.sync += counters[i].eq(Cat(total, total == bounds[i]))
        with m.If(counts):
            m.d.sync += step.eq(following)
        m.d.sync += self.walking.eq(
            self.begin | (self.walking & ~self.refuse & ~(self.ready & ends.all()))
        )
        return step, following, ends

    def _strides(self, m: Module, platform, second, step, counts) -> tuple:
        """Return what steps the addresses of the input and of the output, and whether it begins.

        ``step`` is how the granule to count next follows, and ``second`` whether it is the second
        of a pair.
        """
        bases = [Signal(ADDRESS_BITS, name=f"base{i}", reset_less=True) for i in range(3)]
        with m.If(self.begin):
            for base, operand in zip(bases, self.operand, strict=True):
                m.d.sync += base.eq(granules(operand))
        begins = Signal(init=1)
        stride_index, by_index, out_index = Signal(2), Signal(2, init=2), Signal(2)
        begin, granule = step == _Step.BEGIN, step == _Step.GRANULE
        outer = (step == _Step.X) | (step == _Step.Y)
        vertical = (step == _Step.KERNEL_Y) | (step == _Step.Y)
        with m.If(counts):
            m.d.sync += [
                begins.eq(begin),
                stride_index.eq(Cat(vertical, outer & ~second)),
                by_index.eq(Cat(granule | (begin & second), begin)),
                out_index.eq(Cat(granule | vertical, outer)),
            ]
        command = self.command
        row, pixel = granules(command.in_y_stride), granules(command.in_x_stride)
        down, right = granules(command.in_ky_stride), granules(command.in_kx_stride)
        one = Const(1, ADDRESS_BITS)
        words = [right, down, pixel, row]
        stride = select(m, platform, stride_index, words, name="stride")
        words = [stride, one, bases[1], bases[0]]
        by = select(m, platform, by_index, words, name="by")
        words = [bases[2], one, granules(command.out_x_stride), granules(command.out_y_stride)]
        return by, select(m, platform, out_index, words, name="out_by"), begins

    def _add(self, m: Module, step, counts, window, second, strides, adds, item) -> None:
        """Move addresses on: the loop that goes on steps, those inside it begin again there.

        A loop that has not stepped since it began goes on from the one around it. Addresses of
        the loops, and at `_Step.BEGIN` the first one, are in small memories.
        """
        stepped = Signal(len(_LOOPS))
        # Not a chain of conditions, of which synthesis would make a reset that comes late.
        origin_of, found = Const(_Step.BEGIN.value, 3), Const(0, 1)
        for loop in _LOOPS:
            here = (step.as_value() <= loop.value) & stepped[loop.value - 1] & ~found
            origin_of, found = origin_of | (Const(loop.value, 3) & here.replicate(3)), found | here
        by, out_by, begins = strides
        origin, target = Signal(_Step, reset_less=True), Signal(_Step, reset_less=True)
        anew = Signal(reset_less=True)
        addend, out_addend = (
            Signal(ADDRESS_BITS, name=name, reset_less=True) for name in ("addend", "out_addend")
        )
        with m.If(counts):
            m.d.sync += [addend.eq(by), anew.eq(begins)]
            with m.If(~second):
                m.d.sync += [origin.as_value().eq(origin_of), target.eq(step)]
            with m.If(window):
                m.d.sync += out_addend.eq(out_by)
            for loop in _LOOPS:
                with m.If((step == _Step.BEGIN) | (step.as_value() > loop.value)):
                    m.d.sync += stepped[loop.value - 1].eq(0)
                with m.Elif(step == loop):
                    m.d.sync += stepped[loop.value - 1].eq(1)

        for name, which, number, result, write in (
            ("in", item.second, addend, self.address, adds),
            ("out", Const(0, 1), out_addend, self.out_address, adds & item.first),
        ):
            ram = memory.Memory(shape=unsigned(ADDRESS_BITS), depth=16, init=[])
            m.submodules[f"{name}_addresses"] = ram
            write_port, read_port = ram.write_port(), ram.read_port(domain="comb")
            m.submodules[f"{name}_adder"] = adder = SegmentAdder(ADDRESS_BITS)
            register = Signal(ADDRESS_BITS, name=f"{name}_address", reset_less=True)
            total = adder.sum[:ADDRESS_BITS]
            m.d.comb += [
                read_port.addr.eq(Cat(origin, which)),
                adder.total.eq(read_port.data),
                adder.addend.eq(number),
                adder.first.eq(anew),
                write_port.addr.eq(Cat(target, which)),
                write_port.data.eq(total),
                write_port.en.eq(write),
                result.eq(register),
            ]
            with m.If(write):
                m.d.sync += register.eq(total)
