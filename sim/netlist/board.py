"""A board's netlist as a design that `VirtualBoard` runs: its pins, and no more."""

import dataclasses
import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from ...files import cache_dir, prune, write_whole
from ...rtl.memory.sdram_timing import SdramTiming
from ..verilated.build import KEEP_DAYS, Progress
from ..verilated.design import Design, Port
from .ecp5 import LOCK_CYCLES
from .ecp5 import to_verilog as ecp5_verilog
from .writer import NetlistError, plain

__all__ = ["BoardPins", "models", "netlist_design"]

_MODELS = Path(__file__).parents[1] / "cells" / "ecp5"
_CHIP_MODEL = _MODELS.parent / "sdram.v"
_PORTS = (
    Port("rx", True, 1, False),
    *(Port(name, False, 1, False) for name in ("tx", "busy")),
    Port("fault", False, 8, False),
)
_SETTLED = 4 * LOCK_CYCLES
_AGAIN = "next: build it again, with: deepseek-host build --netlist"

# The lamp may be lit by a low level: what it shows at power-up, when no job runs, is dark.
_TOP = """/* verilator lint_off PINMISSING */
module board(clk, rx, tx, busy, fault);
  input clk, rx;
  output tx, busy;
  output [7:0] fault;
  reg [7:0] age = 0;
  reg dark = 0;
  {lamp}
  always @(posedge clk) if (age != 8'd{settled}) begin
    age <= age + 8'd1;
    dark <= lamp;
  end
  assign busy = age != 8'd{settled} || lamp != dark;
  {chip}
  netlist netlist ({connections});
endmodule
"""

_CHIP = """wire chip_clk, cke, cs_n, ras_n, cas_n, we_n;
  wire [1:0] bank, dqm;
  wire [12:0] address;
  wire [15:0] dq_i, dq_o, dq_oe;
  sdram #({parameters}) chip (
    .clk(chip_clk), .cke(cke), .cs_n(cs_n), .ras_n(ras_n), .cas_n(cas_n), .we_n(we_n),
    .bank(bank), .address(address), .dqm(dqm),
    .dq_i(dq_o), .dq_driven(|dq_oe), .dq_o(dq_i), .dq_oe(), .fault(fault));
"""
_CHIP_PINS = {
    **{"clk": "chip_clk", "clk_en": "cke", "cs": "cs_n", "ras": "ras_n", "cas": "cas_n"},
    **{"we": "we_n", "ba": "bank", "a": "address", "dqm": "dqm", "dq": "dq_i"},
}
"""Wires of the chip by the names that the board's resource has for its pins."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoardPins:
    """Names of a board's ports in its netlist.

    Parameters
    ----------
    clock, rx, tx : str
        Oscillator and serial line.
    running : str or None
        The LED of a job that runs; without one the board counts as busy all the time.
    sdram : mapping
        Names of the pins of its SDRAM, by what the resource calls them.
    """

    clock: str
    rx: str
    tx: str
    running: str | None
    sdram: Mapping[str, str] = dataclasses.field(default_factory=dict)


def netlist_design(
    path: Path,
    pins: BoardPins,
    *,
    clock_hz: int,
    sdram: SdramTiming | None = None,
    progress: Progress | None = None,
) -> Design:
    """Return a board's netlist as a design with the ports ``rx``, ``tx``, ``busy``, and ``fault``
    of its SDRAM (`Surroundings`).

    A cycle is one of the clock behind the PLL. Kept in the cache by the netlist's content.

    Parameters
    ----------
    path : Path
        JSON of yosys or nextpnr-ecp5 (`ecp5.to_verilog`); may be compressed (``.gz``).
    clock_hz : int
    sdram : SdramTiming, optional
        The chip at the pins.

    Raises
    ------
    NetlistError
        If it cannot be read, holds something without a model, or is not of this board.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for source in sorted([*Path(__file__).parent.glob("*.py"), *_MODELS.glob("*.v")]):
        digest.update(source.read_bytes())
    kept = cache_dir() / "verilog" / f"netlist-{digest.hexdigest()[:16]}.v"
    if kept.exists():
        os.utime(kept)
        netlist = kept.read_text()
    else:
        if progress is not None:
            progress("convert", 0.0)
        netlist = _convert(path, content)
        write_whole(kept, netlist)
        prune(kept.parent, KEEP_DAYS)
        if progress is not None:
            progress("convert", 1.0)
    top, chip = _top(path, netlist, pins, clock_hz, sdram), ""
    if sdram is not None:
        chip = _CHIP_MODEL.read_text()
    return Design("board", f"{top}{netlist}\n{chip}", _PORTS)


def _convert(path: Path, content: bytes) -> str:
    try:
        text = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise NetlistError(f"{path} is damaged ({error}); {_AGAIN}") from None
    try:
        netlist = ecp5_verilog(text, top="netlist")
    except NetlistError as error:
        raise NetlistError(f"{path} cannot be simulated: {error}; {_AGAIN}") from None
    return f"{netlist}\n{models()}"


def models() -> str:
    """Return the Verilog of the cells that netlists are made of."""
    # Ports of a block RAM write the same words.
    texts = [model.read_text() for model in sorted(_MODELS.glob("*.v"))]
    return "\n".join(["/* verilator lint_off MULTIDRIVEN */", *texts])


def _top(
    path: Path, netlist: str, pins: BoardPins, clock_hz: int, sdram: SdramTiming | None
) -> str:
    """Return the module around the netlist."""
    listed = netlist.partition("module netlist(")[2].partition(")")[0].split(", ")
    wires = {pins.clock: "clk", pins.rx: "rx", pins.tx: "tx"}
    if pins.running is not None:
        wires[pins.running] = "lamp"
    chip = "assign fault = 8'd0;"
    if sdram is not None:
        wires |= {pins.sdram[name]: wire for name, wire in _CHIP_PINS.items()}
        parameters = {
            "CLOCK_PS": round(1e12 / clock_hz),
            "ROW_BITS": (sdram.rows - 1).bit_length(),
            "COLUMN_BITS": (sdram.columns - 1).bit_length(),
        }
        given = ", ".join(f".{name}({value})" for name, value in parameters.items())
        chip = _CHIP.format(parameters=given)
    if missing := [pin for pin in wires if plain(pin) not in listed]:
        raise NetlistError(
            f"{path} has no pin {missing[0]}: it is not of this board's card, or of an older "
            f"description of the board; {_AGAIN}"
        )
    connections = ", ".join(f".{plain(pin)}({wire})" for pin, wire in wires.items())
    if sdram is not None:
        data = plain(pins.sdram["dq"])
        connections += f", .{data}__o(dq_o), .{data}__oe(dq_oe)"
    lamp = "wire lamp;" if pins.running is not None else "wire lamp = ~dark;"
    return _TOP.format(settled=_SETTLED, connections=connections, lamp=lamp, chip=chip)
