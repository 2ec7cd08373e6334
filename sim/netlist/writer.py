"""Parts of a Verilog module that is written from a netlist, whatever its cells are."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Cell", "Handler", "NetlistError", "Writer", "lut", "number", "plain"]

Cell = Mapping[str, Any]
"""A cell in yosys's JSON."""

Handler = Callable[["Writer", str, Cell], None]
"""Writes a cell of some type."""


class NetlistError(ValueError):
    """A netlist holds a cell or a mode that is not modelled, or cannot be read."""


def plain(name: str) -> str:
    """Return a name as Verilog's identifiers are."""
    return re.sub(r"\W", "_", name)


def number(text: str | int) -> int:
    """Return the value of a parameter: digits 0, 1 and x (a space behind them marks a string)."""
    return text if isinstance(text, int) else int(text.strip().replace("x", "0"), 2)


def lut(table: int, pins: Sequence[str]) -> str:
    """Return an expression for the table whose index has ``pins[0]`` as its lowest bit."""
    size = 1 << len(pins)
    table &= (1 << size) - 1
    if table == 0:
        return "1'b0"
    if table == (1 << size) - 1:
        return "1'b1"
    half = size // 2
    low, high = table & ((1 << half) - 1), table >> half
    select, rest = pins[-1], pins[:-1]
    if select in ("1'b0", "1'b1"):
        return lut(high if select == "1'b1" else low, rest)
    if low == high:
        return lut(low, rest)
    ones = (1 << half) - 1
    if low == high ^ ones:
        other = lut(low, rest)
        constant = {"1'b0": select, "1'b1": f"~{select}"}
        return constant.get(other, f"({select} ^ {other})")
    zero, one = lut(low, rest), lut(high, rest)
    if zero == one:  # where they differ, a constant pin never points
        return zero
    if zero == "1'b0":
        return select if one == "1'b1" else f"({select} & {one})"
    if one == "1'b0":
        return f"~{select}" if zero == "1'b1" else f"(~{select} & {zero})"
    if zero == "1'b1":
        return f"(~{select} | {one})"
    if one == "1'b1":
        return f"({select} | {zero})"
    return f"({select} ? {one} : {zero})"


