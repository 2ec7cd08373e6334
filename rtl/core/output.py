"""Merges the epilogue lanes' writes into one scratchpad port."""

import itertools

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from ..tech import KEEP
from .ports import WritePort, banks_of

__all__ = ["OutputMerge", "lane_write_layout"]


def lane_write_layout(config: CardConfig) -> data.StructLayout:
    """Layout of what an epilogue lane sends to the merge, in order.

    Bytes of one granule, with a bit of ``mask`` each, all others 0. ``some``: there are any.
    ``done``: these were the lane's last bytes of an iteration.
    """
    return data.StructLayout(
        {
            "address": unsigned(config.granule_addr_width),
            "data": unsigned(8 * GRANULE),
            "mask": unsigned(GRANULE),
            "some": unsigned(1),
            "done": unsigned(1),
        }
    )


class OutputMerge(wiring.Component):
    """Writes what the epilogue lanes send to the scratchpad, one granule a cycle.

    The lane that waits with the lowest address goes first, and with it all others that wait to
    write to the same granule; lanes that are an iteration ahead come after the others. So where
    lanes share granules, those that are ahead wait until they can join those behind: else lanes
    that have drifted apart would each need writes of their own. No two lanes write the same byte
    within an iteration.

    Parameters
    ----------
    config : CardConfig

    Members
    -------
    lane : ``In(stream.Signature(lane_write_layout(config))).array(epilogue_lanes)``
    write : ``Out(WritePort(config))``
    iteration_done : ``Out(1)``
        Pulses once for each iteration, after every lane's last write of it was accepted at
        ``write``: a read that is accepted in the same cycle sees all of them.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "lane": In(stream.Signature(lane_write_layout(config))).array(
                    config.epilogue_lanes
                ),
                "write": Out(WritePort(config)),
                "iteration_done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._config.epilogue_lanes
        write = self.write

        # Registers for each lane before the port, which has the OR of those that join. What the
        # port does not take is kept beside them, so that no path leads from it to the lanes: they
        # take what is next unless something is kept.
        valid, kept = Signal(), Signal()
        move = Signal(init=1)  # nothing is kept: a register of its own, as it has many loads
        fields = {"address": len(write.address), "banks": len(write.banks), "mask": GRANULE}
        fields |= {f"word{i}": 32 for i in range(GRANULE // 4)}
        parts = [
            {
                field: Signal(width, name=f"{field}_{r}", reset_less=True)
                for field, width in fields.items()
            }
            for r in range(rows)
        ]
        joined, done = Signal(rows), Signal(rows)
        whole = parts[0]  # one lane always joins itself
        if rows > 1:
            whole = {
                field: _any(
                    Mux(join, part[field], 0) for join, part in zip(joined, parts, strict=True)
                )
                for field in fields
            }
        spare = {
            field: Signal(width, name=f"spare_{field}", reset_less=True)
            for field, width in fields.items()
        }
        shown = {field: Mux(move, whole[field], spare[field]) for field in fields}
        for field in ("address", "banks"):
            shown[field] = Mux(kept, spare[field], whole[field])
        banks = Signal.like(write.banks, reset_less=True)  # what is shown of one lane
        if rows == 1:
            shown["banks"] = banks
        spare_done = Signal(rows, reset_less=True)
        with m.If(move):
            m.d.sync += [spare[field].eq(whole[field]) for field in fields]
            m.d.sync += spare_done.eq(done)
        shows = Signal()
        m.d.comb += [
            write.valid.eq(shows),
            write.address.eq(shown["address"]),
            write.banks.eq(shown["banks"]),
            write.data.eq(Cat(shown[f"word{i}"] for i in range(GRANULE // 4))),
            write.mask.eq(shown["mask"]),
        ]
        keeps, next_valid = Signal(), Signal()
        m.d.comb += keeps.eq(shows & ~write.ready)
        m.d.sync += [
            kept.eq(keeps),
            move.eq(~keeps),
            valid.eq(next_valid),
            shows.eq(keeps | next_valid),
        ]

        # Who goes first is found out a cycle ahead; if it has nothing by then, any other goes.
        wants, ahead = Signal(rows), Signal(rows)
        first, behind, leader = Signal(rows), Signal(rows), Signal(rows)
        addresses = [lane.payload.address for lane in self.lane]
        keys = [Cat(address, ahead[r], ~wants[r]) for r, address in enumerate(addresses)]
        m.d.sync += first.eq(1 << _lowest(m, keys))
        m.d.comb += [
            wants.eq(Cat(lane.valid & lane.payload.some for lane in self.lane)),
            behind.eq(wants & ~ahead),
            leader.eq(
                Mux((wants & first).any(), first, _lowest_bit(Mux(behind.any(), behind, wants)))
            ),
        ]

        # All pairs are compared, not all with the leader: that would come after it was found.
        same = [[leader[r]] for r in range(rows)]
        for r, q in itertools.combinations(range(rows), 2):
            equal = Signal(name=f"equal_{r}_{q}")
            m.d.comb += equal.eq(addresses[r] == addresses[q])
            same[r].append(leader[q] & equal)
            same[q].append(leader[r] & equal)
        take, joins = Signal(rows), Signal(rows)
        for r, (lane, part) in enumerate(zip(self.lane, parts, strict=True)):
            m.d.comb += [
                joins[r].eq(wants[r] & Cat(same[r]).any()),
                take[r].eq(joins[r] | (lane.valid & ~lane.payload.some)),
                lane.ready.eq(move & take[r]),
            ]
            now = {name: lane.payload[name] for name in ("address", "mask")}
            now["banks"] = banks_of(m, self._config, lane.payload.address)
            now |= {f"word{i}": lane.payload.data.word_select(i, 32) for i in range(GRANULE // 4)}
            if rows == 1:
                # From a register: when the port takes it is found from them.
                m.d.sync += banks.eq(Mux(keeps, banks, Mux(move, now["banks"], part["banks"])))
            with m.If(move):
                m.d.sync += [part[field].eq(now[field]) for field in fields]
        m.d.comb += next_valid.eq(Mux(move, wants.any(), valid))
        with m.If(move):
            m.d.sync += [
                joined.eq(joins),
                done.eq(take & Cat(lane.payload.done for lane in self.lane)),
            ]

        # A lane may be ahead of the others by the two iterations that a queue has outstanding.
        further = Signal(rows)
        m.d.comb += self.iteration_done.eq(ahead.all())
        for r in range(rows):
            ended = Signal(name=f"ended{r}", attrs=KEEP)
            # No conditions, of which synthesis would make enables: ``ended`` is late.
            passes, stays = write.ready | ~shows, ended | ~self.iteration_done
            begins = ended & ~self.iteration_done
            m.d.comb += ended.eq(Mux(kept, spare_done[r], done[r]) & passes)
            m.d.sync += [
                ahead[r].eq(begins | (ahead[r] & (further[r] | stays))),
                further[r].eq((begins & ahead[r]) | (further[r] & stays)),
            ]
        return m


def _lowest(m: Module, keys):
    """Return the index of the lowest of some keys."""
    best = [(key, i) for i, key in enumerate(keys)]
    level = 0
    while len(best) > 1:
        pairs = list(zip(best[::2], best[1::2], strict=False))
        winners = []
        for i, ((key_a, index_a), (key_b, index_b)) in enumerate(pairs):
            key = Signal(len(key_a), name=f"lowest{level}_{i}")
            index = Signal(range(len(keys)), name=f"lowest_index{level}_{i}")
            lower = key_b < key_a
            m.d.comb += [
                key.eq(Mux(lower, key_b, key_a)),
                index.eq(Mux(lower, index_b, index_a)),
            ]
            winners.append((key, index))
        best = winners + best[2 * len(pairs) :]
        level += 1
    return best[0][1]


def _lowest_bit(bits):
    """Return the lowest of the bits as a one-hot code."""
    return Cat(bit & ~bits[:i].any() for i, bit in enumerate(bits))


def _any(values):
    """Return the OR of the values."""
    result = 0
    for value in values:
        result = value | result
    return result
