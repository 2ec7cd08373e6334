"""Gowin's GW5A, with Project Apicula: nextpnr-himbaechel-gowin and gowin_pack.

The database of these tools has no PLL of the GW5AST-138C, so a card's clock is its oscillator's,
or divided from it; and no delays of multipliers, so that all paths at these are missing from the
clock that place and route reports.
"""

import collections
import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...rtl.tech.gw5a import A_BITS, B_BITS, UNUSED, parameters
from ..divider import Divider, DividerSetting, divider_setting
from . import gowin_places
from .base import BoardError, Device, Family, Resources, link_script, synthesis_script

if TYPE_CHECKING:
    from ..board import Board

__all__ = ["DEVICES", "GOWIN"]

DEVICES = {"GW5AST-LV138": ("GW5AST-138C", Device(138_240, 138_240, 298, 340))}
"""By the beginning of the part's name: what the tools call it, and what it holds."""

RAM16_LUTS = 6
"""What 16 x 4 bits of RAM take of the look-up tables around them."""


def _multiplier() -> str:
    """Return how yosys makes a multiplier without registers, which it does not do by itself."""
    settings = ", ".join(
        f'.{name}("{value}")' if isinstance(value, str) else f".{name}({len(value)}'d{value.value})"
        for name, value in parameters().items()
    )
    unused = ", ".join(f".{name}({width}'d0)" for name, width in UNUSED.items())
    return f"""module \\$__MUL27X18 (input [{A_BITS - 1}:0] A, input [{B_BITS - 1}:0] B,
    output [{A_BITS + B_BITS - 1}:0] Y);
    parameter A_SIGNED = 0;
    parameter B_SIGNED = 0;
    parameter A_WIDTH = 0;
    parameter B_WIDTH = 0;
    parameter Y_WIDTH = 0;
    wire [47:0] p;
    MULTALU27X18 #({settings}) _TECHMAP_REPLACE_ (
        {unused}, .CLK(2'd0), .CE(2'd0), .RESET(2'd0), .A(A), .B(B), .DOUT(p));
    assign Y = p;
endmodule
"""


FILES = {"multiplier.v": _multiplier()}

_BLOCK_RAM = ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B", "pROM", "pROMX9")
_RESET = ("", "S", "R", "P", "C")

KINDS = {
    **{f"LUT{inputs}": "LUT" for inputs in range(1, 5)},
    **{f"MUX2_LUT{inputs}": "multiplexer" for inputs in range(5, 9)},
    **{f"RAM16SDP{width}": "LUT RAM" for width in (1, 2, 4)},
    **{f"DFF{reset}{enable}": "register" for reset in _RESET for enable in ("", "E")},
    **dict.fromkeys(_BLOCK_RAM, "block RAM"),
    "ALU": "carry cell",
    "MULTALU27X18": "multiplier",
}


class Gowin(Family):
    """The family; see `Family`."""

    prefix = "GW5A"
    technology = "gw5a"
    route_tool = "nextpnr-himbaechel-gowin"
    pack_tool = "gowin_pack"
    versions = ("nextpnr-himbaechel-gowin", "gowin_pack")
    constraints = "cst"
    suffix = ".fs"
    synthesis = synthesis_script(
        "synth_gowin -family gw5a -noiopads",
        # The multiplier is signed: what is not gets one bit less of it.
        f"techmap -map +/mul2dsp.v -D DSP_A_MAXWIDTH={A_BITS} -D DSP_B_MAXWIDTH={B_BITS} "
        "-D DSP_A_MINWIDTH=2 -D DSP_B_MINWIDTH=2 -D DSP_SIGNEDONLY -D DSP_NAME=$__MUL27X18",
        "techmap -map multiplier.v",
    )
    # The names of cells stay those of their blocks: no autoname.
    link = link_script(
        "synth_gowin -family gw5a -noiopads",
        "techmap -map +/gowin/cells_map.v",
        "opt_lut_ins -tech gowin",
        "setundef -undriven -params -zero",
        "hilomap -singleton -hicell VCC V -locell GND G",
    )
    files = FILES
    kinds = KINDS

    def _device(self, device: str) -> tuple[str, Device]:
        for prefix, found in DEVICES.items():
            if device.startswith(prefix):
                return found
        raise BoardError(f"no device {device!r} is known in boards/families/gowin.py")

    def capacity(self, device: str) -> Device:
        return self._device(device)[1]

    def count(self, cells: Mapping[str, int]) -> Resources:
        found: collections.Counter[str] = collections.Counter()
        for name, number in cells.items():
            found[KINDS.get(name, "")] += number
        # The multiplexers are beside the look-up tables, and take none.
        luts = found["LUT"] + found["carry cell"] + RAM16_LUTS * found["LUT RAM"]
        return Resources(luts, found["register"], found["multiplier"], found["block RAM"])

    def places(self, device: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        return gowin_places.places(
            name for name, cell in cells.items() if KINDS.get(cell["type"]) == "block RAM"
        )

    def platform(self, base: Any) -> dict[str, Any]:
        wanted = ("{{name}}.il", "{{name}}.cst")
        templates = base._apicula_file_templates
        return {
            "file_templates": {name: templates[name] for name in wanted},
            # It knows no part of this series, and nothing here asks it for one.
            "parse_part": lambda self: None,
        }

    def clock(self, oscillator_hz: int, hz: float) -> DividerSetting:
        return divider_setting(oscillator_hz, hz)

    def make_clock(self, setting: DividerSetting) -> Divider:
        return Divider(setting)

    def route(self, board: "Board", package: str, clock_hz: int, seed: int) -> list[str]:
        return [
            *("--device", f"{board.device}{board.speed}", "--seed", str(seed)),
            *("--freq", f"{clock_hz / 1e6:g}", "--timing-allow-fail"),
            *("--json", "in.json", "--vopt", "cst=in.cst", "--write", "routed.json"),
            # Not in detail: that counts the way of the clock to a path's start too.
            *("--report", "report.json"),
        ]

    def pack(
        self,
        board: "Board",
        run: Callable[[Sequence[str]], object],
        placed: Path,
        folder: Path,
        *,
        build_hash: int,
        about: str,
    ) -> bytes:
        routed = gzip.decompress((placed / "routed.json.gz").read_bytes())
        (folder / "routed.json").write_bytes(routed)
        name = self._device(board.device)[0]
        run([*board.pack, "--device", name, "--output", "out.fs", "routed.json"])
        # What the device calls user code is the checksum, which openFPGALoader compares.
        return f"//Build: {about}\n".encode() + (folder / "out.fs").read_bytes()


GOWIN = Gowin()
