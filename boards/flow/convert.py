"""Amaranth to RTLIL text, for one board."""

import dataclasses
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Const, Elaboratable, Value, ValueCastable
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ...rtl.hierarchy import Collector

__all__ = ["TOP", "Converted", "convert", "convert_unit"]

TOP = "top"


@dataclasses.dataclass(frozen=True)
class Converted:
    """A design as text.

    Parameters
    ----------
    texts : dict[str, str]
        RTLIL by name of its top module: first the design, then the components that are repeated.
    constraints : str
        Pins, and clocks if the family's file has any.
    """

    texts: dict[str, str]
    constraints: str = ""


def convert(top: Elaboratable, platform: Any, constraints: str = "lpf") -> Converted:
    """Convert a board's top with the board's platform (`Board.make_platform`), whose constraints
    are in a file with that ending."""
    with Collector() as collector:
        plan = platform.build(top, name=TOP, do_build=False, emit_src=False)
        texts = {TOP: _text(plan.files[f"{TOP}.il"]), **_repeated(collector, platform)}
    return Converted(texts, _text(plan.files[f"{TOP}.{constraints}"]))


def convert_unit(component: wiring.Component, platform: object = None) -> Converted:
    """Convert a component alone: its ports are those of its signature."""
    with Collector() as collector:
        texts = {TOP: _convert(component, TOP, platform), **_repeated(collector, platform)}
    return Converted(texts)


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode()


def _repeated(collector: Collector, platform: object) -> dict[str, str]:
    texts: dict[str, str] = {}
    while waiting := [name for name in collector.modules if name not in texts]:
        for name in waiting:
            texts[name] = _convert(collector.modules[name], name, platform)
    return texts


def _convert(component: wiring.Component, name: str, platform: object) -> str:
    ports: dict[str, tuple[Value, PortDirection]] = {}
    for path, member, value in component.signature.flatten(component):
        if isinstance(value, ValueCastable):
            value = value.as_value()
        # `ready` of an always ready stream is a constant, and a constant is no port.
        if isinstance(value, Const) or len(value) == 0:
            continue
        way = PortDirection.Input if member.flow == In else PortDirection.Output
        ports["__".join(map(str, path))] = (value, way)
    return rtlil.convert(component, name=name, platform=platform, ports=ports, emit_src=False)
