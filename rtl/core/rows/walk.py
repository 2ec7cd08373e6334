"""The walk over the rows of ROWS: checks, and where each row lies."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import GRANULE, CardConfig
from ...isa import RowsBody, RowsFlag, RowsOp, Status
from ...numerics.pipeline import is_normal
from ..ports import iteration_layout
from ..transfer import granules, misaligned
from .shape import IN_FORMATS, OUT_FORMATS, shape_layout

__all__ = ["SCALE_BYTES", "RowWalk", "row_layout"]

SCALE_BYTES = 4

_FLAGS = {
    RowsOp.AFFINE: RowsFlag.TABLE,
    RowsOp.SOFTMAX: RowsFlag.DEFER,
    RowsOp.NORMALIZE: RowsFlag.TABLE | RowsFlag.RMS,
    RowsOp.QUANTIZE: 0,
}


def row_layout(config: CardConfig) -> data.StructLayout:
    """Layout of a row: ``source``, ``target`` in granules, ``scale`` in words of 4 bytes; of its
    numbers the first ``take`` take part. ``last``: the iteration's last."""
    words = (GRANULE // SCALE_BYTES).bit_length() - 1
    return data.StructLayout(
        {
            "source": unsigned(config.granule_addr_width),
            "target": unsigned(config.granule_addr_width),
            "scale": unsigned(config.granule_addr_width + words),
            "take": unsigned(16),
        }
    )


class RowWalk(wiring.Component):
    """Checks the iterations of ROWS and names their rows, one every two cycles.

    An iteration is checked when it starts, in the order BAD_LENGTH, BAD_FORMAT, BAD_ALIGNMENT,
    BAD_SCALE; each row for BAD_ADDRESS before it is named. The next iteration starts when the rows
    of the one before are ``ended``, and the error of one that fails is raised when those before it
    are. After an error nothing starts until reset.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    start : ``In(stream)``
        `iteration_layout` with a `RowsBody`.
    shape : ``In(shape_layout(config))``
    row : ``Out(stream)``
        `row_layout`.
    table : ``Out``
        Address of the table, in granules.
    ended : ``In(1)``
        All rows that were taken have their results, and their scales, in the scratchpad.
    done : ``Out(1)``
    error : ``Out(1)``
        One cycle, with ``status``.
    status : ``Out(Status)``
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(stream.Signature(iteration_layout())),
                "shape": In(shape_layout(config)),
                "row": Out(stream.Signature(row_layout(config))),
                "table": Out(config.granule_addr_width),
                "ended": In(1),
                "done": Out(1),
                "error": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, row, start = self.shape, self.row, self.start
        operand = start.payload.operand
        body = RowsBody(start.payload.body)

        # Where the next row lies, and where the plane (its z) began: source and target in granules,
        # the scale in words.
        width = len(operand[0])
        strides = {
            "source": (granules(body.in_y_stride), granules(body.in_z_stride)),
            "target": (granules(body.out_y_stride), granules(body.out_z_stride)),
            "scale": (_words(body.scale_y_stride), _words(body.scale_z_stride)),
        }
        at, plane, after = {}, {}, {}
        for name, (along_y, _) in strides.items():
            at[name], plane[name], after[name] = (
                Signal(len(along_y), name=f"{kind}_{name}", reset_less=True)
                for kind in ("at", "plane", "after")
            )
        table = Signal(width - 4, reset_less=True)
        y, z = Signal(16, reset_less=True), Signal(16, reset_less=True)
        take = Signal(16, reset_less=True)
        last_y, last = Signal(), Signal()
        m.d.comb += [
            last_y.eq(y + 1 == body.y),
            last.eq(last_y & (z + 1 == body.z)),
            self.table.eq(table),
        ]
        for name, (along_y, along_z) in strides.items():
            m.d.comb += after[name].eq(Mux(last_y, plane[name] + along_z, at[name] + along_y))
        more = Signal(17)
        m.d.comb += more.eq(take + body.valid_step)

        faults = self._faults(body, operand)
        status = Signal(Status)
        m.d.comb += self.status.eq(status)
        m.d.sync += [self.done.eq(0), self.error.eq(0)]
        wrong = Signal(len(faults), reset_less=True)
        outside = Signal(reset_less=True)

        with m.FSM():
            with m.State("Start"):
                m.d.comb += start.ready.eq(1)
                m.d.sync += [
                    wrong.eq(Cat(faults.values())),
                    table.eq(granules(operand[0])),
                    y.eq(0),
                    z.eq(0),
                ]
                bases = {
                    "source": granules(operand[1]),
                    "target": granules(operand[2]),
                    "scale": _words(operand[0]),
                }
                for name, base in bases.items():
                    m.d.sync += [at[name].eq(base), plane[name].eq(base)]
                m.d.sync += take.eq(Mux(body.valid.any(), body.valid, ~0))
                with m.If(start.valid):
                    m.next = "Check"

            with m.State("Check"):
                m.next = "Look"
                for i, found in reversed(list(enumerate(faults))):
                    with m.If(wrong[i]):
                        m.d.sync += status.eq(found)
                with m.If(wrong.any()):
                    m.next = "Fail"

            with m.State("Look"):
                m.d.sync += outside.eq(
                    Cat(
                        self._beyond(at["source"], shape.in_granules),
                        self._beyond(at["target"], shape.out_granules),
                        self._beyond(table, shape.table_granules) & shape.table,
                        at["scale"][len(row.payload.scale) :].any() & shape.scales,
                    ).any()
                )
                m.next = "Row"

            with m.State("Row"):
                limit = Mux(take > body.length, body.length, take)
                m.d.comb += [
                    row.payload.source.eq(at["source"]),
                    row.payload.target.eq(at["target"]),
                    row.payload.scale.eq(at["scale"]),
                    row.payload.take.eq(Mux(shape.softmax, limit, body.length)),
                    row.valid.eq(~outside),
                ]
                with m.If(outside):
                    m.d.sync += status.eq(Status.BAD_ADDRESS)
                    m.next = "Fail"
                with m.Elif(row.ready):
                    m.d.sync += [at[name].eq(after[name]) for name in strides]
                    m.d.sync += y.eq(Mux(last_y, 0, y + 1))
                    with m.If(body.valid.any()):
                        m.d.sync += take.eq(
                            Mux(last_y, body.valid, more[:16] | more[16].replicate(16))
                        )
                    with m.If(last_y):
                        m.d.sync += z.eq(z + 1)
                        m.d.sync += [plane[name].eq(after[name]) for name in strides]
                    m.next = "Look"
                    with m.If(last):
                        m.next = "End"

            with m.State("End"):
                with m.If(self.ended):
                    m.d.sync += self.done.eq(1)
                    m.next = "Start"

            with m.State("Fail"):
                with m.If(self.ended):
                    m.d.sync += self.error.eq(1)
                    m.next = "Dead"

            with m.State("Dead"):
                pass
        return m

    def _beyond(self, first: Value, count: Value) -> Value:
        """Return whether granules, one more than ``count``, leave the scratchpad."""
        return (first + count)[self.config.granule_addr_width :].any()

    def _faults(self, body, operand) -> dict[Status, Value]:
        """Return what may be wrong with an iteration's fields, in the order of the checks."""
        op = {op: body.op == op.value for op in RowsOp}
        affine, softmax, normalize, quantize = (op[kind] for kind in RowsOp)
        tabled = (body.flags & RowsFlag.TABLE).any()
        scaled = quantize | (softmax & (body.flags & RowsFlag.DEFER).any())

        form = ~Cat(op.values()).any()
        for kind, flags in _FLAGS.items():
            form |= op[kind] & (body.flags & ~Const(int(flags), 8)).any()
        for given, known in ((body.in_format, IN_FORMATS), (body.out_format, OUT_FORMATS)):
            form |= ~Cat(given == choice.value for choice in known).any()

        aligned = (operand[1], operand[2], body.in_y_stride, body.in_z_stride)
        aligned += (body.out_y_stride, body.out_z_stride)
        words = Cat(
            Value.cast(value)[: SCALE_BYTES.bit_length() - 1]
            for value in (operand[0], body.scale_y_stride, body.scale_z_stride)
        )
        scale = (
            ((affine | softmax) & ~is_normal(body.a_scale))
            | (softmax & body.a_scale[-1])
            | (~tabled & ~is_normal(body.b_scale))
            | (quantize & body.b_scale[-1])
            | ((normalize | scaled) & ~is_normal(body.c_scale))
            | (normalize & (~is_normal(body.epsilon) | body.epsilon[-1]))
        )
        return {
            Status.BAD_LENGTH: ~body.length.any() | ~body.y.any() | ~body.z.any(),
            Status.BAD_FORMAT: form,
            Status.BAD_ALIGNMENT: misaligned(*aligned)
            | (tabled & misaligned(operand[0]))
            | (scaled & words.any()),
            Status.BAD_SCALE: scale,
        }


def _words(value: Value) -> Value:
    """Return a byte address or stride in words of a scale's size, unsigned."""
    return Value.cast(value)[SCALE_BYTES.bit_length() - 1 :]
