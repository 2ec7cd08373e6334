"""Pooling and elementwise operations on granules of the scratchpad."""

import itertools

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum
from amaranth.lib.fifo import SyncFIFOBuffered

from ..config import GRANULE
from ..isa import Format, Status, VectorBody, VectorOp
from ..numerics.pipeline import is_normal
from .ports import READ_LATENCY
from .requantize import DIFFERENCE_BITS, SUM_BITS, Requantizer
from .transfer import granules, misaligned
from .vector_part import VectorPart

__all__ = ["PoolUnit"]

MAXIMA = 9
"""Maxima between the read of their last granule and their write: two more than it takes."""

AROUND = 11
"""Cycles between that read and that write, but for the requantization, and two to spare."""


class _Step(enum.Enum, shape=unsigned(3)):
    """How one input granule follows from the one before: the innermost loop that goes on."""

    BEGIN = 0
    KERNEL_X = 1
    KERNEL_Y = 2
    GRANULE = 3
    X = 4
    Y = 5


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
        width = len(granules(operand[1]))
        # Two inputs are a window of two granules, the second of which lies elsewhere.
        pair = (body.op == VectorOp.ADD.value) | (body.op == VectorOp.MULTIPLY.value)
        maximum = body.op == VectorOp.MAX.value
        m.submodules.requantizer = requantizer = Requantizer(config)
        results = max(MAXIMA, -(-(AROUND + requantizer.latency) // requantizer.cycles))

        # Stage 1 counts the five loops.
        loops = {
            _Step.KERNEL_X: body.kernel_x,
            _Step.KERNEL_Y: body.kernel_y,
            _Step.GRANULE: body.granules,
            _Step.X: body.out_x,
            _Step.Y: body.out_y,
        }
        walking = Signal()
        failed = Signal()
        step = Signal(_Step)
        in_base = Signal(width, reset_less=True)
        second_base = Signal(width, reset_less=True)
        out_base = Signal(width, reset_less=True)
        count = {
            loop: Signal(len(bound), name=f"count_{loop.name.lower()}", reset_less=True)
            for loop, bound in loops.items()
        }
        ends = Signal(len(loops))
        m.d.comb += ends.eq(
            Cat(
                count[loop] + Mux(pair, 0, 1) == bound
                if loop == _Step.KERNEL_X
                else count[loop] + 1 == bound
                for loop, bound in loops.items()
            )
        )

        # Stage 2 adds up the addresses.
        item_layout = data.StructLayout(
            {"first": unsigned(1), "second": unsigned(1), "last": unsigned(1), "final": unsigned(1)}
        )
        walked_valid = Signal()
        walked_step = Signal(_Step, reset_less=True)
        walked = Signal(item_layout, reset_less=True)
        walked_ready = Signal()

        # Stage 3 reads.
        asked_valid = Signal()
        asked = Signal(item_layout, reset_less=True)
        in_at = {
            loop: Signal(width, name=f"in_{loop.name.lower()}", reset_less=True) for loop in loops
        }
        second_at, out_at = (
            {
                loop: Signal(width, name=f"{name}_{loop.name.lower()}", reset_less=True)
                for loop in (_Step.GRANULE, _Step.X, _Step.Y)
            }
            for name in ("second", "out")
        )
        address = Signal(width)
        out_address = out_at[_Step.GRANULE]
        outside = Signal()
        pending = Signal(range(results + 1))
        waiting = Signal(range(requantizer.WAITING + 1))
        room = (pending != results) & (waiting != requantizer.WAITING)
        issue = Signal()
        m.d.comb += [
            outside.eq(
                asked_valid
                & Cat(at[config.granule_addr_width :] for at in (address, out_address)).any()
            ),
            address.eq(Mux(asked.second, second_at[_Step.GRANULE], in_at[_Step.KERNEL_X])),
            self.read.valid.eq(asked_valid & ~outside & (~asked.last | room)),
            self.read.address.eq(address),
            issue.eq(self.read.valid & self.read.ready),
            walked_ready.eq(~asked_valid | issue),
            # With two iterations outstanding at most, stage 2 has no step left of the one whose
            # bases this replaces, or moves it on in this cycle.
            start.ready.eq(~walking & ~failed),
        ]

        with m.If(walked_ready):
            m.d.sync += [
                asked_valid.eq(walked_valid),
                asked.eq(walked),
                walked_valid.eq(0),
            ]
        with m.If(walked_ready & walked_valid):
            row, pixel = granules(body.in_y_stride), granules(body.in_x_stride)
            down, right = granules(body.in_ky_stride), granules(body.in_kx_stride)
            _advance(m, "in", walked_step, in_base, in_at, [right, down, 1, pixel, row])
            _advance(m, "second", walked_step, second_base, second_at, [1, right, down])
            row, pixel = granules(body.out_y_stride), granules(body.out_x_stride)
            _advance(m, "out", walked_step, out_base, out_at, [1, pixel, row])

        with m.If(walking & (~walked_valid | walked_ready)):
            m.d.sync += [
                walked_valid.eq(1),
                walked_step.eq(step),
                walked.first.eq((step != _Step.KERNEL_X) & (step != _Step.KERNEL_Y)),
                walked.second.eq(pair & (step == _Step.KERNEL_X)),
                walked.last.eq(ends[:2].all()),
                walked.final.eq(ends.all()),
                walking.eq(~ends.all()),
            ]
            for i, loop in enumerate(loops):
                with m.If(~ends[i]) if i == 0 else m.Elif(~ends[i]):
                    m.d.sync += [step.eq(loop), count[loop].eq(count[loop] + 1)]
                    m.d.sync += [count[inner].eq(0) for inner in list(loops)[:i]]

        elementwise = pair & ((body.kernel_y != 1) | (body.kernel_x != 1))
        unknown = (body.op > VectorOp.MULTIPLY.value) | (body.in_format != Format.INT8.value)
        strides = (getattr(body, name) for name in _STRIDES)
        unaligned = misaligned(operand[1], operand[2], *strides) | (pair & misaligned(operand[0]))
        adds = body.op == VectorOp.ADD.value
        bad_scale = (~maximum & ~is_normal(body.a_scale)) | (adds & ~is_normal(body.b_scale))
        status = Signal(Status)
        with m.If(start.valid & start.ready):
            m.d.sync += [
                step.eq(_Step.BEGIN),
                second_base.eq(granules(operand[0])),
                in_base.eq(granules(operand[1])),
                out_base.eq(granules(operand[2])),
                *(counter.eq(0) for counter in count.values()),
            ]
            with m.If(Cat(bound == 0 for bound in loops.values()).any() | elementwise):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_LENGTH)]
            with m.Elif(unknown):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_FORMAT)]
            with m.Elif(unaligned):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_ALIGNMENT)]
            with m.Elif(bad_scale):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_SCALE)]
            with m.Else():
                m.d.sync += walking.eq(1)
        # Iterations end in order, so what fails here failed before what fails above.
        with m.If(outside):
            m.d.sync += [failed.eq(1), status.eq(Status.BAD_ADDRESS)]

        reported = Signal()
        m.d.comb += self.unit.status.eq(status)
        m.d.sync += self.unit.error.eq(0)
        settled = (pending == 0) & (outside | ~(asked_valid | walked_valid | walking))
        with m.If(failed & ~reported & settled):
            m.d.sync += [reported.eq(1), self.unit.error.eq(1)]

        # From issue on: the item and where its result goes.
        ended = issue & asked.last
        written = self._elaborate_results(m, results, ended, out_address, asked.final)
        m.d.sync += pending.eq(pending + ended - written)
        with m.If(~maximum):
            m.d.sync += waiting.eq(waiting + ended - requantizer.taken)
        self._elaborate_arithmetic(m, body, issue, asked)
        return m

    def _elaborate_arithmetic(self, m: Module, body, issue, item) -> None:
        """From the read's answer, `READ_LATENCY` after ``issue``, to finished granules."""
        requantizer = m.submodules.requantizer
        results = m.submodules.results
        maximum = body.op == VectorOp.MAX.value
        tag_layout = data.StructLayout(
            {"first": unsigned(1), "second": unsigned(1), "last": unsigned(1)}
        )
        steps = READ_LATENCY + 1
        tags = [Signal(tag_layout, name=f"tag{i}", reset_less=True) for i in range(steps)]
        valids = Signal(steps)
        m.d.sync += [
            valids.eq(Cat(issue, valids)),
            tags[0].first.eq(item.first),
            tags[0].second.eq(item.second),
            tags[0].last.eq(item.last),
            *(later.eq(earlier) for earlier, later in itertools.pairwise(tags)),
        ]
        tags, valid = tags[-3:], valids[-3:]
        got = data.ArrayLayout(signed(8), GRANULE)(self.read.data)

        best = Signal(data.ArrayLayout(signed(8), GRANULE), reset_less=True)
        with m.If(valid[1] & maximum):
            for lane in range(GRANULE):
                m.d.sync += best[lane].eq(
                    Mux(tags[1].first | (got[lane] > best[lane]), got[lane], best[lane])
                )

        # The second input's difference leaves beside the sum, which is that of the first input.
        difference = Signal(data.ArrayLayout(signed(DIFFERENCE_BITS), GRANULE), reset_less=True)
        total = Signal(data.ArrayLayout(signed(SUM_BITS), GRANULE), reset_less=True)
        pairs = requantizer.pairs
        zero = Signal(signed(8))
        m.d.comb += zero.eq(Mux(tags[1].second, body.b_zero, body.a_zero))
        with m.If(valid[1] & ~maximum):
            m.d.sync += [difference[lane].eq(got[lane] - zero) for lane in range(GRANULE)]
        for lane in range(GRANULE):
            before = Mux(tags[2].first, 0, total[lane])
            m.d.comb += [
                pairs[lane].sum.eq(before + Mux(tags[2].second, 0, difference[lane])),
                pairs[lane].other.eq(difference[lane]),
            ]
        with m.If(valid[2] & ~maximum):
            m.d.sync += [total[lane].eq(pairs[lane].sum) for lane in range(GRANULE)]

        ended = valid[2] & tags[2].last
        m.d.comb += [
            requantizer.command.eq(body),
            requantizer.valid_i.eq(ended & ~maximum),
            results.w_en.eq(Mux(maximum, ended, requantizer.valid_o)),
            results.w_data.eq(Mux(maximum, best, requantizer.granule)),
        ]

    def _elaborate_results(self, m: Module, depth: int, ended, address, final):
        """Write each result where its last read said; return whether one is written.

        ``ended`` in the cycle of that read comes with the ``address`` and whether it is the
        iteration's last.
        """
        target_layout = data.StructLayout(
            {"address": unsigned(self.config.granule_addr_width), "final": unsigned(1)}
        )
        m.submodules.targets = targets = SyncFIFOBuffered(width=target_layout.size, depth=depth)
        m.submodules.results = results = SyncFIFOBuffered(width=8 * GRANULE, depth=depth)
        pushed, target = target_layout(targets.w_data), target_layout(targets.r_data)
        written = Signal()
        m.d.comb += [
            targets.w_en.eq(ended),
            pushed.address.eq(address),
            pushed.final.eq(final),
            # Its target has been there for longer than a result.
            self.write.valid.eq(results.r_rdy),
            self.write.address.eq(target.address),
            self.write.data.eq(results.r_data),
            self.write.mask.eq(~0),
            written.eq(self.write.valid & self.write.ready),
            targets.r_en.eq(written),
            results.r_en.eq(written),
        ]
        m.d.sync += self.unit.done.eq(written & target.final)
        return written


def _advance(m: Module, name: str, step, base, at: dict, strides: list) -> None:
    """Move addresses on: the loop that goes on steps, those inside it begin again there.

    ``at`` holds the address of each loop that has a stride, the innermost first.
    """
    origin = Signal(len(base), name=f"{name}_origin")
    by = Signal(len(base), name=f"{name}_by")
    after = Signal(len(base), name=f"{name}_after")
    m.d.comb += [origin.eq(base), by.eq(0), after.eq(origin + by)]
    with m.Switch(step):
        for loop, stride in zip(at, strides, strict=True):
            with m.Case(loop):
                m.d.comb += [origin.eq(at[loop]), by.eq(stride)]
    for loop in at:
        with m.If((step == _Step.BEGIN) | (step.as_value() >= loop.value)):
            m.d.sync += at[loop].eq(after)
