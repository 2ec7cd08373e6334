"""The clock that a netlist can reach, estimated before place and route.

Place and route of a card takes long; this takes seconds, and finds the paths that cross units,
which no measurement of a unit alone shows. What a wire takes is guessed from its fan-out, so
a figure is good for comparing two versions of a design and for finding its longest paths, and place
and route has the last word.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Arcs", "Path", "estimate", "longest"]


@dataclasses.dataclass(frozen=True)
class Arcs:
    """How long a cell takes. Times are in ns; ports are the netlist's.

    Parameters
    ----------
    through : tuple of (str, str, float, bool)
        Combinational: input, output, time, and whether a wire of its own leads to the input, that
        takes no time.
    launch : tuple of (str, float)
        Outputs that change with the clock, and how long after it.
    capture : tuple of (str, float)
        Inputs that have to stand still so long before it.
    absorbs : tuple of str
        Inputs of a register that lies beside the cell before it, if that feeds nothing else.
    """

    through: tuple[tuple[str, str, float, bool], ...] = ()
    launch: tuple[tuple[str, float], ...] = ()
    capture: tuple[tuple[str, float], ...] = ()
    absorbs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Path:
    """The longest path to a cell's input.

    Parameters
    ----------
    ns : float
    cells : tuple of str
        Names of the cells, from the one that launches to the one that captures.
    end : str
        Input of the last one.
    nets : tuple of int
        Bits of the netlist between them.
    """

    ns: float
    cells: tuple[str, ...]
    end: str
    nets: tuple[int, ...]

    @property
    def mhz(self) -> float:
        return 1e3 / self.ns


def _wire_ns(fan_out: int) -> float:
    """What a wire takes. Fitted to ECP5 cards of about 50,000 cells, on grade 6."""
    return 0.8 + 0.2 * math.log2(max(1, fan_out))


class _Netlist:
    """Who drives what, and the time at which each bit is settled."""

    def __init__(
        self, cells: Mapping[str, Any], arcs_of: Callable[[Mapping[str, Any]], Arcs]
    ) -> None:
        self.driver: dict[int, str] = {}
        self.fan_out: dict[int, int] = {}
        self.ends: list[tuple[int, str, str, float, bool]] = []
        self._launched: dict[int, float] = {}
        # Bit: the bits that it is made of, with the time from each, and whether the wire is free.
        self._made_of: dict[int, list[tuple[int, float, bool]]] = {}
        for name, cell in cells.items():
            self._add(name, cell, arcs_of(cell))
        self._settled: dict[int, float] = {}
        self._slowest: dict[int, int] = {}
        for bit in self._made_of:
            self._settle(bit)

    def _add(self, name: str, cell: Mapping[str, Any], arcs: Arcs) -> None:
        bits = {
            port: [bit for bit in found if not isinstance(bit, str)]
            for port, found in cell["connections"].items()
        }
        for port, found in bits.items():
            output = cell["port_directions"][port] == "output"
            for bit in found:
                if output:
                    self.driver[bit] = name
                else:
                    self.fan_out[bit] = self.fan_out.get(bit, 0) + 1
        for source, target, ns, free in arcs.through:
            for bit in bits.get(target, ()):
                made_of = self._made_of.setdefault(bit, [])
                made_of += [(before, ns, free) for before in bits.get(source, ())]
        for port, ns in arcs.launch:
            self._launched.update(dict.fromkeys(bits.get(port, ()), ns))
        for port, ns in arcs.capture:
            absorbed = port in arcs.absorbs
            self.ends += [(bit, name, port, ns, absorbed) for bit in bits.get(port, ())]

    def wire(self, bit: int) -> float:
        return _wire_ns(self.fan_out.get(bit, 0))

    def time(self, bit: int) -> float | None:
        """When a bit is settled after the clock; none for what does not depend on it."""
        return self._settled.get(bit, self._launched.get(bit))

    def is_logic(self, bit: int) -> bool:
        return bit in self._made_of

    def _settle(self, root: int) -> None:
        """Find out when a bit is settled, after all that it is made of."""
        stack, entered = [root], set()
        while stack:
            bit = stack[-1]
            if bit in self._settled:
                stack.pop()
                continue
            before = self._made_of[bit]
            if bit not in entered:  # a loop is passed once
                entered.add(bit)
                open_ = [x for x, _, _ in before if x in self._made_of and x not in self._settled]
                if open_:
                    stack += open_
                    continue
            stack.pop()
            best, slowest = self._launched.get(bit, 0.0), None
            for x, ns, free in before:
                then = self.time(x)
                if then is not None:
                    then += ns if free else ns + self.wire(x)
                    if then > best:
                        best, slowest = then, x
            self._settled[bit] = best
            if slowest is not None:
                self._slowest[bit] = slowest

    def way(self, bit: int) -> list[int]:
        """The bits of the longest path to one."""
        found = [bit]
        while (before := self._slowest.get(found[-1])) is not None:
            found.append(before)
        return found[::-1]


def estimate(
    cells: Mapping[str, Any],
    arcs_of: Callable[[Mapping[str, Any]], Arcs],
    group: Callable[[str], str],
) -> list[Path]:
    """Return the longest path for each pair of groups in which one starts and one ends, the
    slowest first.

    Parameters
    ----------
    cells : Mapping[str, Any]
        Of a module in yosys' JSON.
    arcs_of : callable
        What a cell takes.
    group : callable
        Group of a cell, by its name: such as the block that it lies in.
    """
    netlist = _Netlist(cells, arcs_of)
    found = []
    for bit, name, port, setup, absorbs in netlist.ends:
        then = netlist.time(bit)
        if then is None:
            continue
        beside = absorbs and netlist.is_logic(bit) and netlist.fan_out[bit] == 1
        found.append((then + setup + (0 if beside else netlist.wire(bit)), bit, name, port))
    found.sort(key=lambda end: -end[0])
    paths: dict[tuple[str, str], Path] = {}
    for ns, bit, name, port in found:
        nets = netlist.way(bit)
        # What comes from a pin has no cell before it.
        through = [netlist.driver[x] for x in nets if x in netlist.driver]
        key = (group(through[0]) if through else "", group(name))
        if key not in paths:
            paths[key] = Path(round(ns, 2), (*through, name), port, tuple(nets))
    return list(paths.values())


def longest(paths: list[Path], group: Callable[[str], str]) -> dict[str, float]:
    """Return the longest path that ends in each group, in ns."""
    found: dict[str, float] = {}
    for path in paths:
        name = group(path.cells[-1])
        found[name] = max(found.get(name, 0.0), path.ns)
    return found
