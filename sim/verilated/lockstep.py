"""An array of equal components as one C++ function over vectors of them, instead of Verilog.

Verilator makes of 64 processing elements 64 functions that differ in names only, and runs each of
them every cycle. Here what all of them do is written once, and every operation works on sixteen
elements at a time (`Element`). A Verilog module with the array's ports calls the function at the
clock's edge. What is inside does not show in waves.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from amaranth.hdl import Fragment, Value, _nir
from amaranth.hdl._ir import PortDirection, build_netlist
from amaranth.lib import wiring

from .element import CHUNK, PRELUDE, Element, Expressions, Unsuitable, Variable, declared

__all__ = ["Lockstep", "Ports", "lockstep"]

Ports = Callable[[wiring.Component], Mapping[str, tuple[Value, PortDirection]]]
"""Returns a component's Verilog ports."""

_SPECIAL_BITS = 4
"""Of uniform inputs: for each of their values there is a function of its own, which does less."""


@dataclasses.dataclass(frozen=True)
class Lockstep:
    """What stands for an array: its module's Verilog, and the C++ that this calls."""

    verilog: str
    source: str


def lockstep(
    component: wiring.Component,
    name: str,
    ports: Ports,
    modules: Mapping[str, wiring.Component],
) -> Lockstep | None:
    """Return what stands for an array of one component, with nothing else but wires.

    None for any other component, and if there is no C++ for its elements: their outputs have to
    come from registers of one clock, for instance.

    Parameters
    ----------
    component : Component
    name : str
        Of its module.
    ports : callable
    modules : mapping
        Components by the names of their modules; to which a `Collector` adds those of the array.
    """
    try:
        array = _Array(_netlist(component, name, ports))
        element = Element(_netlist(modules[array.element], array.element, ports), array.uniform)
        return _write(name, array, element)
    except Unsuitable:
        return None


def _netlist(component: wiring.Component, name: str, ports: Ports) -> _nir.Netlist:
    listed = [(key, value, way) for key, (value, way) in ports(component).items()]
    return build_netlist(Fragment.get(component, None), ports=listed, name=name)


class _Array:
    """How the elements of an array are connected.

    Members
    -------
    inputs, outputs : dict
        Widths of the array's ports, by name, without the clock.
    element : str
        Module of the elements.
    uniform : list of str
        Inputs that all elements have from the same port of the array.
    """

    def __init__(self, netlist: _nir.Netlist) -> None:
        top = netlist.top
        cells = list(enumerate(netlist.cells))[1:]
        self._instances = {i: cell for i, cell in cells if isinstance(cell, _nir.Instance)}
        names = {cell.type for cell in self._instances.values()}
        if len(names) != 1 or len(self._instances) != len(cells):
            raise Unsuitable("other than instances of one module")
        (self.element,) = names
        self.count = len(self._instances)
        self.inputs = {port: width for port, (_, width) in top.ports_i.items() if port != "clk"}
        self.outputs = {port: len(nets) for port, nets in top.ports_o.items()}
        for port, width in (self.inputs | self.outputs).items():
            if width > 64:
                raise Unsuitable(f"{port} of {width} bits")
        self._top = top
        self._place = {index: place for place, index in enumerate(self._instances)}
        self._first = next(iter(self._instances.values()))
        clock = _nir.Net.from_cell(0, top.ports_i["clk"][0]) if "clk" in top.ports_i else None
        for cell in self._instances.values():
            if cell.parameters or cell.ports_i.get("clk") != (clock,):
                raise Unsuitable("instances with parameters, or without the clock")
        self.uniform = [
            port
            for port, nets in self._first.ports_i.items()
            if all(cell.ports_i[port] == nets for cell in self._instances.values())
            and all(net.is_const or net.cell == 0 for net in nets)
        ]
        self._port = {
            start + bit: (Variable(f"t_{port}", width, True), bit)
            for port, (start, width) in top.ports_i.items()
            for bit in range(width)
        }
        self._text = Expressions(self._find)

    def _find(self, net: _nir.Net) -> tuple[Variable, int]:
        if net.cell == 0:
            return self._port[net.bit]
        port, start, width = self._output(net)
        text = f"s.o_{port}[{self._place[net.cell]}]"
        return Variable(text, width, True), net.bit - start

    def _output(self, net: _nir.Net) -> tuple[str, int, int]:
        """Return the port of an element that a net comes from, its first bit and its width."""
        return next(
            (port, start, width)
            for port, (start, width) in self._instances[net.cell].ports_o.items()
            if start <= net.bit < start + width
        )

    def uniform_input(self, port: str) -> str:
        """Return the expression of an input that is the same for all elements."""
        return self._text(self._first.ports_i[port])[0]

    def results(self) -> Iterator[tuple[str, str]]:
        """Yield the array's outputs and their expressions."""
        for port, nets in self._top.ports_o.items():
            yield port, self._text(nets)[0]

    def gather(self, port: str) -> Iterator[str]:
        """Yield what gives all elements their inputs of a port: outputs as they were before."""
        nets = {self._place[i]: cell.ports_i[port] for i, cell in self._instances.items()}
        copies: dict[tuple[str, int], list[int]] = {}
        for place, value in nets.items():
            if (source := self._copied(value)) is not None:
                copies.setdefault((source[0], source[1] - place), []).append(place)
        if copies:
            # Most have it from their neighbour on the same side: all move at once.
            (name, shift), places = max(copies.items(), key=lambda item: len(item[1]))
            low, high = min(places), max(places) + 1
            yield (
                f"std::memcpy(s.i_{port} + {low}, s.o_{name} + {low + shift}, "
                f"{high - low} * sizeof *s.o_{name});"
            )
            for place in places:
                del nets[place]
        for place, value in nets.items():
            yield f"s.i_{port}[{place}] = {self._text(value)[0]};"

    def _copied(self, nets: _nir.Value) -> tuple[str, int] | None:
        """Return the whole output that an input is, and of which element."""
        if not nets or nets[0].is_const or nets[0].cell == 0:
            return None
        cell = nets[0].cell
        port, start, width = self._output(nets[0])
        whole = tuple(_nir.Net.from_cell(cell, bit) for bit in range(start, start + width))
        return (port, self._place[cell]) if tuple(nets) == whole else None


