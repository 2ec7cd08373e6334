"""Lets row engines share one epilogue lane."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..array.ports import drain_layout, visit_layout
from ..config import CardConfig
from ..tech.select import select

__all__ = ["LaneShare"]

_VISITS = 4
"""Visits of an engine that are described ahead: the two that its credits allow, the one whose
weights are issued, and the next."""

_VISITS_IN_BUFFER = 2

_MARKS = ("block_new", "iteration_last", "empty")
"""What of a visit is looked at before it is its engine's turn."""


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
        claim, ends = Signal(), Signal()
        waiting = self._send(m, platform, sent, after, offered, claim, ends)
        self._choose(m, platform, offered, waiting, after, claim)
        return m

    def _queue(self, m: Module, platform: object, offered, leaves):
        """Keep the engines' visits in one memory, that takes one of them in a cycle.

        Returns the one that is ``offered``, and of each engine whether it has one and the marks of
        its first one. It ``leaves``.
        """
        count = self._config.engines_per_lane
        layout = visit_layout()
        m.submodules.visits = visits = Memory(shape=layout, depth=_VISITS * count, init=[])
        write, read = visits.write_port(), visits.read_port(domain="comb")
        ends = {name: [] for name in ("to", "of")}
        ready, present, heads = Signal(count), [], []
        take = Signal(count)
        for e, visit in enumerate(self.visit):
            level = Signal(range(_VISITS + 1), name=f"level{e}")
            to, of = (Signal(range(_VISITS), name=f"{name}{e}") for name in ends)
            goes = leaves & offered[e]
            m.submodules[f"marks_{e}"] = marks = Memory(
                shape=unsigned(len(_MARKS)), depth=_VISITS, init=[]
            )
            marks_in, marks_out = marks.write_port(), marks.read_port(domain="comb")
            m.d.comb += [
                ready[e].eq(level != _VISITS),
                visit.ready.eq(take[e]),
                marks_in.en.eq(take[e]),
                marks_in.addr.eq(to),
                marks_in.data.eq(Cat(visit.payload[name] for name in _MARKS)),
                marks_out.addr.eq(of),
            ]
            m.d.sync += [
                level.eq(level + take[e] - goes),
                to.eq(to + take[e]),
                of.eq(of + goes),
            ]
            ends["to"].append(to)
            ends["of"].append(of)
            present.append(level.any())
            heads.append(marks_out.data)
        # Whose is taken is chosen a cycle ahead; it waits until then.
        wanted, chosen = Signal(count), Signal(range(count), reset_less=True)
        m.d.comb += wanted.eq(_lowest(Cat(visit.valid for visit in self.visit) & ready & ~take))
        m.d.sync += [take.eq(wanted), chosen.eq(_code(wanted))]
        shown = _code(offered)
        words = [visit.payload.as_value() for visit in self.visit]
        m.d.comb += [
            write.en.eq(take.any()),
            write.addr.eq(Cat(select(m, platform, chosen, ends["to"], name="visit_to"), chosen)),
            write.data.eq(select(m, platform, chosen, words, name="visit_word")),
            read.addr.eq(Cat(select(m, platform, shown, ends["of"], name="visit_of"), shown)),
        ]
        return read.data, present, heads

    def _buffers(self, m: Module, platform: object, sent, beat, ends):
        """Keep what the engines drain, and give the word that is sent next.

        Returns it, whether it is there, and of each engine whether a visit's first beat comes.
        """
        beats = 2 * self._config.cols
        words, ready, begins = [], [], []
        for e, drain in enumerate(self.drain):
            word = drain.as_value()[:-1]  # but `valid`
            # Counted on beyond the visits that there is room for: so empty is not full.
            visit_in, visit_out = (Signal(2, name=f"{name}{e}") for name in ("into", "out_of"))
            beat_in = Signal(range(beats), name=f"beat{e}")
            last = drain.valid & (beat_in == beats - 1)
            m.submodules[f"buffer_{e}"] = buffer = Memory(
                shape=unsigned(len(word)), depth=_VISITS_IN_BUFFER << len(beat_in), init=[]
            )
            write, read = buffer.write_port(), buffer.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(drain.valid),
                write.addr.eq(Cat(beat_in, visit_in[0])),
                write.data.eq(word),
                read.addr.eq(Cat(beat, visit_out[0])),
            ]
            with m.If(drain.valid):
                m.d.sync += beat_in.eq(Mux(last, 0, beat_in + 1))
            m.d.sync += [
                visit_in.eq(visit_in + last),
                visit_out.eq(visit_out + (ends & sent[e])),
            ]
            words.append(read.data)
            ready.append(Cat(beat_in, visit_in) != Cat(beat, visit_out))
            begins.append(drain.valid & (beat_in == 0))
        word = select(m, platform, _code(sent), words, name="beat_word")
        return word, (sent & Cat(ready)).any(), begins

    def _choose(self, m: Module, platform: object, offered, waiting, after, claim) -> None:
        """Offer visits to the lane; ``claim`` those that have results."""
        count = self._config.engines_per_lane
        lane, accepted = self.lane_visit, Signal()
        head, here, heads = self._queue(m, platform, offered, accepted)
        # What lies at the head of each queue is looked at a cycle later: `known` says that no
        # visit has left since.
        known = Signal()
        present, new, last, empty = (
            Signal(count, name=name) for name in ("present", "new", "last", "empty")
        )
        m.d.sync += known.eq(~offered.any())
        m.d.sync += present.eq(Cat(here))
        for i, mark in enumerate((new, last, empty)):
            m.d.sync += mark.eq(Cat(head[i] for head in heads))

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

        marks = Signal(data.StructLayout({"new": 1, "last": 1, "empty": 1}))
        m.d.comb += [
            marks.new.eq((offered & new).any()),
            marks.last.eq((offered & last).any()),
            marks.empty.eq((offered & empty).any()),
            lane.valid.eq(offered.any() & (marks.empty | ~after.any())),
            lane.payload.eq(head),
            lane.payload.slot.eq(Cat(_code(offered), head.slot)),
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

    def _send(self, m: Module, platform: object, sent, after, offered, claim, ends) -> Value:
        """Send the beats of claimed visits, visit by visit.

        Returns which engines have results of a visit that is not claimed yet.
        """
        beats = 2 * self._config.cols
        beat = Signal(range(beats))
        room = Signal(range(_VISITS_IN_BUFFER + 1), init=_VISITS_IN_BUFFER)  # visits
        send, begins = Signal(), Signal()
        word, ready, come = self._buffers(m, platform, sent, beat, ends)
        m.d.comb += [
            begins.eq(beat == 0),
            send.eq(ready & (~begins | room.any())),
            ends.eq(send & (beat == beats - 1)),
            self.lane_drain.as_value()[:-1].eq(word),
            self.lane_drain.valid.eq(send),
        ]
        m.d.sync += [
            room.eq(room + self.lane_credit - (send & begins)),
            self.credit.eq(Mux(ends, sent, 0)),
        ]
        with m.If(send):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1))
        with m.If(ends | ~sent.any()):
            m.d.sync += [sent.eq(Mux(after.any(), after, Mux(claim, offered, 0))), after.eq(0)]
        with m.Elif(claim):
            m.d.sync += after.eq(offered)

        waiting = []
        for e, comes in enumerate(come):
            visits = Signal(range(_VISITS_IN_BUFFER + 1), name=f"visits{e}")
            m.d.sync += visits.eq(visits + comes - (claim & offered[e]))
            waiting.append(visits.any())
        return Cat(waiting)


def _lowest(bits):
    """Return the lowest of the bits as a one-hot code."""
    return Cat(bit & ~bits[:i].any() for i, bit in enumerate(bits))


def _code(select):
    """Return the index of a one-hot code's bit."""
    width = (len(select) - 1).bit_length()
    return Cat(
        Cat(select[i] for i in range(len(select)) if i >> bit & 1).any() for bit in range(width)
    )
