"""Merges the epilogue lanes' writes into one scratchpad port."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import GRANULE, CardConfig
from .ports import WritePort

__all__ = ["OutputMerge", "lane_write_layout"]


def lane_write_layout(config: CardConfig) -> data.StructLayout:
    """Layout of what an epilogue lane sends to the merge, in order.

    Bytes of one granule, with a bit of ``mask`` each; none if it is zero. ``done``: these were the
    lane's last bytes of an iteration.
    """
    return data.StructLayout(
        {
            "address": unsigned(config.granule_addr_width),
            "data": unsigned(8 * GRANULE),
            "mask": unsigned(GRANULE),
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
    lane : ``In(stream.Signature(lane_write_layout(config))).array(rows)``
    write : ``Out(WritePort(config))``
    iteration_done : ``Out(1)``
        Pulses once for each iteration, after every lane's last write of it was accepted at
        ``write``: a read that is accepted in the same cycle sees all of them.
    """

    def __init__(self, config: CardConfig) -> None:
        self._config = config
        super().__init__(
            {
                "lane": In(stream.Signature(lane_write_layout(config))).array(config.rows),
                "write": Out(WritePort(config)),
                "iteration_done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self._config.rows
        write = self.write

        # The port's registers take the next granule when the one in them has been written.
        valid = Signal()
        address = Signal(len(write.address), reset_less=True)
        words = [Signal(32, name=f"word{i}", reset_less=True) for i in range(GRANULE // 4)]
        mask = Signal(GRANULE, reset_less=True)
        done = Signal(rows)
        move = Signal()
        m.d.comb += [
            write.valid.eq(valid),
            write.address.eq(address),
            write.data.eq(Cat(words)),
            write.mask.eq(mask),
            move.eq(~valid | write.ready),
        ]

        # Who goes first is found out a cycle ahead; if it has nothing by then, any other goes.
        wants, ahead = Signal(rows), Signal(rows)
        first, rest, leader = Signal(rows), Signal(rows), Signal(rows)
        keys = [Cat(lane.payload.address, ahead[r], ~wants[r]) for r, lane in enumerate(self.lane)]
        m.d.sync += first.eq(1 << _lowest(m, keys))
        m.d.comb += [
            wants.eq(Cat(lane.valid & lane.payload.mask.any() for lane in self.lane)),
            rest.eq(Mux((wants & ~ahead).any(), wants & ~ahead, wants)),
            leader.eq(Mux((wants & first).any(), first, rest & (~rest + 1))),
        ]

        chosen = Signal(len(write.address))
        m.d.comb += chosen.eq(
            _any(
                Mux(lead, lane.payload.address, 0)
                for lead, lane in zip(leader, self.lane, strict=True)
            )
        )
        take = Signal(rows)
        joins = Signal(rows)
        for r, lane in enumerate(self.lane):
            same = lane.payload.address == chosen
            m.d.comb += [
                joins[r].eq(wants[r] & same),
                take[r].eq(lane.valid & (same | ~lane.payload.mask.any())),
                lane.ready.eq(move & take[r]),
            ]
        with m.If(move):
            m.d.sync += [
                valid.eq(wants.any()),
                done.eq(take & Cat(lane.payload.done for lane in self.lane)),
            ]
            with m.If(wants.any()):
                m.d.sync += [
                    address.eq(chosen),
                    mask.eq(
                        _any(
                            Mux(join, lane.payload.mask, 0)
                            for join, lane in zip(joins, self.lane, strict=True)
                        )
                    ),
                ]
                for i, word in enumerate(words):
                    m.d.sync += word.eq(
                        _any(
                            Mux(join, lane.payload.data.word_select(i, 32), 0)
                            for join, lane in zip(joins, self.lane, strict=True)
                        )
                    )

        # A lane may be ahead of the others by the two iterations that a queue has outstanding.
        counts = [Signal(range(3), name=f"done_count{r}") for r in range(rows)]
        m.d.comb += [
            ahead.eq(Cat(count.any() for count in counts)),
            self.iteration_done.eq(ahead.all()),
        ]
        for r, count in enumerate(counts):
            m.d.sync += count.eq(count + (done[r] & move) - self.iteration_done)
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


def _any(values):
    """Return the OR of the values."""
    result = 0
    for value in values:
        result = value | result
    return result
