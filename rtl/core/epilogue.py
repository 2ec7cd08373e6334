"""The epilogue of one row: from drained sums to bytes in the scratchpad."""

import dataclasses

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..array.ports import SEGMENT, drain_layout, visit_layout
from ..config import CardConfig
from ..isa import Format, MatmulBody, Status
from ..numerics.convert import NarrowFp32
from ..numerics.fp32 import Fp32Add, Fp32Multiply
from ..numerics.rounding import SumToFp32
from ..plu.slot import PluSlot
from .output import lane_write_layout
from .writer import ResultWriter, place_layout

__all__ = ["EpilogueLane"]

_VISITS = 16  # the depth of distributed RAM
_VISITS_IN_BUFFER = 2


@dataclasses.dataclass
class _Sums:
    """Registers with one exact sum a cycle, as `SumToFp32` takes it."""

    valid: Signal
    last: Signal
    whole: Signal
    part: Signal
    flags: Signal


class EpilogueLane(wiring.Component):
    """Finishes the results of one row engine, in order.

    Integer sums get their bias exactly. An INT32 result is that sum, saturated. Otherwise it is
    rounded to FP32 and multiplied by the scale; fixed-point sums get their FP32 bias then; the
    PLU and the conversion to the output format follow. Results of one granule that come one after
    the other in a visit are written together.

    A visit's last write is offered 7 cycles after its last beat came where nothing waits and
    results are INT32; 20 or 25 cycles after it for integer sums and FP32 or narrower results; 27
    or 32 cycles for fixed-point sums. The lane takes a beat a cycle.

    A drain beat waits in a buffer that holds two visits; what comes behind it stands still
    whenever ``write`` does. So the engine starts with two credits, and takes one for each visit
    that is not empty.

    Column blocks are ``cols`` columns wide, ``2 * cols`` for INT8 inputs, each PE's two results
    side by side; results beyond column ``n`` are dropped. Every engine visit of a block has the
    same columns: where a block starts is where the last one ended.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    command : ``In(MatmulBody)``
        Stands still from two cycles before the first descriptor until the last iteration ended.
    visit : ``In(stream.Signature(visit_layout()))``
        Descriptors of the visits, accepted before the first drain beat of their visit. Ready while
        fewer than 16 visits are unfinished. Addresses and strides are multiples of a result's size.
    drain : ``In(drain_layout())``
        ``2 * cols`` beats a visit that is not empty, at any pace; never refused.
    credit : ``Out(1)``
        Pulses when the last beat of a visit has left the buffer.
    write : ``Out(stream.Signature(lane_write_layout(config)))``
        The last of an iteration is marked; it has no bytes where the iteration ended without.
    error : ``Out(1)``
        Pulses for a result outside the scratchpad; it is not written.
    status : ``Out(Status)``
        `Status.BAD_ADDRESS`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(MatmulBody),
                "visit": In(stream.Signature(visit_layout())),
                "drain": In(drain_layout()),
                "credit": Out(1),
                "write": Out(stream.Signature(lane_write_layout(config))),
                "error": Out(1),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.rounding = rounding = SumToFp32()
        m.submodules.multiply = multiply = Fp32Multiply()
        m.submodules.add = add = Fp32Add()
        m.submodules.plu = plu = PluSlot()
        m.submodules.narrow = narrow = NarrowFp32()
        m.submodules.writer = writer = ResultWriter(config)

        command = self.command
        fp16 = Signal()
        to = {form: Signal(name=f"to_{form.name.lower()}") for form in Format}
        m.d.sync += fp16.eq(command.in_format == Format.FP16.value)
        m.d.sync += [flag.eq(command.out_format == form.value) for form, flag in to.items()]

        # One enable for all stages between the buffer and the writer.
        ce = Signal()
        bias = Signal(32)
        sums, resolved_last = self._resolve(m, ce, fp16, bias)

        # The tag of a visit's last result moves beside the units; how far depends on the path.
        scaled = rounding.LATENCY + multiply.LATENCY
        biased = scaled + add.LATENCY
        tags = Signal(biased + plu.latency + narrow.LATENCY)
        with m.If(ce):
            m.d.sync += tags.eq(Cat(sums.last, tags))

        def last_after(cycles):
            return tags[cycles - 1]

        def last_behind_sums(cycles):
            return Mux(fp16, last_after(biased + cycles), last_after(scaled + cycles))

        # Where an operand is needed a counter says whose: visits pass in order. Integer sums take
        # their bias as they are resolved, the others after the multiplication.
        scale_step = Mux(
            to[Format.INT32],
            sums.valid & sums.last,
            rounding.valid_o & last_after(rounding.LATENCY),
        )
        bias_step = Mux(fp16, multiply.valid_o & last_after(scaled), resolved_last)
        scale = self._operand(m, "scale", self.visit.payload.scale, ce & scale_step)
        m.d.comb += bias.eq(self._operand(m, "bias", self.visit.payload.bias, ce & bias_step))

        m.d.comb += [
            rounding.ce.eq(ce),
            rounding.valid_i.eq(sums.valid & ~to[Format.INT32]),
            rounding.whole.eq(sums.whole),
            rounding.part.eq(sums.part),
            Cat(rounding.nan, rounding.inf_pos, rounding.inf_neg).eq(sums.flags),
            multiply.ce.eq(ce),
            multiply.valid_i.eq(rounding.valid_o),
            multiply.a.eq(rounding.result),
            multiply.b.eq(scale),
            add.ce.eq(ce),
            add.valid_i.eq(multiply.valid_o & fp16),
            add.a.eq(multiply.result),
            add.b.eq(bias),
            plu.function.eq(command.function),
            plu.slot.ce.eq(ce),
            plu.slot.parameter.eq(command.parameter),
            plu.slot.valid_i.eq(Mux(fp16, add.valid_o, multiply.valid_o)),
            plu.slot.value_i.eq(Mux(fp16, add.result, multiply.result)),
            narrow.ce.eq(ce),
            narrow.fp16.eq(to[Format.FP16]),
            narrow.zero_point.eq(command.zero_point),
            narrow.clamp_low.eq(command.clamp_low),
            narrow.clamp_high.eq(command.clamp_high),
            narrow.valid_i.eq(plu.slot.valid_o & ~to[Format.FP32]),
            narrow.number.eq(plu.slot.value_o),
        ]

        # The path's end.
        valid = Signal()
        with m.If(to[Format.INT32]):
            fits = sums.whole[31:].all() | ~sums.whole[31:].any()
            saturated = Cat((~sums.whole[-1]).replicate(31), sums.whole[-1])
            m.d.comb += [
                valid.eq(sums.valid),
                writer.last.eq(sums.last),
                writer.result.eq(Mux(fits, sums.whole[:32], saturated)),
            ]
        with m.Elif(to[Format.FP32]):
            m.d.comb += [
                valid.eq(plu.slot.valid_o),
                writer.last.eq(last_behind_sums(plu.latency)),
                writer.result.eq(plu.slot.value_o),
            ]
        with m.Else():
            m.d.comb += [
                valid.eq(narrow.valid_o),
                writer.last.eq(last_behind_sums(plu.latency + narrow.LATENCY)),
                writer.result.eq(narrow.result),
            ]

        # Places are remembered until the writer has used them; the operands' memories are as deep.
        m.submodules.places = places = SyncFIFO(width=place_layout().size, depth=_VISITS)
        place = {name: self.visit.payload[name] for name, _ in place_layout()}
        m.d.comb += [
            self.visit.ready.eq(places.w_rdy),
            places.w_en.eq(self.visit.valid),
            places.w_data.eq(Cat(place.values())),
            writer.visit.valid.eq(places.r_rdy),
            writer.visit.payload.eq(places.r_data),
            places.r_en.eq(writer.visit.ready),
            ce.eq(~valid | writer.ready),
            writer.valid.eq(valid),
            writer.n.eq(command.n),
            writer.n_inner.eq(command.n_inner),
            writer.inner_stride.eq(command.out_inner_stride),
            writer.outer_stride.eq(command.out_outer_stride),
            writer.size.eq(
                Cat(to[Format.INT8], to[Format.FP16], to[Format.INT32] | to[Format.FP32])
            ),
            self.error.eq(writer.error),
            self.status.eq(Status.BAD_ADDRESS),
        ]
        wiring.connect(m, writer.write, wiring.flipped(self.write))
        return m

    def _operand(self, m: Module, name: str, word, step):
        """Store ``word`` of each visit that is not empty; return the one that is used next."""
        memory = Memory(shape=unsigned(32), depth=_VISITS, init=[])
        m.submodules[name] = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        written = Signal(range(_VISITS), name=f"{name}_written")
        used = Signal(range(_VISITS), name=f"{name}_used")
        m.d.comb += [
            write.en.eq(self.visit.valid & self.visit.ready & ~self.visit.payload.empty),
            write.addr.eq(written),
            write.data.eq(word),
            read.addr.eq(used),
        ]
        m.d.sync += [written.eq(written + write.en), used.eq(used + step)]
        return read.data

    def _resolve(self, m: Module, ce, fp16, bias):
        """Buffer the beats, add up what their halves and carries stand for, and the integer bias.

        Returns the sums, and whether the last one of a visit takes ``bias`` in this cycle.
        """
        config = self._config
        beat = Signal(drain_layout())
        kept = beat.as_value()[:-1]  # but `valid`
        m.submodules.buffer = buffer = SyncFIFOBuffered(
            width=len(kept), depth=_VISITS_IN_BUFFER * 2 * config.cols
        )
        count = Signal(range(2 * config.cols))
        pop = Signal()
        final = count == 2 * config.cols - 1
        m.d.comb += [
            buffer.w_en.eq(self.drain.valid),
            buffer.w_data.eq(self.drain.as_value()[:-1]),
            kept.eq(buffer.r_data),
            pop.eq(ce & buffer.r_rdy),
            buffer.r_en.eq(pop),
        ]
        m.d.sync += self.credit.eq(pop & final)
        with m.If(pop):
            m.d.sync += count.eq(Mux(final, 0, count + 1))

        # The carry between a beat's segments, then the one between beats or the bias.
        valid1, half1, last1 = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        word1 = Signal(2 * SEGMENT, reset_less=True)
        carry1 = Signal(2, reset_less=True)
        flags1 = Signal(3, reset_less=True)
        upper = Signal(SEGMENT + 1)
        m.d.comb += upper.eq(beat.segment[1] + beat.carry[0])
        with m.If(ce):
            m.d.sync += valid1.eq(pop)
        with m.If(pop):
            m.d.sync += [
                word1.eq(Cat(beat.segment[0], upper)),
                carry1.eq(upper[-1] + beat.carry[1]),
                flags1.eq(Cat(beat.nan, beat.inf_pos, beat.inf_neg)),
                half1.eq(count[0]),
                last1.eq(final),
            ]

        sums = _Sums(
            valid=Signal(name="sum_valid"),
            last=Signal(name="sum_last", reset_less=True),
            whole=Signal(signed(49), name="sum_whole", reset_less=True),
            part=Signal(2 * SEGMENT, name="sum_part", reset_less=True),
            flags=Signal(3, name="sum_flags", reset_less=True),
        )
        carry2 = Signal(2, reset_less=True)
        low = fp16 & ~half1
        total = Signal(signed(49))
        m.d.comb += total.eq(word1.as_signed() + Mux(fp16, carry2, bias.as_signed()))
        with m.If(ce):
            m.d.sync += sums.valid.eq(valid1 & ~low)
        with m.If(ce & valid1):
            with m.If(low):
                m.d.sync += [sums.part.eq(word1), carry2.eq(carry1)]
            with m.Else():
                m.d.sync += [
                    sums.whole.eq(Mux(fp16, total[:48].as_signed(), total)),
                    sums.last.eq(last1),
                    sums.flags.eq(flags1),
                ]
            with m.If(~fp16):
                m.d.sync += sums.part.eq(0)
        return sums, valid1 & last1
