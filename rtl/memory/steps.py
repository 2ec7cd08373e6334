"""What the places of a controller that open and use banks learn of the one that closes them."""

from amaranth.hdl import Module, Mux, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory

__all__ = ["Steps"]

_LAYOUT = data.StructLayout({"activate": unsigned(1), "precharge": unsigned(1)})
"""Whether the bank is to be activated, and whether it has been precharged for that."""


class Steps:
    """The two steps of each burst in a queue of ``depth``, in ``m``."""

    def __init__(self, m: Module, depth: int) -> None:
        self._m = m
        self._memories = [Memory(shape=_LAYOUT, depth=depth, init=[]) for _ in range(2)]
        for number, memory in enumerate(self._memories):
            m.submodules[f"steps_{number}"] = memory

    def write(self, enable: Value, index: Value, second: Value, **step: Value) -> None:
        """Note a step of the burst at ``index``, the ``second`` or the first one. Called once."""
        for number, memory in enumerate(self._memories):
            port = memory.write_port()
            self._m.d.comb += [
                port.en.eq(enable & (second == number)),
                port.addr.eq(index),
                *(port.data[name].eq(value) for name, value in step.items()),
            ]

    def read(self, index: Value, second: Value) -> data.View:
        """Return a step of the burst at ``index``."""
        ports = [memory.read_port(domain="comb") for memory in self._memories]
        self._m.d.comb += [port.addr.eq(index) for port in ports]
        return _LAYOUT(Mux(second, ports[1].data.as_value(), ports[0].data.as_value()))
