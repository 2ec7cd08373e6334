"""A multiplier with registers before, in and after it."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from . import ECP5, GW5A, gw5a, technology

__all__ = ["Multiply"]

_MOST_BITS = 18


class Multiply(wiring.Component):
    """Multiplies two signed numbers in each cycle, `LATENCY` cycles later.

    Parameters
    ----------
    a_bits, b_bits : int
        Of the factors, 2 to 18.
    p_bits : int
        Low bits of the product that are given out.

    Members
    -------
    a, b : ``In(signed)``
    p : ``Out(signed)``
    """

    LATENCY = 3

    def __init__(self, a_bits: int, b_bits: int, p_bits: int) -> None:
        for name, bits in (("a_bits", a_bits), ("b_bits", b_bits)):
            if not 2 <= bits <= _MOST_BITS:
                raise ValueError(f"{name} must be from 2 to {_MOST_BITS}, not {bits!r}")
        if not 1 <= p_bits <= a_bits + b_bits:
            raise ValueError(f"p_bits must be from 1 to {a_bits + b_bits}, not {p_bits!r}")
        super().__init__(
            {"a": In(signed(a_bits)), "b": In(signed(b_bits)), "p": Out(signed(p_bits))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if technology(platform) == ECP5:
            m.submodules.multiplier = self._ecp5()
            return m
        if technology(platform) == GW5A:
            self._gw5a(m)
            return m
        a, b = Signal.like(self.a, reset_less=True), Signal.like(self.b, reset_less=True)
        product = Signal(signed(len(self.p)), reset_less=True)
        delayed = Signal(signed(len(self.p)), reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b), delayed.eq(product)]
        m.d.comb += self.p.eq(delayed)
        return m

    def _ecp5(self) -> Instance:
        ports: dict[str, object] = {"i_CLK0": ClockSignal()}
        for i in range(_MOST_BITS):
            ports[f"i_A{i}"] = self.a[min(i, len(self.a) - 1)]
            ports[f"i_B{i}"] = self.b[min(i, len(self.b) - 1)]
            ports[f"i_C{i}"] = 0
        ports |= {f"o_P{i}": self.p[i] for i in range(len(self.p))}
        ports |= {f"i_{name}": 1 for name in ("SIGNEDA", "SIGNEDB", "CE0")}
        ports |= {f"i_{name}": 0 for name in ("SOURCEA", "SOURCEB", "RST0")}
        for register in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
            ports[f"p_REG_{register}_CLK"] = "CLK0"
        return Instance("MULT18X18D", p_GSR="DISABLED", **ports)

    def _gw5a(self, m: Module) -> None:
        """The last register is outside: see `gw5a.parameters`."""
        product = Signal(signed(gw5a.A_BITS + gw5a.B_BITS))
        settings = gw5a.parameters("AREG", "BREG", "PREG")
        m.submodules.multiplier = Instance(
            "MULTALU27X18",
            **{f"p_{name}": value for name, value in settings.items()},
            **{f"i_{name}": Const(0, width) for name, width in gw5a.UNUSED.items()},
            i_A=Cat(self.a[min(i, len(self.a) - 1)] for i in range(gw5a.A_BITS)),
            i_B=Cat(self.b[min(i, len(self.b) - 1)] for i in range(gw5a.B_BITS)),
            i_CLK=Cat(ClockSignal(), Const(0, 1)),
            i_CE=Const(0b01, 2),
            i_RESET=Const(0, 2),
            o_DOUT=product,
        )
        delayed = Signal(signed(len(self.p)), reset_less=True)
        m.d.sync += delayed.eq(product)
        m.d.comb += self.p.eq(delayed)
