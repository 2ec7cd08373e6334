"""Components that occur many times are converted once and instantiated by name.

Amaranth writes one module for each elaborated component: 64 PEs are 64 modules of the same text,
ten times the conversion time and Verilog of one. A component wrapped in `Repeated` stays one
module: while a `Collector` is active, each occurrence is an instance of it, and the collector says
which modules have to be converted beside the top. Without a collector (Amaranth's own simulator)
the component is elaborated where it stands.
"""

from amaranth.hdl import ClockSignal, Const, Elaboratable, Instance, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["Collector", "Repeated"]


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
