"""ECP5, with Project Trellis: nextpnr-ecp5 and ecppack."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..flow.timing import Arcs
from ..pll import Pll, PllSetting, pll_setting
from . import ecp5_delays, ecp5_places
from .base import Device, Family, Resources, link_script, synthesis_script

if TYPE_CHECKING:
    from ..board import Board

__all__ = ["DEVICES", "ECP5"]

DEVICES = {
    "25F": Device(24_288, 24_288, 28, 56),
    "45F": Device(43_848, 43_848, 72, 108),
    "85F": Device(83_640, 83_640, 156, 208),
}
"""By the end of the device's name. A carry cell is two of its combinational cells, and so are
16 x 4 bits of RAM."""

TYPES = {"LFE5U-": "", "LFE5UM-": "um-", "LFE5UM5G-": "um5g-"}

KINDS = {
    "LUT4": "LUT",
    "PFUMX": "LUT",
    "L6MUX21": "LUT",
    "CCU2C": "carry cell",
    "MULT18X18D": "multiplier",
    "DP16KD": "block RAM",
    "TRELLIS_DPR16X4": "LUT RAM",
    "TRELLIS_FF": "register",
    "DCCA": "clock buffer",
}

SYNTHESIS = synthesis_script(
    "synth_lattice -family ecp5",
    "techmap -map +/mul2dsp.v -D DSP_A_MAXWIDTH=18 -D DSP_B_MAXWIDTH=18 "
    "-D DSP_A_MINWIDTH=2 -D DSP_B_MINWIDTH=2 -D DSP_NAME=$__MUL18X18",
    "techmap -map +/lattice/dsp_map_18x18.v",
)

LINK = link_script(
    "synth_lattice -family ecp5", "synth_lattice -family ecp5 -top TOP -run map_cells:check"
)


class Ecp5(Family):
    """The family; see `Family`."""

    prefix = "LFE5"
    technology = "ecp5"
    route_tool = "nextpnr-ecp5"
    pack_tool = "ecppack"
    versions = ("nextpnr-ecp5",)
    constraints = "lpf"
    synthesis = SYNTHESIS
    link = LINK
    kinds = KINDS
    # Of a whole card the second one makes wires half as long again, in twice the time. The first
    # one may shift the few block RAMs of a small design for ever.
    placers = ("static", "heap")

    def capacity(self, device: str) -> Device:
        return DEVICES[device[-3:]]

    def count(self, cells: Mapping[str, int]) -> Resources:
        # A RAM of 16 x 4 bits takes four, and the two beside them that its write port is made of.
        comb = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
        return Resources(
            comb=sum(size * cells.get(name, 0) for name, size in comb.items()),
            ff=cells.get("TRELLIS_FF", 0),
            dsp=cells.get("MULT18X18D", 0),
            ebr=cells.get("DP16KD", 0),
        )

    def arcs(self, cell: Mapping[str, Any]) -> Arcs:
        return ecp5_delays.arcs(cell)

    def places(self, device: str, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        return ecp5_places.places(cells) if device[-3:] == "85F" else {}

    def platform(self, base: Any) -> dict[str, Any]:
        wanted = ("{{name}}.il", "{{name}}.lpf")
        templates = base._trellis_file_templates
        return {"file_templates": {name: templates[name] for name in wanted}}

    def package(self, platform: Any) -> str:
        return platform._nextpnr_package_options[platform.package].upper()

    def clock(self, oscillator_hz: int, hz: float) -> PllSetting:
        return pll_setting(oscillator_hz, hz)

    def make_clock(self, setting: PllSetting) -> Pll:
        return Pll(setting)

    def route(self, board: "Board", package: str, clock_hz: int, seed: int) -> list[str]:
        family, size = re.fullmatch(r"(LFE5\w*-)(\d+)F", board.device).groups()  # type: ignore[union-attr]
        return [
            f"--{TYPES[family]}{size}k",
            *("--package", package, "--speed", board.speed, "--seed", str(seed)),
            *("--freq", f"{clock_hz / 1e6:g}", "--timing-allow-fail"),
            *("--router", "router2"),
            *("--json", "in.json", "--lpf", "in.lpf", "--textcfg", "out.config"),
            *("--report", "report.json", "--detailed-timing-report", "--write", "routed.json"),
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
        first, rest = (placed / "out.config").read_text().split("\n", 1)
        (folder / "in.config").write_text(f"{first}\n.comment Build: {about}\n{rest}")
        usercode = str(build_hash & 0xFFFFFFFF)
        run([*board.pack, "--usercode", usercode, "--input", "in.config", "--bit", "out.bit"])
        return (folder / "out.bit").read_bytes()


ECP5 = Ecp5()
