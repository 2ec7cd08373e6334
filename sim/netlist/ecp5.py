"""Netlists of ECP5 devices as flat Verilog: after synthesis (yosys), or placed and routed
(nextpnr's ``--write``).

Look-up tables, carry chains, flip-flops and distributed memories become expressions and processes;
block RAMs and multipliers become instances of the models in ``sim/cells/ecp5``. What a pin without
a net reads is what the device makes of it: 1, or what the cell's ``...MUX`` parameter says. Cells
and modes that no model stands for are refused.
"""

import functools
import json
from collections.abc import Mapping

from .synthesised import SYNTHESISED
from .writer import Cell, Handler, NetlistError, Writer, lut, number, plain

__all__ = ["LOCK_CYCLES", "NetlistError", "to_verilog"]

LOCK_CYCLES = 16
"""Cycles from power-up to the PLL's lock."""


def to_verilog(netlist: str | bytes, *, top: str | None = None) -> str:
    """Return the netlist as Verilog with one module, ``top``, and instances of cell models.

    Parameters
    ----------
    netlist : str or bytes
        JSON as yosys writes it, or nextpnr-ecp5 after placing and routing.
    top : str
        Name of the module to write, if not the netlist's own.

    Raises
    ------
    NetlistError
        If it is no netlist, a cell is unknown, or used in a way that the models do not have.
    """
    try:
        found = json.loads(netlist)["modules"]
    except (ValueError, KeyError, TypeError) as error:
        raise NetlistError(f"this is no netlist ({error})") from None
    # yosys also lists the cells of its library.
    modules = {
        name: module
        for name, module in found.items()
        if not module.get("attributes", {}).keys() & {"blackbox", "whitebox"}
    }
    if len(modules) != 1:
        raise NetlistError(f"a netlist must hold one module, not {len(modules)}")
    ((name, module),) = modules.items()
    writers = _distributed_writers(module["cells"])
    routed = functools.partial(_comb, writers=writers)
    return Writer(module, {**_HANDLERS, "TRELLIS_COMB": routed}).text(top or plain(name))


def _comb(w: Writer, name: str, cell: Cell, *, writers: dict[int, Cell]) -> None:
    parameters = cell["parameters"]
    mode = str(parameters.get("MODE", "LOGIC")).strip()
    if mode == "RAMW_BLOCK" and w.out(cell, "F") is None and w.out(cell, "OFX") is None:
        return  # only keeps the place of a distributed memory's write port free
    table = number(parameters.get("INITVAL", 0))
    pins = [w.pin(cell, pin) for pin in "ABCD"]
    if mode == "LOGIC":
        result = lut(table, pins)
    elif mode == "CCU2":
        carry = w.pin(cell, "FCI")
        inject = str(parameters.get("CCU2_INJECT1", "NO")).strip() == "YES"
        whole, pair = lut(table, pins), lut(table & 15, pins[:2])
        result = whole if inject else f"({whole} ^ {carry})"
        if w.out(cell, "FCO") is not None:
            make = "1'b0" if inject else pair
            w.drive(cell, "FCO", f"{whole} ? {carry} : {make}")
    elif mode == "DPRAM":
        result = _distributed(w, cell, table, writers)
    else:
        raise NetlistError(f"no model for mode {mode} of {name}")
    if w.out(cell, "OFX") is not None:
        table_out = w.out(cell, "F")
        if table_out is not None:
            w.assign(table_out, result)
            result = w.net(table_out)
        select = w.pin(cell, "M")
        if cell["connections"].get("FXA"):
            one, zero = w.pin(cell, "FXB"), w.pin(cell, "FXA")
        else:
            one, zero = w.pin(cell, "F1"), result
        w.drive(cell, "OFX", f"{select} ? {one} : {zero}")
    else:
        w.drive(cell, "F", result)


def _distributed_writers(cells: Mapping[str, Cell]) -> dict[int, Cell]:
    """Return the cell that drives each net of a distributed memory's write port."""
    found = {}
    for cell in cells.values():
        if cell["type"] == "TRELLIS_RAMW":
            for bits in cell["connections"].values():
                found.update(dict.fromkeys(bits, cell))
    return found


def _distributed(w: Writer, cell: Cell, table: int, writers: dict[int, Cell]) -> str:
    """Write a memory of 16 bits with a write port; return what its read port shows."""
    memory = f"m{len(w.lines)}"
    read = ", ".join(w.pin(cell, pin) for pin in ("A", "C", "B", "D"))
    address = ", ".join(_written(w, cell, f"WAD{bit}", writers) for bit in (3, 2, 1, 0))
    clock, enable = w.pin(cell, "WCK"), w.pin(cell, "WRE")
    w.lines += [
        f"  reg [15:0] {memory} = 16'd{table};",
        f"  always @(posedge {clock}) if ({enable}) "
        f"{memory}[{{{address}}}] <= {_written(w, cell, 'WD', writers)};",
    ]
    return f"{memory}[{{{read}}}]"


