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

    Lanes take turns; with the lane whose turn it is go all others that wait to write to the same
    granule. No two lanes write the same byte within an iteration.

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

        # Whose turn: the first waiting lane after the last one, or else the first of all.
        wants = Signal(rows)
        later = Signal(rows)
        candidates = Signal(rows)
        leader = Signal(rows)
        m.d.comb += [
            wants.eq(Cat(lane.valid & lane.payload.mask.any() for lane in self.lane)),
            candidates.eq(Mux((wants & later).any(), wants & later, wants)),
            leader.eq(candidates & (~candidates + 1)),
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
                    later.eq(~(leader | (leader - 1))),
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
        m.d.comb += self.iteration_done.eq(Cat(count.any() for count in counts).all())
        for r, count in enumerate(counts):
            m.d.sync += count.eq(count + (done[r] & move) - self.iteration_done)
        return m


def _any(values):
    """Return the OR of the values."""
    result = 0
    for value in values:
        result = value | result
    return result
