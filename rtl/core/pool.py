"""Pooling and elementwise operations on granules of the scratchpad."""

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory

from ..config import GRANULE
from ..elastic import Elastic
from ..isa import Format, Status, VectorBody, VectorOp
from ..numerics.pipeline import is_normal
from ..tech import KEEP
from ..tech.adder import SegmentAdder
from ..tech.gate import Gate
from .pool_walk import PoolWalk, item_layout
from .ports import READ_LATENCY, banks_of
from .requantize import Requantizer
from .requantize_lane import SUM_BITS
from .transfer import misaligned
from .vector_part import VectorPart

__all__ = ["PoolUnit"]

MAXIMA = 13
"""Maxima between the read of their last granule and their write: two more than it takes."""

AROUND = 14
"""Cycles between that read and that write, but for the requantization, and two to spare."""

ASKING = 16
"""Granules to read whose addresses are known, at most."""

_COUNTS = ("granules", "out_y", "out_x", "kernel_y", "kernel_x")
_STRIDES = (
    "in_y_stride",
    "in_x_stride",
    "in_ky_stride",
    "in_kx_stride",
    "out_y_stride",
    "out_x_stride",
)


class PoolUnit(VectorPart):
    """Pools windows of the scratchpad, or combines two of its tensors (VECTOR).

    Reads one granule a cycle and writes one a window, or one a pair, in the order y, x, c; with
    AVERAGE, ADD and MULTIPLY at most every ``16 / config.vector_lanes`` cycles. Iterations follow
    each other with two cycles between. Each iteration is checked when it starts, in the order
    BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT, BAD_SCALE, and each granule for BAD_ADDRESS. The results
    before the first with a granule outside the scratchpad are still written; then the error is
    raised, and nothing starts until reset. Reads run ahead of writes: `VectorBody` says what an
    iteration's output must not overlap.
    """

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        start = self.unit.start
        operand = start.payload.operand
        body = VectorBody(start.payload.body)
        # Two inputs are a window of two granules, the second of which lies elsewhere.
        pair = (body.op == VectorOp.ADD.value) | (body.op == VectorOp.MULTIPLY.value)
        maximum, maximum_later = body.op == VectorOp.MAX.value, Signal()
        m.d.sync += maximum_later.eq(maximum)
        m.submodules.requantizer = requantizer = Requantizer(config)
        results = max(MAXIMA, -(-(AROUND + requantizer.latency) // requantizer.cycles))

        m.submodules.walk = walk = PoolWalk()
        failed = Signal()
        outside = Signal()
        room = Signal()
        issue, begin = Signal(), Signal()
        # What is to be read: so the scratchpad's answer ends here.
        asked_layout = data.StructLayout(
            {
                "address": unsigned(config.granule_addr_width),
                "banks": unsigned(config.scratchpad_banks),
                "out_address": unsigned(config.granule_addr_width),
                "outside": unsigned(1),
                "item": item_layout(),
            }
        )
        m.submodules.asking = asking = SyncFIFO(width=asked_layout.size, depth=ASKING)
        m.submodules.head = head = Elastic(asked_layout)
        m.submodules.asks = asks = Gate(
            lambda here, outside, last, room: here and not outside and (not last or room)
        )
        pushed, asked = asked_layout(asking.w_data), head.target.payload
        addresses = (walk.address, walk.out_address)
        m.d.comb += [
            pushed.address.eq(walk.address),
            pushed.banks.eq(banks_of(m, config, walk.address)),
            pushed.out_address.eq(walk.out_address),
            pushed.outside.eq(Cat(at[config.granule_addr_width :] for at in addresses).any()),
            pushed.item.eq(walk.item),
            asking.w_en.eq(walk.valid & walk.ready),
            head.source.valid.eq(asking.r_rdy),
            head.source.payload.eq(asking.r_data),
            asking.r_en.eq(head.source.ready),
            outside.eq(head.target.valid & asked.outside),
            head.hold.eq(asked.outside | (asked.item.last & ~room)),
            asks.bits.eq(Cat(head.target.valid, asked.outside, asked.item.last, room)),
            self.read.valid.eq(asks.out),
            self.read.address.eq(asked.address),
            self.read.banks.eq(asked.banks),
            issue.eq(self.read.valid & self.read.ready),
            head.target.ready.eq(self.read.ready),
            start.ready.eq(~walk.walking & ~failed),
            begin.eq(start.valid & start.ready),
            walk.command.eq(body),
            walk.begin.eq(begin),
            walk.operand.eq(operand),
        ]

        # There is room for all that comes until this is seen.
        ready = Signal()
        m.d.comb += walk.ready.eq(ready)
        m.d.sync += ready.eq(asking.level < ASKING // 2)

        elementwise = pair & ((body.kernel_y != 1) | (body.kernel_x != 1))
        unknown = (body.op > VectorOp.MULTIPLY.value) | (body.in_format != Format.INT8.value)
        strides = (getattr(body, name) for name in _STRIDES)
        unaligned = misaligned(operand[1], operand[2], *strides) | (pair & misaligned(operand[0]))
        adds = body.op == VectorOp.ADD.value
        bad_scale = (~maximum & ~is_normal(body.a_scale)) | (adds & ~is_normal(body.b_scale))
        status = Signal(Status)
        # In the order in which they are checked. The walk begins meanwhile: no granule is out yet.
        checks = {
            Status.BAD_LENGTH: Cat(getattr(body, name) == 0 for name in _COUNTS).any()
            | elementwise,
            Status.BAD_FORMAT: unknown,
            Status.BAD_ALIGNMENT: unaligned,
            Status.BAD_SCALE: bad_scale,
        }
        begun, wrong = Signal(), Signal(len(checks), reset_less=True)
        m.d.sync += [begun.eq(begin), wrong.eq(Cat(checks.values()))]
        m.d.comb += walk.refuse.eq(begun & wrong.any())
        with m.If(walk.refuse):
            m.d.sync += failed.eq(1)
            for number, found in reversed(list(enumerate(checks))):
                with m.If(wrong[number]):
                    m.d.sync += status.eq(found)
        # Iterations end in order, so what fails here failed before what fails above.
        with m.If(outside):
            m.d.sync += [failed.eq(1), status.eq(Status.BAD_ADDRESS)]

        reported = Signal()
        m.d.comb += self.unit.status.eq(status)
        m.d.sync += self.unit.error.eq(0)
        ended, written = Signal(attrs=KEEP), Signal()
        ending = Signal(attrs=KEEP)
        empty = self._elaborate_room(m, results, room, ended, written, maximum_later)
        settled = empty & (outside | ~(walk.left | asking.r_rdy | head.target.valid))
        with m.If(failed & ~reported & settled):
            m.d.sync += [reported.eq(1), self.unit.error.eq(1)]

        # From issue on: the item and where its result goes.
        comes, result = self._elaborate_arithmetic(m, body, maximum_later, issue, asked.item)
        m.d.comb += [
            ending.eq(self.read.valid & asked.item.last),
            ended.eq(ending & self.read.ready),
            written.eq(
                self._elaborate_results(
                    m, results, comes, result, ended, asked.out_address, asked.item.final
                )
            ),
        ]
        return m

    def _elaborate_room(self, m: Module, results: int, room, ended, written, maximum) -> Value:
        """Say a cycle ahead whether there is ``room`` for the end of a window; return whether none
        of those that ``ended`` is left to be ``written``.

        Both are counted a cycle late, so two may have ended that are not.
        """
        pending = Signal(range(results + 1))
        written_later = Signal()
        # But for maxima, the lanes are busy for so many cycles after the one with ``ended``.
        busy = m.submodules.requantizer.cycles - 1
        recent = Signal(max(busy - 1, 1))
        waits = ~maximum if busy > 0 else Const(0, 1)
        rested = maximum | ~recent.any() if busy > 1 else Const(1, 1)
        quiet = Signal(attrs=KEEP)  # found beside ``ended``, which is late
        m.d.comb += quiet.eq(rested & (pending <= results - 3))
        m.d.sync += [
            recent.eq(Cat(ended, recent)),
            written_later.eq(written),
            pending.eq(pending + recent[0] - written_later),
            room.eq(quiet & ~(ended & waits)),
        ]
        return (pending == 0) & ~recent[0]

    def _elaborate_arithmetic(self, m: Module, body, maximum, issue, item) -> tuple[Value, Value]:
        """From the read's answer, `READ_LATENCY` after ``issue``, to finished granules: return
        whether one comes, and it.
        """
        requantizer = m.submodules.requantizer
        a_zero = Signal(8, reset_less=True)
        m.d.sync += a_zero.eq(body.a_zero)
        tag_layout = data.StructLayout(
            {"first": unsigned(1), "second": unsigned(1), "last": unsigned(1)}
        )
        steps = READ_LATENCY + 2
        tags = [Signal(tag_layout, name=f"tag{i}", reset_less=True) for i in range(steps)]
        valids = Signal(steps)
        m.d.sync += [
            valids.eq(Cat(issue, valids)),
            tags[0].first.eq(item.first),
            tags[0].second.eq(item.second),
            tags[0].last.eq(item.last),
            *(later.eq(earlier) for earlier, later in itertools.pairwise(tags)),
        ]
        arrived, added, ended = ((valids[i], tags[i]) for i in range(READ_LATENCY - 1, steps))

        # A byte takes its place at the end of a sum, or starts one. With MAX all start one, and
        # those do nothing that are not above it.
        got = Signal(data.ArrayLayout(signed(8), GRANULE), reset_less=True)
        with m.If(arrived[0]):
            m.d.sync += got.eq(self.read.data)
        valid, tag = added
        starts, counts = Signal(), Signal()
        m.d.comb += [starts.eq(tag.first | maximum), counts.eq(valid & ~tag.second)]
        for lane in range(GRANULE):
            m.submodules[f"window_adder{lane}"] = adder = SegmentAdder(SUM_BITS)
            total = requantizer.sums[lane]
            sums = Signal(signed(SUM_BITS), name=f"window_sum{lane}", reset_less=True)
            above = Signal(name=f"is_above{lane}")
            m.d.comb += [
                total.eq(sums),
                adder.total.eq(sums),
                adder.addend.eq(got[lane]),
                adder.first.eq(starts),
                above.eq(~maximum | tag.first | (got[lane] > sums[:8].as_signed())),
            ]
            with m.If(counts & above):
                m.d.sync += sums.eq(adder.sum)
        zero = Signal(signed(SUM_BITS), reset_less=True)
        m.submodules.zero_adder = zero_adder = SegmentAdder(SUM_BITS)
        m.d.comb += [
            zero_adder.total.eq(zero),
            zero_adder.addend.eq(a_zero.as_signed()),
            zero_adder.first.eq(starts),
        ]
        with m.If(counts):
            m.d.sync += zero.eq(zero_adder.sum)

        ends = valid & tag.last
        done = ended[0] & ended[1].last
        best = Cat(total[:8] for total in requantizer.sums)
        m.d.comb += [
            requantizer.command.eq(body),
            requantizer.valid_i.eq(ends & ~maximum),
            requantizer.others.eq(got),
            requantizer.zero.eq(zero),
        ]
        comes = Mux(maximum, done, requantizer.valid_o)
        return comes, Mux(maximum, best, requantizer.granule)

    def _elaborate_results(self, m: Module, depth: int, comes, result, ended, address, final):
        """Write each ``result`` that ``comes`` where its last read said; return whether one is
        written.

        ``ended`` in the cycle of that read comes with the ``address`` and whether it is the
        iteration's last. At most ``depth`` have ended and are not written.
        """
        target_layout = data.StructLayout(
            {
                "address": unsigned(self.config.granule_addr_width),
                "banks": unsigned(self.config.scratchpad_banks),
                "final": unsigned(1),
            }
        )
        # There is a place for all that are pending, and one that is written until a result comes.
        places = 1 << depth.bit_length()
        m.submodules.targets = targets = Memory(shape=target_layout, depth=places, init=[])
        m.submodules.results = results = Memory(shape=8 * GRANULE, depth=places, init=[])
        pushed, named = targets.write_port(), targets.read_port(domain="comb")
        made, oldest = results.write_port(), results.read_port(domain="comb")
        # The scratchpad's choice takes long: a target waits for it in a register. Its granule stays
        # where it is, which is soon enough.
        m.submodules.target = first = Elastic(target_layout)
        target = first.target.payload
        unnamed = Signal(range(depth + 1))  # results whose target is not there
        names, written = Signal(), Signal()
        m.d.comb += [
            # Its target has been there for longer than a result.
            first.source.valid.eq(unnamed != 0),
            first.source.payload.eq(named.data),
            names.eq(first.source.valid & first.source.ready),
            self.write.valid.eq(first.target.valid),
            self.write.address.eq(target.address),
            self.write.banks.eq(target.banks),
            self.write.data.eq(oldest.data),
            self.write.mask.eq(~0),
            first.target.ready.eq(self.write.ready),
            written.eq(self.write.valid & self.write.ready),
            made.en.eq(1),
            made.data.eq(result),
        ]
        m.d.sync += [
            pushed.en.eq(ended),
            pushed.addr.eq(pushed.addr + pushed.en),
            pushed.data.address.eq(address),
            pushed.data.banks.eq(banks_of(m, self.config, address)),
            pushed.data.final.eq(final),
            named.addr.eq(named.addr + names),
            unnamed.eq(unnamed + comes - names),
            made.addr.eq(made.addr + comes),
            self.unit.done.eq(written & target.final),
        ]
        with m.If(written):  # which is late
            m.d.sync += oldest.addr.eq(oldest.addr + 1)
        return written
