"""The epilogue of one row: from drained sums to bytes in the scratchpad."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..array.ports import drain_layout, visit_layout
from ..config import CardConfig
from ..isa import LANES, Flag, Format, Mode, Status
from ..numerics.convert import NarrowFp32
from ..numerics.fp32 import Fp32Add, Fp32Multiply
from ..numerics.rounding import SumToFp32
from ..plu.slot import PluSlot
from ..tech.gate import Gate
from .operands import OperandQueue
from .output import lane_write_layout
from .partials import PartialMemory
from .path import PathSwitch
from .resolve import SumResolver, partial_layout
from .results import ResultQueue, tag_layout
from .running import columns_layout, path_layout
from .writer import ResultWriter, place_layout

__all__ = ["EpilogueLane"]

_VISITS = 16  # the depth of distributed RAM

# Cycles from taking a beat to the last sum that it makes.
_RESOLVING = 5

# A running sum is looked up so long before the product that it is added to.
_AHEAD = 1 + PartialMemory.LATENCY

# From its look-up to its replacement.
_ADD_DISTANCE = _AHEAD + Fp32Add.LATENCY


def _running_layout() -> data.StructLayout:
    """Layout of a running sum of scaled slices, with its flags."""
    return data.StructLayout({"value": unsigned(32), "below": 1, "above": 1, "overflow": 1})


class EpilogueLane(wiring.Component):
    """Finishes the results of one row engine, in order.

    Integer sums get their bias exactly. An INT32 result is that sum, saturated. Otherwise it is
    rounded to FP32 and multiplied by the scale; fixed-point sums get their FP32 bias then; the
    PLU and the conversion to the output format follow. Sums of the slices of K are added exactly
    before all this; with BLOCK_SCALE each is rounded and scaled, also an integer, and added in FP32
    to those before, the first to the bias. Results of one granule that come one after the other in
    a visit are written together.

    A visit's last write is offered 13 cycles after its last beat came where nothing waits and
    results are INT32; 31 or 38 cycles after it for integer sums and FP32 or narrower results; 40
    or 47 cycles for fixed-point sums. The lane takes a beat a cycle, of INT4 every second cycle:
    it finishes a result a cycle.

    A drain beat waits in a buffer that holds two visits; what comes behind it stands still
    whenever ``write`` does. So the engine starts with two credits, and takes one for each visit
    that is not empty. Where engines share the lane (`LaneShare`) it has no buffer: a beat stays
    at ``drain`` until ``credit`` says that it is taken.

    Iterations belong to the commands by turns, the first one after a reset to the first. Where an
    iteration's results are not made in the ``same`` way as those of the one before, its first beat
    waits until the last one's results have left the pipeline, 41 cycles at most.

    Column blocks are ``cols * LANES`` columns wide; results beyond column ``n`` are dropped. Every
    engine visit of a block has the same columns, and each block is announced by a visit with
    ``block_new``, with results or not.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    mode : ``In(Mode)``, weight : ``In(signed(8))``
        Of the array, and the exponent of the lowest bit of a fixed-point sum. Both stand still from
        two cycles before the first descriptor until the last iteration ended.
    paths, columns : ``In(path_layout).array(2)``, ``In(columns_layout).array(2)``
        Of the commands. Each stands still from the cycle before its iteration's first descriptor
        until its last write.
    same : ``In(2)``
        As with the paths: it is that of the iteration before.
    visit : ``In(stream.Signature(visit_layout()))``
        Descriptors of the visits; beats wait for that of their visit. Ready while fewer than 16
        visits are unfinished. Addresses and strides are multiples of a result's size.
    drain : ``In(drain_layout())``
        ``2 * cols`` beats a visit that is not empty, at any pace; never refused.
    credit : ``Out(1)``
        Pulses when the last beat of a visit has left the buffer. Where engines share the lane: the
        beat is taken.
    write : ``Out(stream.Signature(lane_write_layout(config)))``
        The last of an iteration is marked; it has no bytes where the iteration ended without.
    flags : ``Out(4).array(2)``
        `Flag` bits that a result of the first or the second command raises, before its write is
        offered.
    error : ``Out(2)``
        Pulses, in an iteration of the first or the second command, for a result outside the
        scratchpad; it is not written.
    status : ``Out(Status)``
        `Status.BAD_ADDRESS`.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "mode": In(Mode),
                "weight": In(signed(8)),
                "paths": In(path_layout()).array(2),
                "columns": In(columns_layout()).array(2),
                "same": In(2),
                "visit": In(stream.Signature(visit_layout())),
                "drain": In(drain_layout()),
                "credit": Out(1),
                "write": Out(stream.Signature(lane_write_layout(config))),
                "flags": Out(len(Flag)).array(2),
                "error": Out(2),
                "status": Out(Status),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        # A row's running sum is looked up again after its replacement.
        pause = max(_ADD_DISTANCE + 1 - 2 * config.cols, 0)
        m.submodules.resolver = resolver = SumResolver(config, pause=pause)
        m.submodules.rounding = rounding = SumToFp32()
        m.submodules.multiply = multiply = Fp32Multiply()
        m.submodules.add = add = Fp32Add()
        m.submodules.plu = plu = PluSlot()
        m.submodules.narrow = narrow = NarrowFp32()
        m.submodules.writer = writer = ResultWriter(config)
        m.submodules.partials = partials = PartialMemory(
            config,
            visits=_VISITS,
            width=partial_layout().size,
            near=SumResolver.KEEP,
            far=_ADD_DISTANCE,
        )
        # What has been taken from the buffer goes on to the end without a stop.
        for unit in (rounding, multiply, add, plu.slot, narrow):
            m.d.comb += unit.ce.eq(1)

        # What the mode and the command decide.
        depth = rounding.LATENCY + multiply.LATENCY + add.LATENCY + plu.latency + narrow.LATENCY
        depth += _RESOLVING + 1
        switch = PathSwitch(depth=depth, visits=_VISITS)
        m.submodules.switch = switch
        path, visit = switch.path, self.visit.payload
        m.submodules.results = results = ResultQueue(depth=depth)
        m.d.comb += [
            *(port.eq(path) for port, path in zip(switch.paths, self.paths, strict=True)),
            switch.same.eq(self.same),
            switch.describe.eq(self.visit.valid & self.visit.ready),
            switch.empty.eq(visit.empty),
            switch.iteration_last.eq(visit.iteration_last),
            switch.take.eq(resolver.take),
            switch.end.eq(resolver.take_end),
            resolver.go.eq(switch.go),
            resolver.room.eq(results.room),
        ]
        blocks, is_fixed = path.blocks, (self.mode == Mode.FP16) | (self.mode == Mode.BF16)
        fixed, int4, adds = (Signal(name=name) for name in ("fixed", "int4", "adds"))
        to_int32, to_fp32 = Signal(), Signal()
        # The same for what is valid alone, and for what is kept of slices, as the others have many
        # loads.
        no_add, every_sum, keeps_blocks = Signal(init=1), Signal(), Signal()
        m.d.sync += [
            no_add.eq(~(is_fixed | blocks)),
            every_sum.eq(~blocks),
            keeps_blocks.eq(blocks),
            fixed.eq(is_fixed),
            int4.eq(self.mode == Mode.INT4),
            adds.eq(is_fixed | blocks),
            to_int32.eq(path.out_format == Format.INT32.value),
            to_fp32.eq(path.out_format == Format.FP32.value),
        ]
        m.d.comb += rounding.weight.eq(self.weight)

        def delay(value, cycles: int, name: str) -> list[Signal]:
            """Return the value as it was 1, 2, ... cycles ago."""
            steps = []
            for i in range(cycles):
                step = Signal.like(value, name=f"{name}{i + 1}")
                m.d.sync += step.eq(steps[-1] if steps else value)
                steps.append(step)
            return steps

        # Exact sums, rounded and scaled.
        tag = Signal(tag_layout())
        m.d.comb += [
            tag.end.eq(resolver.end),
            tag.below.eq(resolver.flags.below),
            tag.above.eq(resolver.flags.above),
        ]
        tags = delay(tag, rounding.LATENCY + multiply.LATENCY, "tag")
        rounded_tag, scaled_tag = tags[rounding.LATENCY - 1], tags[-1]
        soon = delay(rounding.valid_o, multiply.LATENCY - 1, "soon")
        looks, looks_end, nears_end = Signal(), Signal(), Signal()
        m.submodules.ends = ends = Gate(
            lambda take, end, blocks, looks_end: (take and end and not blocks) or looks_end
        )
        m.d.sync += [
            nears_end.eq(soon[-2] & tags[-3].end & adds),
            looks.eq(soon[-1 - _AHEAD] & blocks),
            looks_end.eq(soon[-1 - _AHEAD] & tags[-2 - _AHEAD].end & blocks),
        ]
        product_tag = Signal(tag_layout())
        m.d.comb += [
            product_tag.eq(scaled_tag),
            product_tag.overflow.eq(multiply.overflow),
            resolver.fixed.eq(fixed),
            resolver.int4.eq(int4),
            resolver.pauses.eq(switch.pauses),
            resolver.drain.eq(self.drain),
            self.credit.eq(resolver.credit),
            rounding.valid_i.eq(resolver.valid & ~to_int32),
            rounding.whole.eq(resolver.whole),
            rounding.part.eq(resolver.part),
            rounding.nan.eq(resolver.flags.nan),
            rounding.inf_pos.eq(resolver.flags.inf_pos),
            rounding.inf_neg.eq(resolver.flags.inf_neg),
            multiply.valid_i.eq(rounding.valid_o),
            multiply.a.eq(rounding.result),
        ]

        # Exact partial sums are looked up as beats leave the buffer, running sums in time for the
        # product. What is added to that is in registers as it comes.
        added_tag, into_add = Signal(tag_layout()), Signal(tag_layout())
        added_last = delay(partials.last, 1 + add.LATENCY, "added_last")[-1]
        m.d.comb += [
            partials.is_far.eq(keeps_blocks),
            partials.long_rows.eq(int4 & switch.blocks),
            partials.look_up.eq(looks | (resolver.take & ~blocks)),
            ends.bits.eq(Cat(resolver.take, resolver.take_end, blocks, looks_end)),
            partials.end.eq(ends.out),
            resolver.last.eq(~every_sum | partials.last),
            resolver.kept.eq(Mux(keeps_blocks | partials.first, 0, partials.word)),
            partials.replace.eq(
                Mux(
                    keeps_blocks,
                    Cat(add.result, added_tag.below, added_tag.above, added_tag.overflow),
                    resolver.keep,
                )
            ),
        ]

        # Where an operand is needed a counter says whose: visits pass in order. Exact integers take
        # their bias as they are resolved, from a register, all others after the multiplication.
        accepted = self.visit.valid & self.visit.ready & ~visit.empty
        used = accepted & (visit.slice_last | switch.blocks)
        scale_step = Signal()
        bias_step, release = Signal(), Signal()
        m.d.comb += [
            scale_step.eq(
                Mux(
                    to_int32,
                    resolver.valid & resolver.end,
                    rounding.valid_o & rounded_tag.end,
                )
            ),
            bias_step.eq(nears_end | (resolver.bias_end & ~adds)),
            release.eq(Mux(blocks, nears_end, partials.end)),
        ]
        m.submodules.scales = scales = OperandQueue(visits=_VISITS)
        m.submodules.biases = biases = OperandQueue(visits=_VISITS)
        m.d.comb += [
            scales.store.eq(used),
            scales.word.eq(visit.scale),
            scales.step.eq(scale_step),
            biases.store.eq(used),
            biases.word.eq(visit.bias),
            biases.step.eq(bias_step),
        ]
        is_running = keeps_blocks & ~partials.first
        running = Signal(_running_layout(), reset_less=True)
        exact_bias = Signal(32, reset_less=True)
        word = data.View(_running_layout(), partials.word[: running.shape().size])
        m.d.sync += [
            exact_bias.eq(biases.used & ~adds.replicate(32)),
            running.eq(Mux(is_running, word.as_value(), 0)),
            running.value.eq(Mux(is_running, word.value, biases.used)),
        ]
        m.d.comb += [
            multiply.b.eq(scales.used),
            resolver.bias.eq(exact_bias),
            add.valid_i.eq(multiply.valid_o & adds),
            add.a.eq(multiply.result),
            add.b.eq(running.value),
            into_add.end.eq(scaled_tag.end),
            into_add.below.eq(scaled_tag.below | running.below),
            into_add.above.eq(scaled_tag.above | running.above),
            into_add.overflow.eq(multiply.overflow | running.overflow),
        ]
        add_tag = delay(into_add, add.LATENCY, "add_tag")[-1]
        m.d.comb += [
            added_tag.eq(add_tag),
            added_tag.overflow.eq(add_tag.overflow | add.overflow),
        ]

        # The function, and the output format.
        value_tag = Signal(tag_layout())
        m.d.comb += [
            value_tag.eq(Mux(adds, added_tag, product_tag)),
            plu.function.eq(path.function),
            plu.slot.parameter.eq(path.parameter),
            plu.slot.valid_i.eq(
                Mux(no_add, multiply.valid_o, add.valid_o & (added_last | every_sum))
            ),
            plu.slot.value_i.eq(Mux(adds, add.result, multiply.result)),
            narrow.format.eq(path.out_format),
            narrow.zero_point.eq(path.zero_point),
            narrow.clamp_low.eq(path.clamp_low),
            narrow.clamp_high.eq(path.clamp_high),
            narrow.valid_i.eq(plu.slot.valid_o & ~to_fp32),
            narrow.number.eq(plu.slot.value_o),
        ]
        plu_tag = delay(value_tag, plu.latency, "plu_tag")[-1]
        narrow_tag = delay(plu_tag, narrow.LATENCY, "narrow_tag")[-1]

        # What the command makes goes to the writer.
        m.d.comb += [
            results.to_int32.eq(to_int32),
            results.sum_valid.eq(resolver.valid),
            results.sum_tag.eq(tag),
            results.sum.eq(resolver.whole),
            results.to_fp32.eq(to_fp32),
            results.value_valid.eq(plu.slot.valid_o),
            results.value_tag.eq(plu_tag),
            results.value.eq(plu.slot.value_o),
            results.narrow_valid.eq(narrow.valid_o),
            results.narrow_tag.eq(narrow_tag),
            results.narrow_tag.overflow.eq(narrow_tag.overflow | narrow.overflow),
            results.narrow.eq(narrow.result),
            results.narrow_nan.eq(narrow.nan),
            results.ready.eq(writer.ready),
            writer.valid.eq(results.valid),
            writer.last.eq(results.last),
            writer.result.eq(results.result),
            writer.result_flags.eq(results.flags),
        ]
        m.d.comb += [
            *(port.eq(flags) for port, flags in zip(self.flags, writer.flags, strict=True)),
            *(w.eq(c) for w, c in zip(writer.layouts, self.columns, strict=True)),
            self.error.eq(writer.error),
            self.status.eq(Status.BAD_ADDRESS),
        ]
        with m.Switch(self.mode):
            for known, lanes in LANES.items():
                with m.Case(known):
                    m.d.sync += writer.block_columns.eq(lanes * config.cols)
        self._accept(m, writer, partials, switch, accepted, release)
        wiring.connect(m, writer.write, wiring.flipped(self.write))
        return m

    def _accept(self, m: Module, writer, partials, switch, accepted, release) -> None:
        """Take descriptors: places wait for the writer, operands until ``release``."""
        visit = self.visit.payload
        m.submodules.places = places = SyncFIFO(width=place_layout().size, depth=_VISITS)
        unfinished = Signal(range(_VISITS + 1))
        empty = visit.empty | ~visit.slice_last
        place = {name: visit[name] for name, _ in place_layout()} | {"empty": empty}
        slot = Signal.like(visit.slot)  # of the visit before
        # Where rows are so short that also the second next visit would come too early, all count
        # as visits of the same row.
        short = 4 * self._config.cols <= _ADD_DISTANCE
        # What leaves, which is known late, makes room a cycle later.
        left = Signal()
        m.d.sync += [left.eq(release), unfinished.eq(unfinished + accepted - left)]
        # Room for one more than what may come in this cycle. One place is in the writer: operands
        # are kept until it leaves.
        taken, ready = Signal(), Signal()
        fits = switch.ready
        for level, room in ((unfinished, _VISITS), (places.level, _VISITS - 1)):
            fits = fits & ((level < room - 1) | ((level == room - 1) & ~taken))
        m.d.comb += [taken.eq(self.visit.valid & ready), self.visit.ready.eq(ready)]
        m.d.sync += ready.eq(fits)
        with m.If(accepted):
            m.d.sync += slot.eq(visit.slot)
        m.d.comb += [
            switch.again.eq(~visit.slice_first & ((visit.slot == slot) | short)),
            # A visit without results is only of interest if it marks something.
            places.w_en.eq(taken & (~empty | visit.block_new | visit.iteration_last)),
            places.w_data.eq(Cat(place.values())),
            writer.visit.valid.eq(places.r_rdy),
            writer.visit.payload.eq(places.r_data),
            places.r_en.eq(writer.visit.ready),
            partials.announce.eq(accepted),
            partials.slot.eq(visit.slot),
            partials.slice_first.eq(visit.slice_first),
            partials.slice_last.eq(visit.slice_last),
        ]
