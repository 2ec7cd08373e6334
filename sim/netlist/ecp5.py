"""Post-route netlists of ECP5 devices (nextpnr's ``--write``) as flat Verilog.

Look-up tables, carry chains, flip-flops and distributed memories become expressions and processes;
block RAMs and multipliers become instances of the models in ``sim/cells/ecp5``. What a pin without
a net reads is what the device makes of it: 1, or what the cell's ``...MUX`` parameter says. Cells
and modes that no model stands for are refused.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["NetlistError", "to_verilog"]

Cell = Mapping[str, Any]
_PINS = ("A", "B", "C", "D")
_IGNORED = ("TRELLIS_RAMW",)


class NetlistError(ValueError):
    """A netlist holds a cell or a mode that is not modelled."""


def to_verilog(netlist: str, *, top: str | None = None) -> str:
    """Return the netlist as Verilog with one module, ``top``, and instances of cell models.

    Parameters
    ----------
    netlist : str
        JSON as nextpnr-ecp5 writes it after placing and routing.
    top : str
        Name of the module to write, if not the netlist's own.

    Raises
    ------
    NetlistError
        If a cell is unknown, or used in a way that the models do not have.
    """
    modules = json.loads(netlist)["modules"]
    if len(modules) != 1:
        raise NetlistError(f"a netlist must hold one module, not {len(modules)}")
    ((name, module),) = modules.items()
    return _Writer(module).text(top or _plain(name))


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _number(text: str | int) -> int:
    """Return the value of a parameter: digits 0 and 1 (a space behind them marks a string)."""
    return text if isinstance(text, int) else int(text.strip(), 2)


def _lut(table: int, pins: Sequence[str]) -> str:
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
        return _lut(high if select == "1'b1" else low, rest)
    if low == high:
        return _lut(low, rest)
    ones = (1 << half) - 1
    if low == high ^ ones:
        other = _lut(low, rest)
        constant = {"1'b0": select, "1'b1": f"~{select}"}
        return constant.get(other, f"({select} ^ {other})")
    zero, one = _lut(low, rest), _lut(high, rest)
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


@dataclasses.dataclass
class _Writer:
    """Writes one module."""

    module: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.lines: list[str] = []
        self.nets: set[int] = set()

    def text(self, name: str) -> str:
        """Return the module's text."""
        self._ports()
        handlers: dict[str, Callable[[str, Cell], None]] = {
            "TRELLIS_COMB": self._comb,
            "TRELLIS_FF": self._flip_flop,
            "TRELLIS_IO": self._pad,
            "DP16KD": self._block_ram,
            "MULT18X18D": self._multiplier,
            "EHXPLLL": self._pll,
            "DCCA": self._clock_buffer,
        }
        self.writers = self._distributed_writers()
        for cell_name, cell in self.module["cells"].items():
            if cell["type"] in _IGNORED:
                continue
            if cell["type"] not in handlers:
                raise NetlistError(f"no model for cell {cell_name} of type {cell['type']}")
            handlers[cell["type"]](cell_name, cell)
        ports = self.module["ports"]
        header = ["/* verilator lint_off PINMISSING */"]  # outputs without a net are not listed
        header += [f"module {name} ({', '.join(_plain(port) for port in ports)});"]
        header += [f"  wire n{net};" for net in sorted(self.nets)]
        return "\n".join([*header, *self.lines, "endmodule", ""])

    def _ports(self) -> None:
        for name, port in self.module["ports"].items():
            plain, bits = _plain(name), port["bits"]
            span = f"[{len(bits) - 1}:0] " if len(bits) > 1 else ""
            self.lines.append(f"  {port['direction']} {span}{plain};")
            for index, bit in enumerate(bits):
                at = f"{plain}[{index}]" if span else plain
                if port["direction"] == "input":
                    self._assign(bit, at)
                else:
                    self.lines.append(f"  assign {at} = {self._net(bit)};")

    def _net(self, bit: int | str) -> str:
        if isinstance(bit, str):
            return f"1'b{bit if bit in '01' else '0'}"
        self.nets.add(bit)
        return f"n{bit}"

    def _assign(self, bit: int | str, value: str) -> None:
        if isinstance(bit, int):
            self.nets.add(bit)
            self.lines.append(f"  assign n{bit} = {value};")

    def _pin(self, cell: Cell, pin: str, mux: str | None = None) -> str:
        """Return what a pin reads, as the parameter ``mux`` has it."""
        bits = cell["connections"].get(pin, [])
        mode = str(cell["parameters"].get(mux or f"{pin}MUX", pin)).strip()
        if mode in ("0", "1"):
            return f"1'b{mode}"
        value = self._net(bits[0]) if bits else "1'b1"
        if mode == "INV":
            return {"1'b1": "1'b0", "1'b0": "1'b1"}.get(value, f"~{value}")
        return value

    def _out(self, cell: Cell, pin: str) -> int | str | None:
        bits = cell["connections"].get(pin, [])
        return bits[0] if bits else None

    def _drive(self, cell: Cell, pin: str, value: str) -> None:
        bit = self._out(cell, pin)
        if bit is not None:
            self._assign(bit, value)

    def _comb(self, name: str, cell: Cell) -> None:
        parameters = cell["parameters"]
        mode = str(parameters.get("MODE", "LOGIC")).strip()
        table = _number(parameters.get("INITVAL", 0))
        pins = [self._pin(cell, pin) for pin in _PINS]
        if mode == "LOGIC":
            result = _lut(table, pins)
        elif mode == "CCU2":
            carry = self._pin(cell, "FCI")
            inject = str(parameters.get("CCU2_INJECT1", "NO")).strip() == "YES"
            whole, pair = _lut(table, pins), _lut(table & 15, pins[:2])
            result = whole if inject else f"({whole} ^ {carry})"
            if self._out(cell, "FCO") is not None:
                make = "1'b0" if inject else pair
                self._drive(cell, "FCO", f"{whole} ? {carry} : {make}")
        elif mode == "DPRAM":
            result = self._distributed(name, cell, table)
        else:
            raise NetlistError(f"no model for mode {mode} of {name}")
        if self._out(cell, "OFX") is not None:
            table_out = self._out(cell, "F")
            if table_out is not None:
                self._assign(table_out, result)
                result = self._net(table_out)
            select = self._pin(cell, "M")
            if cell["connections"].get("FXA"):
                one, zero = self._pin(cell, "FXB"), self._pin(cell, "FXA")
            else:
                one, zero = self._pin(cell, "F1"), result
            self._drive(cell, "OFX", f"{select} ? {one} : {zero}")
        else:
            self._drive(cell, "F", result)

    def _distributed_writers(self) -> dict[int, Cell]:
        """Return the cell that drives each net of a distributed memory's write port."""
        found = {}
        for cell in self.module["cells"].values():
            if cell["type"] == "TRELLIS_RAMW":
                for bits in cell["connections"].values():
                    found.update(dict.fromkeys(bits, cell))
        return found

    def _distributed(self, name: str, cell: Cell, table: int) -> str:
        """Write a memory of 16 bits with a write port; return what its read port shows."""
        memory = f"m{len(self.lines)}"
        read = ", ".join(self._pin(cell, pin) for pin in ("A", "C", "B", "D"))
        address = ", ".join(self._written(cell, f"WAD{bit}") for bit in (3, 2, 1, 0))
        clock, enable = self._pin(cell, "WCK"), self._pin(cell, "WRE")
        self.lines += [
            f"  reg [15:0] {memory} = 16'd{table};",
            f"  always @(posedge {clock}) if ({enable}) "
            f"{memory}[{{{address}}}] <= {self._written(cell, 'WD')};",
        ]
        return f"{memory}[{{{read}}}]"

    def _written(self, cell: Cell, pin: str) -> str:
        """Return what the write port's pin reads: an output of the slice's write cell."""
        bits = cell["connections"].get(pin, [])
        if not bits:
            raise NetlistError(f"a distributed memory's {pin} has no net")
        source = self.writers.get(bits[0])
        if source is None:
            return self._net(bits[0])
        (output,) = [
            key
            for key, nets in source["connections"].items()
            if nets == bits and source["port_directions"][key] == "output"
        ]
        # Which input of the slice's third part an output repeats.
        pins = {
            **{"WADO0": "D0", "WADO1": "B0", "WADO2": "C0", "WADO3": "A0"},
            **{"WDO0": "C1", "WDO1": "A1", "WDO2": "D1", "WDO3": "B1"},
        }
        return self._pin(source, pins[output])

    def _flip_flop(self, name: str, cell: Cell) -> None:
        bit = self._out(cell, "Q")
        if bit is None:
            return
        parameters = cell["parameters"]
        register = f"q{bit}"
        value = self._pin(cell, "DI" if _number(parameters.get("SD", 0)) else "M")
        edge = "negedge" if str(parameters.get("CLKMUX", "CLK")).strip() == "INV" else "posedge"
        start = int(str(parameters.get("REGSET", "RESET")).strip() == "SET")
        enable = self._pin(cell, "CE")
        # A reset without a net is off, unlike other pins.
        reset = self._pin(cell, "LSR") if cell["connections"].get("LSR") else "1'b0"
        clock = self._plain_net(cell, "CLK")
        update = f"{register} <= {value};"
        if enable != "1'b1":
            update = f"if ({enable}) {update}"
        if reset != "1'b0":
            if str(parameters.get("SRMODE", "LSR_OVER_CE")).strip() != "LSR_OVER_CE":
                raise NetlistError(f"no model for the asynchronous reset of {name}")
            update = f"if ({reset}) {register} <= 1'b{start}; else {update}"
        self.lines += [
            f"  reg {register} = 1'b{start};",
            f"  always @({edge} {clock}) {update}",
        ]
        self._assign(bit, register)

    def _plain_net(self, cell: Cell, pin: str) -> str:
        bits = cell["connections"].get(pin, [])
        if not bits:
            raise NetlistError(f"a cell of type {cell['type']} has no {pin}")
        return self._net(bits[0])

    def _instance(self, cell: Cell, parameters: str, unconnected: str = "") -> None:
        """Write an instance of a cell's model, with the parameters whose names match.

        Pins whose names match ``unconnected`` are not the model's, and must have no net.
        """
        values = ", ".join(
            f".{key}({self._parameter(value)})"
            for key, value in cell["parameters"].items()
            if re.fullmatch(parameters, key)
        )
        pins = []
        for pin, way in cell["port_directions"].items():
            if re.fullmatch(unconnected, pin):
                if way == "input" and cell["connections"].get(pin):
                    raise NetlistError(f"no model for pin {pin} of a {cell['type']}")
            elif way == "input":
                pins.append(f".{pin}({self._pin(cell, pin)})")
            else:
                bit = self._out(cell, pin)
                pins.append(f".{pin}({self._net(bit) if bit is not None else ''})")
        self.lines.append(f"  {cell['type']} #({values}) i{len(self.lines)} ({', '.join(pins)});")

    @staticmethod
    def _parameter(value: str | int) -> str:
        if isinstance(value, int):
            return str(value)
        if re.fullmatch(r"[01]+", value):
            return f"{len(value)}'b{value}"
        return f'"{value.strip()}"'

    def _block_ram(self, name: str, cell: Cell) -> None:
        used = str(cell["parameters"].get("RESETMODE", "SYNC")).strip() != "SYNC" and any(
            self._pin(cell, reset) != "1'b0" for reset in ("RSTA", "RSTB")
        )
        if used:
            raise NetlistError(f"no model for the asynchronous reset of block RAM {name}")
        self._instance(cell, "INITVAL_.*|DATA_WIDTH_.|REGMODE_.|WRITEMODE_.|CSDECODE_.")

    def _multiplier(self, _: str, cell: Cell) -> None:
        # Its cascades to neighbours are left out.
        self._instance(cell, "REG_.*", r"SR[IO][AB]\d+|RO[ABC]\d+")

    def _pad(self, name: str, cell: Cell) -> None:
        way = str(cell["parameters"].get("DIR", "INPUT")).strip()
        pad = self._plain_net(cell, "B")
        if way == "INPUT":
            self._drive(cell, "O", pad)
        elif way == "OUTPUT":
            self._drive(cell, "B", self._pin(cell, "I"))
        else:
            raise NetlistError(f"no model for pad {name} of direction {way}")

    def _pll(self, _: str, cell: Cell) -> None:
        """The clock that leaves it is the one that is simulated."""
        for pin in ("CLKOP", "CLKOS", "CLKOS2", "CLKOS3"):
            self._drive(cell, pin, self._plain_net(cell, "CLKI"))
        self._drive(cell, "LOCK", "1'b1")

    def _clock_buffer(self, name: str, cell: Cell) -> None:
        if self._pin(cell, "CE") != "1'b1":
            raise NetlistError(f"no model for the gate of clock {name}")
        self._drive(cell, "CLKO", self._plain_net(cell, "CLKI"))
