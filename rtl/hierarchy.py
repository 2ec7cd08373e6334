"""Parts of a design that are simulated in other ways than they are written.

Components that occur many times are converted once and instantiated by name.

Amaranth writes one module for each elaborated component: 64 PEs are 64 modules of the same text,
ten times the conversion time and Verilog of one. A component wrapped in `Repeated` stays one
module: while a `Collector` is active, each occurrence is an instance of it, and the collector says
which modules have to be converted beside the top. Without a collector (Amaranth's own simulator)
the component is elaborated where it stands.

Components that are idle for long stand on a clock that ticks only while something in them may
change (`sleeper`): Verilator does not evaluate what no clock has touched.
"""

from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Elaboratable,
    Instance,
    Module,
    ResetSignal,
    Signal,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["Collector", "Repeated", "sleeper"]


class Collector:
    """Context in which `Repeated` components become instances.

    Members
    -------
    modules : dict[str, Component]
        After the top's conversion: what to convert beside it, by module name. Converting one of
        them (still inside the context) may add more.
    """

    active: "Collector | None" = None

    def __init__(self) -> None:
        self.modules: dict[str, wiring.Component] = {}

    def __enter__(self) -> "Collector":
        if Collector.active is not None:
            raise RuntimeError("a Collector is active already")
        Collector.active = self
        return self

    def __exit__(self, *_: object) -> None:
        Collector.active = None


class Repeated(Elaboratable):
    """One occurrence of a component that occurs many times.

    Parameters
    ----------
    component : Component
        Connect its ports as usual.
    name : str
        Name of the module. Components of the same name must be equal.
    """

    def __init__(self, component: wiring.Component, name: str) -> None:
        self.component = component
        self.name = name

    def elaborate(self, platform: object):
        if Collector.active is None:
            return self.component
        # An occurrence's own signals are connected to the instance; one of them serves as model.
        # The others are never elaborated, and Amaranth need not warn about that.
        Collector.active.modules.setdefault(self.name, self.component)
        self.component._MustUse__used = True
        ports = {}
        for path, member, value in self.component.signature.flatten(self.component):
            if isinstance(value, Const):  # `ready` of a stream that always is: not a port
                continue
            direction = "i" if member.flow == In else "o"
            ports[f"{direction}_{'__'.join(map(str, path))}"] = value
        m = Module()
        m.submodules.instance = Instance(
            self.name, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports
        )
        return m


def sleeper(m: Module, name: str, component: Elaboratable, awake, platform: object) -> Elaboratable:
    """Return a component on a clock that ticks only at the end of cycles with ``awake`` or reset.

    For simulation only; on a platform it is returned as it is. So ``awake`` has to be high in every
    cycle at whose end a register of the component would change.

    Parameters
    ----------
    m : Module
        Where the component is to be a submodule.
    name : str
        Of the clock domain, new in this module.
    awake : Value
        Settled while the clock is still high: made from registers, the component's own too.
    """
    if platform is not None:
        return component
    asleep = ClockDomain(name, local=True)
    # The decision is taken while the clock is low, so that the gated clock has whole pulses.
    falling = ClockDomain(f"{name}_falling", clk_edge="neg", reset_less=True, local=True)
    m.domains += asleep, falling
    ticks = Signal(name=f"{name}_ticks")
    m.d[falling.name] += ticks.eq(awake | ResetSignal())
    m.d.comb += [
        falling.clk.eq(ClockSignal()),
        asleep.clk.eq(ClockSignal() & ticks),
        asleep.rst.eq(ResetSignal()),
    ]
    return DomainRenamer(name)(component)
