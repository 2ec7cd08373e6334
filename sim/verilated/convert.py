"""Amaranth to Verilog."""

from amaranth.back import verilog
from amaranth.hdl import Const, Value, ValueCastable
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ...rtl.hierarchy import Collector
from .compact import compact
from .design import Design, Port
from .lockstep import lockstep

__all__ = ["to_design", "to_verilog"]


def _ports(component: wiring.Component) -> dict[str, tuple[Value, PortDirection]]:
    ports = {}
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        # `ready` of an always ready stream is a constant, and a constant is no port.
        if isinstance(value, Const) or len(value) == 0:
            continue
        way = PortDirection.Input if member.flow == In else PortDirection.Output
        ports["__".join(map(str, path))] = (value, way)
    return ports


def _module(component: wiring.Component, name: str) -> str:
    return verilog.convert(
        component, name=name, ports=_ports(component), emit_src=False, strip_internal_attrs=True
    )


def to_verilog(component: wiring.Component, name: str) -> str:
    """Return ``component`` as Verilog text whose top module is called ``name``.

    Members of the signature become ports whose names are joined with a double underscore; members
    of constant value or of no width are left out. The text depends only on the design: not on the
    folder of the sources, nor on the process. Components under `Repeated` are converted once.
    """
    return _convert(component, name, arrays=False)[0]


def to_design(component: wiring.Component, name: str, *, arrays: bool = False) -> Design:
    """Return ``component`` as Verilog (see `to_verilog`) together with its ports.

    Parameters
    ----------
    arrays : bool
        Arrays of equal components become C++ where that is possible (`lockstep`). An array has to
        be under `Repeated`, as its elements.
    """
    ports = []
    for key, (value, way) in _ports(component).items():
        shape = value.shape()
        ports.append(Port(key, way is PortDirection.Input, shape.width, shape.signed))
    verilog, sources = _convert(component, name, arrays=arrays)
    return Design(name, verilog, tuple(ports), sources)


def _convert(
    component: wiring.Component, name: str, *, arrays: bool
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the Verilog, and the C++ that it calls: names of files and their texts."""
    sources = {}
    with Collector() as collector:
        texts = {name: _module(component, name)}
        modules = collector.modules
        while waiting := [key for key in modules if key not in texts]:
            for key in waiting:
                known = set(modules)
                array = lockstep(modules[key], key, _ports, modules) if arrays else None
                if array is None:
                    texts[key] = _module(modules[key], key)
                    continue
                texts[key] = array.verilog
                sources[f"lockstep_{key}.cpp"] = array.source
                # Nothing is left of the modules that occur nowhere else.
                for inside in set(modules) - known:
                    del modules[inside]
    return compact("\n".join(texts.values())), tuple(sources.items())