def _written(w: Writer, cell: Cell, pin: str, writers: dict[int, Cell]) -> str:
    """Return what the write port's pin reads: an output of the slice's write cell."""
    bits = cell["connections"].get(pin, [])
    if not bits:
        raise NetlistError(f"a distributed memory's {pin} has no net")
    source = writers.get(bits[0])
    if source is None:
        return w.net(bits[0])
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
    return w.pin(source, pins[output])


def _flip_flop(w: Writer, name: str, cell: Cell) -> None:
    bit = w.out(cell, "Q")
    if not isinstance(bit, int):
        return
    parameters = cell["parameters"]
    # Before packing there is one data input only.
    direct = number(parameters.get("SD", 0)) or not cell["connections"].get("M")
    inverted = str(parameters.get("CLKMUX", "CLK")).strip() == "INV"
    # A reset without a net is off, unlike other pins.
    reset = w.pin(cell, "LSR") if cell["connections"].get("LSR") else "1'b0"
    order = str(parameters.get("SRMODE", "LSR_OVER_CE")).strip()
    if reset != "1'b0" and order != "LSR_OVER_CE":
        raise NetlistError(f"no model for the asynchronous reset of {name}")
    w.register(
        bit,
        w.pin(cell, "DI" if direct else "M"),
        start=int(str(parameters.get("REGSET", "RESET")).strip() == "SET"),
        clock=f"{'negedge' if inverted else 'posedge'} {w.wired(cell, 'CLK')}",
        reset=reset,
        enable=w.pin(cell, "CE"),
    )


def _block_ram(w: Writer, name: str, cell: Cell) -> None:
    used = str(cell["parameters"].get("RESETMODE", "SYNC")).strip() != "SYNC" and any(
        w.pin(cell, reset) != "1'b0" for reset in ("RSTA", "RSTB")
    )
    if used:
        raise NetlistError(f"no model for the asynchronous reset of block RAM {name}")
    w.instance(cell, "INITVAL_.*|DATA_WIDTH_.|REGMODE_.|WRITEMODE_.|CSDECODE_.")


def _multiplier(w: Writer, _: str, cell: Cell) -> None:
    # Its cascades to neighbours are left out.
    w.instance(cell, "REG_.*", r"SR[IO][AB]\d+|RO[ABC]\d+")


def _pad(w: Writer, name: str, cell: Cell) -> None:
    way = str(cell["parameters"].get("DIR", "INPUT")).strip()
    pad = w.wired(cell, "B")
    if way == "INPUT":
        w.drive(cell, "O", pad)
    elif way == "OUTPUT":
        w.drive(cell, "B", w.pin(cell, "IOLDO" if cell["connections"].get("IOLDO") else "I"))
    elif way == "BIDIR":
        w.drive(cell, "O", pad)
        w.put(cell["connections"]["B"][0], w.pin(cell, "I"), f"~{w.pin(cell, 'T')}")
    else:
        raise NetlistError(f"no model for pad {name} of direction {way}")


def _double_rate(w: Writer, name: str, cell: Cell) -> None:
    """Registers of a pad: one output for each half of the cycle. The pad is always driven."""
    mode = str(cell["parameters"].get("MODE", "")).strip()
    if mode != "IDDRX1_ODDRX1" or cell["connections"].get("RXDATA0"):
        raise NetlistError(f"no model for the registers of pad {name}")
    clock, halves = w.wired(cell, "CLK"), f"halves{len(w.lines)}"
    w.lines += [
        f"  reg [1:0] {halves} = 2'd0;",
        f"  always @(posedge {clock}) {halves} <= "
        f"{{{w.pin(cell, 'TXDATA1')}, {w.pin(cell, 'TXDATA0')}}};",
    ]
    w.drive(cell, "IOLDO", f"{clock} ? {halves}[0] : {halves}[1]")


def _pll(w: Writer, _: str, cell: Cell) -> None:
    """The clock that comes to it leaves it: what is simulated are the cycles behind it."""
    clock = w.wired(cell, "CLKI")
    for pin in ("CLKOP", "CLKOS", "CLKOS2", "CLKOS3"):
        w.drive(cell, pin, clock)
    count = f"lock{len(w.lines)}"
    w.lines += [
        f"  reg [7:0] {count} = 8'd{LOCK_CYCLES};",
        f"  always @(posedge {clock}) if ({count} != 0) {count} <= {count} - 8'd1;",
    ]
    w.drive(cell, "LOCK", f"{count} == 0")


def _clock_buffer(w: Writer, _: str, cell: Cell) -> None:
    if w.pin(cell, "CE") != "1'b1":
        w.instance(cell, "")
    else:
        w.drive(cell, "CLKO", w.wired(cell, "CLKI"))


_HANDLERS: dict[str, Handler | None] = {
    **SYNTHESISED,
    "TRELLIS_RAMW": None,
    "TRELLIS_FF": _flip_flop,
    "TRELLIS_IO": _pad,
    "IOLOGIC": _double_rate,
    "DP16KD": _block_ram,
    "MULT18X18D": _multiplier,
    "EHXPLLL": _pll,
    "DCCA": _clock_buffer,
}
