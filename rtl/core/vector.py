"""The vector unit: maximum over windows of granules in the scratchpad."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..isa import Format, PoolBody, Status
from .ports import ReadPort, UnitPort, WritePort
from .transfer import granules, misaligned

__all__ = ["VectorUnit"]

RESULTS = 8
"""Results between the read of their last granule and their write: two more than it takes."""


class _Step(enum.Enum, shape=unsigned(3)):
    """How one input granule follows from the one before: the innermost loop that goes on."""

    BEGIN = 0
    KERNEL_X = 1
    KERNEL_Y = 2
    GRANULE = 3
    X = 4
    Y = 5


class VectorUnit(wiring.Component):
    """Pools windows of the scratchpad (POOL).

    Reads one input granule a cycle and writes one output granule a window, in the order y, x, c;
    iterations follow each other with two cycles between. Each iteration is checked when it
    starts, in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT, and each granule for BAD_ADDRESS.
    The windows before the first with a granule outside the scratchpad are still written; then the
    error is raised, and nothing starts until reset. Reads run ahead of writes: an iteration's
    output must not overlap its input, nor the input of the next.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    unit : ``In(UnitPort())``
        Iterations with a `PoolBody`.
    read : ``Out(ReadPort(config))``
    write : ``Out(WritePort(config))``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "unit": In(UnitPort()),
                "read": Out(ReadPort(config)),
                "write": Out(WritePort(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        start = self.unit.start
        operand = start.payload.operand
        body = PoolBody(start.payload.body)
        width = len(granules(operand[1]))

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
        out_base = Signal(width, reset_less=True)
        count = {
            loop: Signal(len(bound), name=f"count_{loop.name.lower()}", reset_less=True)
            for loop, bound in loops.items()
        }
        ends = Signal(len(loops))
        m.d.comb += ends.eq(Cat(count[loop] + 1 == bound for loop, bound in loops.items()))

        # Stage 2 adds up the addresses.
        item_layout = data.StructLayout(
            {"first": unsigned(1), "last": unsigned(1), "final": unsigned(1)}
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
        out_at = {
            loop: Signal(width, name=f"out_{loop.name.lower()}", reset_less=True)
            for loop in (_Step.GRANULE, _Step.X, _Step.Y)
        }
        address = in_at[_Step.KERNEL_X]
        out_address = out_at[_Step.GRANULE]
        outside = Signal()
        pending = Signal(range(RESULTS + 1))
        issue = Signal()
        m.d.comb += [
            outside.eq(
                asked_valid
                & Cat(at[config.granule_addr_width :] for at in (address, out_address)).any()
            ),
            self.read.valid.eq(asked_valid & ~outside & (~asked.last | (pending != RESULTS))),
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
            self._advance(m, body, walked_step, in_base, out_base, in_at, out_at)

        with m.If(walking & (~walked_valid | walked_ready)):
            m.d.sync += [
                walked_valid.eq(1),
                walked_step.eq(step),
                walked.first.eq((step != _Step.KERNEL_X) & (step != _Step.KERNEL_Y)),
                walked.last.eq(ends[:2].all()),
                walked.final.eq(ends.all()),
                walking.eq(~ends.all()),
            ]
            for i, loop in enumerate(loops):
                with m.If(~ends[i]) if i == 0 else m.Elif(~ends[i]):
                    m.d.sync += [step.eq(loop), count[loop].eq(count[loop] + 1)]
                    m.d.sync += [count[inner].eq(0) for inner in list(loops)[:i]]

        status = Signal(Status)
        with m.If(start.valid & start.ready):
            m.d.sync += [
                step.eq(_Step.BEGIN),
                in_base.eq(granules(operand[1])),
                out_base.eq(granules(operand[2])),
                *(counter.eq(0) for counter in count.values()),
            ]
            with m.If(Cat(bound == 0 for bound in loops.values()).any()):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_LENGTH)]
            with m.Elif(body.in_format != Format.INT8.value):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_FORMAT)]
            with m.Elif(
                misaligned(
                    operand[1],
                    operand[2],
                    body.in_y_stride,
                    body.in_x_stride,
                    body.in_ky_stride,
                    body.in_kx_stride,
                    body.out_y_stride,
                    body.out_x_stride,
                )
            ):
                m.d.sync += [failed.eq(1), status.eq(Status.BAD_ALIGNMENT)]
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

        self._elaborate_results(m, issue, asked, out_address, pending)
        return m

    def _advance(self, m: Module, body, step, in_base, out_base, in_at: dict, out_at: dict) -> None:
        """Move the addresses on: the loop that goes on steps, those inside it begin again there."""
        in_stride = {
            _Step.KERNEL_X: granules(body.in_kx_stride),
            _Step.KERNEL_Y: granules(body.in_ky_stride),
            _Step.GRANULE: 1,
            _Step.X: granules(body.in_x_stride),
            _Step.Y: granules(body.in_y_stride),
        }
        out_stride = {
            _Step.GRANULE: 1,
            _Step.X: granules(body.out_x_stride),
            _Step.Y: granules(body.out_y_stride),
        }
        for base, at, stride, name in (
            (in_base, in_at, in_stride, "in"),
            (out_base, out_at, out_stride, "out"),
        ):
            origin = Signal(len(base), name=f"{name}_origin")
            by = Signal(len(base), name=f"{name}_by")
            after = Signal(len(base), name=f"{name}_after")
            m.d.comb += [origin.eq(base), by.eq(0), after.eq(origin + by)]
            with m.Switch(step):
                for loop in at:
                    with m.Case(loop):
                        m.d.comb += [origin.eq(at[loop]), by.eq(stride[loop])]
            for loop in at:
                with m.If((step == _Step.BEGIN) | (step.as_value() >= loop.value)):
                    m.d.sync += at[loop].eq(after)

    def _elaborate_results(self, m: Module, issue, item, address, pending) -> None:
        """From the read's answer, two cycles later, to the write."""
        config = self.config
        tag_layout = data.StructLayout(
            {
                "first": unsigned(1),
                "last": unsigned(1),
                "final": unsigned(1),
                "address": unsigned(config.granule_addr_width),
            }
        )
        tags = [Signal(tag_layout, name=f"tag{i}", reset_less=True) for i in range(3)]
        valid = Signal(3)
        m.d.sync += [
            valid.eq(Cat(issue, valid)),
            tags[0].first.eq(item.first),
            tags[0].last.eq(item.last),
            tags[0].final.eq(item.final),
            tags[0].address.eq(address),
            tags[1].eq(tags[0]),
            tags[2].eq(tags[1]),
        ]

        lanes = data.ArrayLayout(signed(8), GRANULE)
        best = Signal(lanes, reset_less=True)
        got = lanes(self.read.data)
        with m.If(valid[1]):
            for lane in range(GRANULE):
                m.d.sync += best[lane].eq(
                    Mux(tags[1].first | (got[lane] > best[lane]), got[lane], best[lane])
                )

        result_layout = data.StructLayout(
            {
                "data": unsigned(8 * GRANULE),
                "address": unsigned(config.granule_addr_width),
                "final": unsigned(1),
            }
        )
        m.submodules.results = results = SyncFIFOBuffered(width=result_layout.size, depth=RESULTS)
        pushed = result_layout(results.w_data)
        result = result_layout(results.r_data)
        written = Signal()
        m.d.comb += [
            results.w_en.eq(valid[2] & tags[2].last),
            pushed.data.eq(best),
            pushed.address.eq(tags[2].address),
            pushed.final.eq(tags[2].final),
            self.write.valid.eq(results.r_rdy),
            self.write.address.eq(result.address),
            self.write.data.eq(result.data),
            self.write.mask.eq(~0),
            results.r_en.eq(self.write.ready),
            written.eq(self.write.valid & self.write.ready),
        ]
        m.d.sync += [
            pending.eq(pending + (issue & item.last) - written),
            self.unit.done.eq(written & result.final),
        ]
