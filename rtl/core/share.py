"""Lets row engines share one epilogue lane."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..array.ports import drain_layout, visit_layout
from ..config import CardConfig
from ..elastic import Elastic
from ..tech.copy import copies
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

    The lane gets a beat a cycle as long as it takes them and an engine has one. A beat that finds
    nothing before it is offered four cycles after it came.

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
        A beat stays until it is taken. The first one of a visit comes when its descriptor is
        offered, or later.
    lane_credit : ``In(1)``
        The beat is taken.
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
        claim = Signal(count)
        come, waiting = self._send(m, platform, sent, after, claim)
        self._choose(m, platform, offered, come | waiting, after, claim)
        return m

    def _queue(self, m: Module, platform: object, offered, shown, leaves):
        """Keep the engines' visits in one memory, that takes one of them in a cycle.

        Returns the one that is ``offered``, whose number is ``shown``, and of each engine whether
        it has one and the marks of its first one. What is offered ``leaves``.
        """
        count = self._config.engines_per_lane
        m.submodules.visits = visits = Memory(shape=visit_layout(), depth=_VISITS * count, init=[])
        write, read = visits.write_port(), visits.read_port(domain="comb")
        ends = {name: [] for name in ("to", "of")}
        ready, present, heads = Signal(count), [], []
        take = Signal(count)
        for e, visit in enumerate(self.visit):
            # Counted on beyond the places that there are: so empty is not full.
            to, of = (Signal(range(2 * _VISITS), name=f"{name}{e}") for name in ends)
            m.submodules[f"marks_{e}"] = marks = Memory(
                shape=unsigned(len(_MARKS)), depth=_VISITS, init=[]
            )
            marks_in, marks_out = marks.write_port(), marks.read_port(domain="comb")
            m.d.comb += [
                ready[e].eq(to != of ^ _VISITS),
                visit.ready.eq(take[e]),
                marks_in.en.eq(take[e]),
                marks_in.addr.eq(to),
                marks_in.data.eq(Cat(visit.payload[name] for name in _MARKS)),
                marks_out.addr.eq(of),
            ]
            m.d.sync += [to.eq(to + take[e]), of.eq(of + (leaves & offered[e]))]
            ends["to"].append(to[:-1])
            ends["of"].append(of[:-1])
            present.append(to != of)
            heads.append(marks_out.data)
        # Whose is taken is chosen a cycle ahead; it waits until then.
        wanted, chosen = Signal(count), Signal(range(count), reset_less=True)
        m.d.comb += wanted.eq(_lowest(Cat(visit.valid for visit in self.visit) & ready & ~take))
        m.d.sync += [take.eq(wanted), chosen.eq(_code(wanted))]
        words = [visit.payload.as_value() for visit in self.visit]
        m.d.comb += [
            write.en.eq(take.any()),
            write.addr.eq(Cat(select(m, platform, chosen, ends["to"], name="visit_to"), chosen)),
            write.data.eq(select(m, platform, chosen, words, name="visit_word")),
            read.addr.eq(Cat(select(m, platform, shown, ends["of"], name="visit_of"), shown)),
        ]
        return read.data, Cat(present), [Cat(marks) for marks in zip(*heads, strict=True)]

    def _choose(self, m: Module, platform: object, offered, results, after, claim) -> None:
        """Offer visits to the lane; ``claim`` those that have results."""
        count = self._config.engines_per_lane
        lane, leaves = self.lane_visit, Signal()
        # Nothing is offered: a register of its own, and one for the many that it enables.
        vacant, next_vacant = Signal(init=1), Signal()
        (loads,) = copies(m, platform, next_vacant, 1, name="loads")
        shown = Signal(range(count), reset_less=True)
        head, here, heads = self._queue(m, platform, offered, shown, leaves)
        # What lies at the head of each queue is looked at a cycle later: `known` says that no
        # visit has left since.
        offers, known = Signal(), Signal()
        present, new, last, empty = (
            Signal(count, name=name) for name in ("present", "new", "last", "empty")
        )
        m.d.sync += [known.eq(~offers), present.eq(here)]
        m.d.sync += [mark.eq(now) for mark, now in zip((new, last, empty), heads, strict=True)]

        # A block begins when no engine has anything of the one before.
        entered, ended = Signal(count), Signal(count)
        begin, may = Signal(), Signal(count)
        served = Signal(count)  # engines before which the others come first, if they can
        fresh, choice = may & ~served, Signal(count)
        m.d.comb += [
            begin.eq(known & (entered & (ended | (present & new))).all()),
            choice.eq(_lowest(Mux(fresh.any(), fresh, may))),
        ]
        new_now, _, empty_now = heads
        blocked = new_now & entered & (~begin).replicate(count)
        m.d.sync += may.eq(here & (empty_now | results) & ~blocked)
        with m.If(known & ~offers):
            m.d.sync += [offered.eq(choice), offers.eq(may.any())]
            m.d.sync += shown.eq(_code(choice))

        # The lane has it a cycle later, when the first of its beats can come at the earliest.
        marks = Signal(data.StructLayout({"new": 1, "last": 1, "empty": 1}))
        shape = visit_layout()
        word, free = Signal(shape), Signal()
        m.d.comb += [
            marks.new.eq((offered & new).any()),
            marks.last.eq((offered & last).any()),
            marks.empty.eq((offered & empty).any()),
            word.eq(head),
            word.slot.eq(Cat(shown, head.slot)),
            word.block_new.eq(marks.new & ~entered.any()),
            word.iteration_last.eq(marks.last & (ended | offered).all()),
            free.eq(offers & vacant & ~after.any()),
            leaves.eq(free | (offers & vacant & marks.empty)),
            claim.eq(offered & ~empty & free.replicate(count)),
        ]
        payload = Signal(shape, name="lane_word", reset_less=True)
        m.d.comb += lane.payload.eq(payload)
        stays = ~vacant & ~lane.ready
        m.d.comb += next_vacant.eq(~(leaves | stays))
        m.d.sync += [lane.valid.eq(leaves | stays), vacant.eq(next_vacant)]
        with m.If(loads):
            m.d.sync += payload.eq(word)
        with m.If(begin):
            m.d.sync += [entered.eq(0), ended.eq(0)]
        with m.If(leaves):
            m.d.sync += [
                offers.eq(0),
                served.eq(Cat(offered[i:].any() for i in range(count))),
                entered.eq(entered | offered),
            ]
            with m.If(marks.last):
                m.d.sync += ended.eq(ended | offered)

    def _send(self, m: Module, platform: object, sent, after, claim) -> tuple[Value, Value]:
        """Send the beats of claimed visits, visit by visit.

        Returns of which engines a visit's first beat comes, and which have results of a visit that
        is not claimed yet.
        """
        beats = 2 * self._config.cols
        drain = self.lane_drain
        move, busy, ends = Signal(), Signal(), Signal()
        words, come, waiting, some, lasts = [], [], [], [], []
        for e, drained in enumerate(self.drain):
            word = drained.as_value()[:-1]  # but `valid`
            # Beats and, counted on beyond the visits that there is room for, visits: so empty is
            # not full. Two short counters are smaller than a long one, which becomes a carry chain.
            beat_in, beat_out = (Signal(range(beats), name=f"beat_{x}{e}") for x in ("in", "out"))
            visit_in, visit_out = (Signal(2, name=f"visit_{x}{e}") for x in ("in", "out"))
            goes, last_in, last_out = (
                Signal(name=f"{name}{e}") for name in ("goes", "last_in", "last_out")
            )
            m.submodules[f"buffer_{e}"] = buffer = Memory(
                shape=unsigned(len(word)), depth=_VISITS_IN_BUFFER << len(beat_in), init=[]
            )
            write, read = buffer.write_port(), buffer.read_port(domain="comb")
            # The next beat is read ahead into a register: from here it goes far.
            ahead, has = (
                Signal(len(word), name=f"ahead{e}", reset_less=True),
                Signal(name=f"has{e}"),
            )
            next_out = Signal(len(beat_out) + len(visit_out), name=f"next_out{e}")
            m.d.sync += [ahead.eq(read.data), has.eq(Cat(beat_in, visit_in) != next_out)]
            some.append(has)
            m.d.comb += [
                write.en.eq(drained.valid),
                write.addr.eq(Cat(beat_in, visit_in[0])),
                write.data.eq(word),
                next_out.eq(
                    Cat(
                        Mux(goes, Mux(last_out, 0, beat_out + 1)[: len(beat_out)], beat_out),
                        (visit_out + (goes & last_out))[: len(visit_out)],
                    )
                ),
                read.addr.eq(next_out[: len(beat_out) + 1]),
                last_in.eq(beat_in == beats - 1),
                goes.eq(sent[e] & some[e] & move),
            ]
            with m.If(goes):  # the next one is the visit's last
                m.d.sync += last_out.eq(beat_out == beats - 2)
            with m.If(drained.valid):
                m.d.sync += beat_in.eq(Mux(last_in, 0, beat_in + 1))
            m.d.sync += [
                Cat(beat_out, visit_out).eq(next_out),
                visit_in.eq(visit_in + (drained.valid & last_in)),
                self.credit[e].eq(goes & last_out),
            ]
            words.append(ahead)
            lasts.append(last_out)
            comes = Signal(name=f"comes{e}")
            visits = Signal(range(_VISITS_IN_BUFFER + 1), name=f"visits{e}")
            m.d.comb += comes.eq(drained.valid & (beat_in == 0))
            m.d.sync += visits.eq(visits + comes - claim[e])
            come.append(comes)
            waiting.append(visits.any())

        send = Signal()
        number = Signal(range(len(words)), reset_less=True)  # of what is sent
        m.submodules.beats = beats = Elastic(unsigned(len(words[0])))
        m.d.comb += [
            beats.source.valid.eq(send),
            beats.source.payload.eq(select(m, platform, number, words, name="beat_word")),
            beats.target.ready.eq(self.lane_credit),
            drain.as_value()[:-1].eq(beats.target.payload),
            drain.valid.eq(beats.target.valid),
        ]
        m.d.comb += [
            send.eq((sent & Cat(some)).any()),
            move.eq(beats.source.ready),
            ends.eq(send & move & (sent & Cat(lasts)).any()),
        ]
        following = Signal(len(words))  # no visit is claimed while one waits
        m.d.comb += following.eq(after | claim)
        with m.If(ends | ~busy):
            m.d.sync += [
                sent.eq(following),
                busy.eq(following.any()),
                number.eq(_code(following)),
                after.eq(0),
            ]
        with m.Else():
            m.d.sync += after.eq(following)
        return Cat(come), Cat(waiting)


def _lowest(bits):
    """Return the lowest of the bits as a one-hot code."""
    return Cat(bit & ~bits[:i].any() for i, bit in enumerate(bits))


def _code(select):
    """Return the index of a one-hot code's bit."""
    width = (len(select) - 1).bit_length()
    return Cat(
        Cat(select[i] for i in range(len(select)) if i >> bit & 1).any() for bit in range(width)
    )