def _write(name: str, array: _Array, element: Element) -> Lockstep:
    special, bits = {}, 0
    for port in element.uniform:
        width = element.inputs[port]
        if bits + width <= _SPECIAL_BITS:
            special[port] = bits
            bits += width
    others = [port for port in element.uniform if port not in special]
    own = [port for port in element.inputs if port not in element.uniform]
    count = -(-array.count // CHUNK) * CHUNK

    lines = [PRELUDE, "struct State {", *_indented(element.members(count)), "};", ""]
    passed = ["State& s", *(declared(f"i_{port}", element.inputs[port]) for port in others)]
    lines += ["template <unsigned SPECIAL>", f"void step({', '.join(passed)}) {{"]
    for port, low in special.items():
        mask = (1 << element.inputs[port]) - 1
        lines.append(f"    constexpr uint32_t i_{port} = SPECIAL >> {low} & {mask:#x}u;")
    lines += [f"    for (int at = 0; at < {count}; at += {CHUNK}) {{"]
    lines += [*_indented(_indented(element.step())), "    }", "}", "", "}  // namespace", ""]

    function = f"lockstep_{name}"
    lines += [f'extern "C" void* {function}_new() {{ return new State(); }}', ""]
    lines += [f'extern "C" void {function}_free(void* state) {{']
    lines += ["    delete static_cast<State*>(state);", "}", ""]
    arguments = [f"{_C_TYPE[width > 32]} t_{port}" for port, width in array.inputs.items()]
    arguments += [f"{_C_TYPE[width > 32]}* q_{port}" for port, width in array.outputs.items()]
    lines += [f'extern "C" void {function}_step({", ".join(["void* state", *arguments])}) {{']
    lines += ["    State& s = *static_cast<State*>(state);"]
    for port in own:
        lines += _indented(array.gather(port))
    chosen = [f"({array.uniform_input(port)} << {low})" for port, low in special.items()]
    values = ", ".join(["s", *(array.uniform_input(port) for port in others)])
    lines += [f"    switch ({' | '.join(chosen) or '0'}) {{"]
    lines += [f"        case {n}: step<{n}>({values}); break;" for n in range(1 << bits)]
    lines += ["    }", *(f"    *q_{port} = {text};" for port, text in array.results()), "}", ""]
    return Lockstep(_module(name, function, array), "\n".join(lines))


_C_TYPE = ("unsigned int", "unsigned long long")
_DPI_TYPE = ("int unsigned", "longint unsigned")


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


def _module(name: str, function: str, array: _Array) -> str:
    """Return the module that calls the function at the clock's edge."""
    inputs, outputs = array.inputs, array.outputs
    arguments = [f"input {_DPI_TYPE[width > 32]} t_{port}" for port, width in inputs.items()]
    arguments += [f"output {_DPI_TYPE[width > 32]} q_{port}" for port, width in outputs.items()]
    state = "input chandle state"
    values = ["state", *map(_padded, inputs, inputs.values())]
    return "\n".join(
        [
            f"module {name}({', '.join(['clk', *inputs, *outputs])});",
            "  input clk;",
            *(f"  input [{width - 1}:0] {port};" for port, width in inputs.items()),
            *(f"  output reg [{width - 1}:0] {port};" for port, width in outputs.items()),
            f'  import "DPI-C" function chandle {function}_new();',
            f'  import "DPI-C" function void {function}_free({state});',
            f'  import "DPI-C" function void {function}_step({", ".join([state, *arguments])});',
            "  chandle state;",
            f"  initial state = {function}_new();",
            f"  final {function}_free(state);",
            *(f"  {_DPI_TYPE[width > 32]} q_{port};" for port, width in outputs.items()),
            "  always @(posedge clk) begin",
            f"    {function}_step({', '.join([*values, *(f'q_{port}' for port in outputs)])});",
            *(f"    {port} <= q_{port}[{width - 1}:0];" for port, width in outputs.items()),
            "  end",
            "endmodule",
            "",
        ]
    )


def _padded(port: str, width: int) -> str:
    missing = -width % 32 if width <= 32 else 64 - width
    return f"{{{missing}'d0, {port}}}" if missing else port
