"""Cells of ECP5 devices as yosys leaves them: before they are packed, placed and routed."""

from .writer import Cell, Handler, Writer, lut, number

__all__ = ["SYNTHESISED"]


def _table(writer: Writer, _: str, cell: Cell) -> None:
    pins = [writer.pin(cell, pin) for pin in "ABCD"]
    writer.drive(cell, "Z", lut(number(cell["parameters"]["INIT"]), pins))


def _two_tables(writer: Writer, _: str, cell: Cell) -> None:
    one, zero = writer.pin(cell, "ALUT"), writer.pin(cell, "BLUT")
    writer.drive(cell, "Z", f"{writer.pin(cell, 'C0')} ? {one} : {zero}")


def _four_tables(writer: Writer, _: str, cell: Cell) -> None:
    one, zero = writer.pin(cell, "D1"), writer.pin(cell, "D0")
    writer.drive(cell, "Z", f"{writer.pin(cell, 'SD')} ? {one} : {zero}")


def _carry(writer: Writer, _: str, cell: Cell) -> None:
    """Two bits of a carry chain."""
    carry = writer.pin(cell, "CIN")
    for half in "01":
        pins = [writer.pin(cell, f"{pin}{half}") for pin in "ABCD"]
        table = number(cell["parameters"][f"INIT{half}"])
        inject = str(cell["parameters"][f"INJECT1_{half}"]).strip() == "YES"
        whole, pair = lut(table, pins), lut(table & 15, pins[:2])
        writer.drive(cell, f"S{half}", whole if inject else f"({whole} ^ {carry})")
        if inject:
            pair = "1'b0"
        carry = f"({whole} ? {carry} : {pair})"
    writer.drive(cell, "COUT", carry)


def _distributed(writer: Writer, _: str, cell: Cell) -> None:
    """16 words of 4 bits, with a port to write and one to read."""
    memory = f"m{len(writer.lines)}"
    nets = {
        pin: ", ".join(writer.net(bit) for bit in reversed(cell["connections"][pin]))
        for pin in ("RAD", "WAD", "DI")
    }
    start = number(cell["parameters"].get("INITVAL", 0))
    clock, enable = writer.pin(cell, "WCK"), writer.pin(cell, "WRE")
    writer.lines += [
        f"  reg [3:0] {memory} [0:15];",
        f"  integer i{memory};",
        f"  initial for (i{memory} = 0; i{memory} < 16; i{memory} = i{memory} + 1) "
        f"{memory}[i{memory}] = 64'd{start} >> 4 * i{memory};",
        f"  always @(posedge {clock}) if ({enable}) "
        f"{memory}[{{{nets['WAD']}}}] <= {{{nets['DI']}}};",
        f"  wire [3:0] r{memory} = {memory}[{{{nets['RAD']}}}];",
    ]
    for index, bit in enumerate(cell["connections"]["DO"]):
        writer.assign(bit, f"r{memory}[{index}]")


SYNTHESISED: dict[str, Handler | None] = {
    "LUT4": _table,
    "PFUMX": _two_tables,
    "L6MUX21": _four_tables,
    "CCU2C": _carry,
    "TRELLIS_DPR16X4": _distributed,
}
