"""Lets row engines share one epilogue lane."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..array.ports import drain_layout, visit_layout
from ..config import CardConfig

__all__ = ["LaneShare"]

_VISITS = 8  # of an engine, described ahead

_VISITS_IN_BUFFER = 2


class LaneShare(wiring.Component):
    """Makes one engine of several, for an epilogue lane that sees all their rows as those of one.

    Visits pass whole and those of an engine in order, of the engines by turns; one with results
    waits until they come. Column blocks pass one after the other: an engine that is a block ahead
    waits for the others with what two visits have drained. Of the visits that announce a block
    the first one still does, and of those that end an iteration the last one.

    The lane gets a beat a cycle as long as an engine has one. A beat that finds nothing before it
    leaves four cycles after it came.

    Parameters
    ----------
    config : CardConfig
        With an ``engines_per_lane`` above 1.

    Members
    -------
    visit : ``In(stream.Signature(visit_layout())).array(engines_per_lane)``
    drain : ``In(drain_layout()).array(engines_per_lane)``
    credit : ``Out(engines_per_lane)``
        Of each engine, as of an epilogue lane of its own.
    lane_visit : ``Out(stream.Signature(visit_layout()))``
        The ``slot`` is what it was, times the engines, plus the engine's index.
    lane_drain : ``Out(drain_layout())``
    lane_credit : ``In(1)``
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        count = config.engines_per_lane
        if count < 2:
            raise ValueError(f"a lane is shared by at least 2 engines, not {count!r}")
        super().__init__(
            {
                "visit": In(stream.Signature(visit_layout())).array(count),
                "drain": In(drain_layout()).array(count),
                "credit": Out(count),
                "lane_visit": Out(stream.Signature(visit_layout())),
                "lane_drain": Out(drain_layout()),
                "lane_credit": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self._config.engines_per_lane
        # Engines, as one-hot codes: whose visit is offered to the lane, and whose beats are sent
        # next and after these.
        offered, sent, after = Signal(count), Signal(count), Signal(count)
        claim = Signal()
        buffers, waiting = self._buffers(m, offered, claim)
        self._choose(m, offered, waiting, after, claim)
        self._send(m, buffers, sent, after, offered, claim)
        return m

    def _buffers(self, m: Module, offered, claim):
        """Keep what the engines drain.

        Returns the buffers, and which of them hold results of a visit that is not claimed yet.
        """
        beats = 2 * self._config.cols
        buffers, waiting = [], []
        for e, drain in enumerate(self.drain):
            word = drain.as_value()[:-1]  # but `valid`
            m.submodules[f"buffer_{e}"] = buffer = SyncFIFO(
                width=len(word), depth=_VISITS_IN_BUFFER * beats
            )
            beat = Signal(range(beats), name=f"beat{e}")
            visits = Signal(range(_VISITS_IN_BUFFER + 1), name=f"visits{e}")
            begins = Signal(name=f"begins{e}")
            m.d.comb += [
                buffer.w_en.eq(drain.valid),
                buffer.w_data.eq(word),
                begins.eq(drain.valid & (beat == 0)),
            ]
            with m.If(drain.valid):
                m.d.sync += beat.eq(Mux(beat == beats - 1, 0, beat + 1))
            m.d.sync += visits.eq(visits + begins - (claim & offered[e]))
            buffers.append(buffer)
            waiting.append(visits.any())
        return buffers, Cat(waiting)

    def _choose(self, m: Module, offered, waiting, after, claim) -> None:
        """Offer visits to the lane; ``claim`` those that have results."""
        count = self._config.engines_per_lane
        # What lies at the head of each queue is looked at a cycle later: `known` says that no
        # visit has left since.
        heads, known = [], Signal()
        present, new, last, empty = (
            Signal(count, name=name) for name in ("present", "new", "last", "empty")
        )
        m.d.sync += known.eq(~offered.any())
        for e, visit in enumerate(self.visit):
            m.submodules[f"visits_{e}"] = queue = SyncFIFO(width=visit_layout().size, depth=_VISITS)
            head = data.View(visit_layout(), queue.r_data)
            m.d.comb += [
                queue.w_en.eq(visit.valid),
                queue.w_data.eq(visit.payload),
                visit.ready.eq(queue.w_rdy),
                queue.r_en.eq(offered[e] & self.lane_visit.valid & self.lane_visit.ready),
            ]
            m.d.sync += [
                present[e].eq(queue.r_rdy),
                new[e].eq(head.block_new),
                last[e].eq(head.iteration_last),
                empty[e].eq(head.empty),
            ]
            heads.append(queue.r_data)

        # A block begins when no engine has anything of the one before.
        entered, ended = Signal(count), Signal(count)
        begin, may = Signal(), Signal(count)
        served = Signal(count)  # engines before which the others come first, if they can
        fresh = may & ~served
        m.d.comb += [
            begin.eq(known & (entered & (ended | (present & new))).all()),
            may.eq(present & (empty | waiting) & ~(new & entered)),
        ]
        with m.If(known & ~offered.any()):
            m.d.sync += offered.eq(_lowest(Mux(fresh.any(), fresh, may)))

        lane, accepted = self.lane_visit, Signal()
        marks = Signal(data.StructLayout({"new": 1, "last": 1, "empty": 1}))
        m.d.comb += [
            marks.new.eq((offered & new).any()),
            marks.last.eq((offered & last).any()),
            marks.empty.eq((offered & empty).any()),
            lane.valid.eq(offered.any() & (marks.empty | ~after.any())),
            lane.payload.eq(_of(heads, offered)),
            lane.payload.slot.eq(Cat(_code(offered), _of(heads, offered, visit_layout()["slot"]))),
            lane.payload.block_new.eq(marks.new & ~entered.any()),
            lane.payload.iteration_last.eq(marks.last & (ended | offered).all()),
            accepted.eq(lane.valid & lane.ready),
            claim.eq(accepted & ~marks.empty),
        ]
        with m.If(begin):
            m.d.sync += [entered.eq(0), ended.eq(0)]
        with m.If(accepted):
            m.d.sync += [
                offered.eq(0),
                served.eq(Cat(offered[i:].any() for i in range(count))),
                entered.eq(entered | offered),
            ]
            with m.If(marks.last):
                m.d.sync += ended.eq(ended | offered)

    def _send(self, m: Module, buffers, sent, after, offered, claim) -> None:
        """Send the beats of claimed visits, visit by visit."""
        beats = 2 * self._config.cols
        beat = Signal(range(beats))
        room = Signal(range(_VISITS_IN_BUFFER + 1), init=_VISITS_IN_BUFFER)  # visits
        send, begins, ends = Signal(), Signal(), Signal()
        ready = Cat(buffer.r_rdy for buffer in buffers)
        m.d.comb += [
            begins.eq(beat == 0),
            send.eq((sent & ready).any() & (~begins | room.any())),
            ends.eq(send & (beat == beats - 1)),
            self.lane_drain.as_value()[:-1].eq(_of([b.r_data for b in buffers], sent)),
            self.lane_drain.valid.eq(send),
        ]
        m.d.sync += [
            room.eq(room + self.lane_credit - (send & begins)),
            self.credit.eq(Mux(ends, sent, 0)),
        ]
        for e, buffer in enumerate(buffers):
            m.d.comb += buffer.r_en.eq(send & sent[e])
        with m.If(send):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1))
        with m.If(ends | ~sent.any()):
            m.d.sync += [sent.eq(Mux(after.any(), after, Mux(claim, offered, 0))), after.eq(0)]
        with m.Elif(claim):
            m.d.sync += after.eq(offered)


def _lowest(bits):
    """Return the lowest of the bits as a one-hot code."""
    return Cat(bit & ~bits[:i].any() for i, bit in enumerate(bits))


def _of(words, select, field=None):
    """Return the one of the words, or its field, that a one-hot code selects."""
    result = 0
    for i, word in enumerate(words):
        if field is not None:
            word = word[field.offset : field.offset + field.width]
        result = Mux(select[i], word, 0) | result
    return result


def _code(select):
    """Return the index of a one-hot code's bit."""
    width = (len(select) - 1).bit_length()
    return Cat(
        Cat(select[i] for i in range(len(select)) if i >> bit & 1).any() for bit in range(width)
    )
