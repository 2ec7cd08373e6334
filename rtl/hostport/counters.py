"""Counters of events, read a word at a time."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..core.select import select

__all__ = ["CounterBank"]


class CounterBank(wiring.Component):
    """Counters of 64 bits: their low bits in registers, the others in a memory.

    A register that overflows leaves a carry, which is added to the memory's word when that
    counter's turn comes: one counter has it each cycle. Reads add what is waiting, so that they
    are exact at any time.

    Parameters
    ----------
    amounts : tuple of (int, int)
        For each counter the largest amount of a cycle, and how many zeros follow it.

    Members
    -------
    clear, count : ``In(1)``
        Clear all counters; count in this cycle. ``clear`` wins.
    amount_0 ... : ``In``
    address : ``In(5)``, value : ``Out(32)``
        Word ``2 * n`` is the low half of counter n, the next one its high half: what it was in the
        cycle before, in which ``address`` named it.
    """

    _TURNS = 16

    def __init__(self, amounts: tuple[tuple[int, int], ...]) -> None:
        if len(amounts) > self._TURNS:
            raise ValueError(f"at most {self._TURNS} counters have a turn, not {len(amounts)!r}")
        self._shifts = [shift for _, shift in amounts]
        # What is counted from one turn to the next must not overflow twice.
        self._low_bits = max((self._TURNS * most - 1).bit_length() + n for most, n in amounts)
        if self._low_bits > 31:
            raise ValueError(f"a counter may grow by less than 2^27 a cycle, not by {amounts!r}")
        super().__init__(
            {f"amount_{n}": In(range(most + 1)) for n, (most, _) in enumerate(amounts)}
            | {"clear": In(1), "count": In(1), "address": In(5), "value": Out(32)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low_bits = self._low_bits
        upper_bits = 64 - low_bits
        turn, clearing = Signal(range(self._TURNS)), Signal()
        carries, lows = [], []
        for n, shift in enumerate(self._shifts):
            low = Signal(low_bits - shift, name=f"low_{n}")
            carry = Signal(name=f"carry_{n}")
            total = Signal(len(low) + 1, name=f"total_{n}")
            m.d.comb += total.eq(low + getattr(self, f"amount_{n}"))
            m.d.sync += carry.eq((self.count & total[-1]) | (carry & (turn != n)))
            with m.If(self.count):
                m.d.sync += low.eq(total)
            with m.If(self.clear):
                m.d.sync += [low.eq(0), carry.eq(0)]
            carries.append(carry)
            lows.append(Cat(Const(0, shift), low))

        m.submodules.upper = upper = memory.Memory(
            shape=unsigned(upper_bits), depth=self._TURNS, init=[]
        )
        write, ahead, read = (
            upper.write_port(),
            upper.read_port(domain="comb"),
            upper.read_port(domain="comb"),
        )
        kept = Signal(upper_bits, reset_less=True)  # read a cycle before its turn
        next_turn, turn_carry = Signal.like(turn), Signal()
        m.d.comb += [
            next_turn.eq(turn + 1),
            ahead.addr.eq(next_turn),
            turn_carry.eq(select(turn, carries)),
            write.addr.eq(turn),
            write.data.eq(Mux(clearing, 0, kept + 1)),
            write.en.eq(clearing | turn_carry),
        ]
        m.d.sync += [turn.eq(next_turn), kept.eq(ahead.data)]
        with m.If(self.clear):
            m.d.sync += [turn.eq(0), clearing.eq(1)]
        with m.Elif(turn == self._TURNS - 1):
            m.d.sync += clearing.eq(0)

        # A counter's parts are of one cycle, and are added up in the next. No counter overflows
        # before all have been cleared: until then the upper bits are 0.
        number, in_low = self.address[1:], 32 - low_bits
        low = Signal(low_bits, reset_less=True)
        upper_word = Signal(upper_bits, reset_less=True)
        carry, high, void, full = (Signal(reset_less=True) for _ in range(4))
        half, more = Signal(32), Signal(32)
        m.d.sync += [
            high.eq(self.address[0]),
            void.eq(clearing),
            carry.eq(select(number, carries)),
            low.eq(select(number, lows)),
            upper_word.eq(read.data),
            full.eq(read.data[:in_low].all()),
        ]
        m.d.comb += [
            read.addr.eq(number),
            half.eq(Mux(high, upper_word[in_low:], upper_word[:in_low])),
            more.eq(half + (carry & (full | ~high))),
        ]
        with m.If(high):
            m.d.comb += self.value.eq(Mux(void, 0, more))
        with m.Else():
            m.d.comb += self.value.eq(Cat(low, Mux(void, 0, more[:in_low])))
        return m