class Writer:
    """Writes one module.

    Parameters
    ----------
    module : mapping
        Ports and cells in yosys's JSON.
    handlers : mapping
        By type of cell; None for those of which nothing is written.
    """

    def __init__(self, module: Mapping[str, Any], handlers: Mapping[str, Handler | None]) -> None:
        self.module = module
        self.handlers = handlers
        self.lines: list[str] = []
        self._nets: set[int] = set()
        self._pads: dict[int, tuple[str, str]] = {}
        # Registers with the same clock, reset and enable: what happens with and without reset.
        self._registers: dict[tuple[str, str, str], list[tuple[str, str]]] = {}

    def text(self, name: str) -> str:
        """Return the module's text.

        Raises
        ------
        NetlistError
            If there is no handler for a cell, or it refuses the cell.
        """
        self._ports()
        for cell_name, cell in self.module["cells"].items():
            if cell["type"] not in self.handlers:
                raise NetlistError(f"no model for cell {cell_name} of type {cell['type']}")
            handler = self.handlers[cell["type"]]
            if handler is not None:
                handler(self, cell_name, cell)
        ports = [plain(port) for port in self.module["ports"]]
        for port, about in self.module["ports"].items():
            if about["direction"] == "inout":
                ports += [f"{plain(port)}__o", f"{plain(port)}__oe"]
        header = ["/* verilator lint_off PINMISSING */"]  # outputs without a net are not listed
        header += [f"module {name}({', '.join(ports)});"]
        header += [f"  wire n{net};" for net in sorted(self._nets)]
        return "\n".join([*header, *self.lines, *self._processes(), "endmodule", ""])

    def _ports(self) -> None:
        for name, port in self.module["ports"].items():
            own, bits = plain(name), port["bits"]
            span = f"[{len(bits) - 1}:0] " if len(bits) > 1 else ""
            both = port["direction"] == "inout"
            self.lines.append(f"  {'input' if both else port['direction']} {span}{own};")
            if both:
                self.lines.append(f"  output {span}{own}__o, {own}__oe;")
            for index, bit in enumerate(bits):
                place = f"[{index}]" if span else ""
                at = own + place
                if both:
                    self._pads[bit] = (f"{own}__o{place}", f"{own}__oe{place}")
                if both or port["direction"] == "input":
                    self.assign(bit, at)
                else:
                    self.lines.append(f"  assign {at} = {self.net(bit)};")

    def net(self, bit: int | str) -> str:
        """Return the name of a net, or a constant."""
        if isinstance(bit, str):
            return f"1'b{bit if bit in '01' else '0'}"
        self._nets.add(bit)
        return f"n{bit}"

    def assign(self, bit: int | str, value: str) -> None:
        """Give a net its value."""
        if isinstance(bit, int):
            self._nets.add(bit)
            self.lines.append(f"  assign n{bit} = {value};")

    def put(self, bit: int | str, value: str, enable: str) -> None:
        """Drive a pin that goes both ways: the module has outputs for it of its name with
        ``__o``, and with ``__oe`` for whether it is driven."""
        if not isinstance(bit, int) or bit not in self._pads:
            raise NetlistError("a pad that goes both ways has no pin")
        for port, what in zip(self._pads[bit], (value, enable), strict=True):
            self.lines.append(f"  assign {port} = {what};")

    def pin(self, cell: Cell, pin: str, mux: str | None = None) -> str:
        """Return what a pin reads, as the parameter ``mux`` has it."""
        bits = cell["connections"].get(pin, [])
        mode = str(cell["parameters"].get(mux or f"{pin}MUX", pin)).strip()
        if mode in ("0", "1"):
            return f"1'b{mode}"
        value = self.net(bits[0]) if bits else "1'b1"
        return _inverse(value) if mode == "INV" else value

    def out(self, cell: Cell, pin: str) -> int | str | None:
        """Return the net of an output, if it has one."""
        bits = cell["connections"].get(pin, [])
        return bits[0] if bits else None

    def drive(self, cell: Cell, pin: str, value: str) -> None:
        """Give an output its value, if it has a net."""
        bit = self.out(cell, pin)
        if bit is not None:
            self.assign(bit, value)

    def wired(self, cell: Cell, pin: str) -> str:
        """Return the net of a pin that has to have one."""
        bits = cell["connections"].get(pin, [])
        if not bits:
            raise NetlistError(f"a cell of type {cell['type']} has no {pin}")
        return self.net(bits[0])

    def register(
        self, bit: int, value: str, *, start: int, clock: str, reset: str, enable: str
    ) -> None:
        """Write a flip-flop; its reset goes before its enable."""
        name = f"q{bit}"
        self.lines.append(f"  reg {name} = 1'b{start};")
        self._registers.setdefault((clock, reset, enable), []).append(
            (f"{name} <= {value};", f"{name} <= 1'b{start};")
        )
        self.assign(bit, name)

    def _processes(self) -> list[str]:
        """Return the processes of all registers: one for those that are alike, to be quick."""
        lines = []
        for (clock, reset, enable), updates in self._registers.items():
            lines.append(f"  always @({clock})")
            if reset != "1'b0":
                lines += [f"    if ({reset}) begin", *(f"      {off}" for _, off in updates)]
                lines.append("    end else")
            if enable != "1'b1":
                lines.append(f"    if ({enable})")
            lines += ["    begin", *(f"      {on}" for on, _ in updates), "    end"]
        return lines

    def instance(self, cell: Cell, parameters: str, unconnected: str = "") -> None:
        """Write an instance of a cell's model, with the parameters whose names match.

        Pins whose names match ``unconnected`` are not the model's, and must have no net.
        """
        values = ", ".join(
            f".{key}({_parameter(value)})"
            for key, value in cell["parameters"].items()
            if re.fullmatch(parameters, key)
        )
        pins = []
        for pin, way in cell["port_directions"].items():
            if re.fullmatch(unconnected, pin):
                if way == "input" and cell["connections"].get(pin):
                    raise NetlistError(f"no model for pin {pin} of a {cell['type']}")
            elif way == "input":
                pins.append(f".{pin}({self.pin(cell, pin)})")
            else:
                bit = self.out(cell, pin)
                pins.append(f".{pin}({self.net(bit) if bit is not None else ''})")
        self.lines.append(f"  {cell['type']} #({values}) i{len(self.lines)} ({', '.join(pins)});")


def _inverse(value: str) -> str:
    return {"1'b1": "1'b0", "1'b0": "1'b1"}.get(value, f"~{value}")


def _parameter(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    if re.fullmatch(r"[01x]+", value):
        return f"{len(value)}'b{value.replace('x', '0')}"
    return f'"{value.strip()}"'
