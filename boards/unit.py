"""Area and clock of one unit of the card, alone.

    python -m deepseek.boards.unit array.pe:PE --preset tiny --clock

synthesises the component of ``rtl/array/pe.py``, with all that is in it, and prints what it takes
of an ECP5, and an estimate of its clock with wires as long as in a whole card. With ``--paths N``
the longest paths between its parts follow. With ``--clock`` it is placed and routed too, with
nothing around it: the card, in which wires are longer, will be slower.
"""

import argparse
import gzip
import importlib
import inspect
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..rtl.config import CardConfig, preset
from .board import BoardError
from .families import ECP5
from .flow.convert import convert_unit
from .flow.netlist import split
from .flow.report import estimates
from .flow.synthesis import Resources, link, synthesise
from .flow.tools import Processes

__all__ = ["measure"]


def _component(name: str, config: CardConfig) -> Any:
    """Make the component ``module:Class`` of the RTL; of its parameters it gets the config."""
    module, _, kind = name.partition(":")
    try:
        found = getattr(importlib.import_module(f"..rtl.{module}", __package__), kind)
    except (ImportError, AttributeError):
        raise BoardError(f"no component {name!r} in rtl; name it as in array.pe:PE") from None
    return found(config) if "config" in inspect.signature(found).parameters else found()


def measure(
    name: str, config: CardConfig, *, paths: int = 0, clock: bool = False, seed: int = 1
) -> dict[str, Any]:
    """Return what a component takes, and with ``clock`` the MHz it reaches on grade 6.

    Parameters
    ----------
    name : str
        Module in ``rtl`` and class: ``array.pe:PE``.
    paths : int
        So many lines on the longest paths.

    Raises
    ------
    BoardError
        If there is no such component, or a tool is missing or fails.
    """
    component = _component(name, config)
    design = split(convert_unit(component, SimpleNamespace(technology=ECP5.technology)).texts)
    netlists = synthesise(design)
    own = (netlists[block].own for block in design.instances().values())
    comb, ff, dsp, ebr = sum(own, Resources()).tuple
    found: dict[str, Any] = {
        "unit": name,
        "preset": config.name,
        **{"comb": comb, "ff": ff, "dsp": dsp, "ebr": ebr},
    }
    path, linked = link(design, netlists)
    estimated, lines = estimates(linked, design, ECP5)
    found["estimated_mhz"] = round(estimated[0].mhz, 1) if estimated else None
    if paths:
        found["paths"] = lines[:paths]
    if clock:
        with tempfile.TemporaryDirectory(prefix="unit-") as scratch, Processes() as processes:
            folder = Path(scratch)
            (folder / "in.json").write_bytes(gzip.decompress(path.read_bytes()))
            options = ["--85k", "--speed", "6", "--package", "CABGA381", "--out-of-context"]
            options += ["--freq", "200", "--timing-allow-fail", "--seed", str(seed)]
            options += ["--json", "in.json", "--report", "report.json"]
            processes.run("nextpnr-ecp5", options, folder)
            report = json.loads((folder / "report.json").read_text())
        found["mhz"] = round(min(entry["achieved"] for entry in report["fmax"].values()), 1)
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m deepseek.boards.unit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("unit", nargs="+", help="module in rtl and class, as array.pe:PE")
    parser.add_argument("--preset", default="tiny", help="sizes (default: tiny)")
    parser.add_argument("--paths", type=int, default=0, metavar="N", help="the N longest ones, too")
    parser.add_argument("--clock", action="store_true", help="place and route, too (minutes)")
    parser.add_argument("--seed", type=int, default=1, help="of place and route")
    chosen = parser.parse_args()
    try:
        for unit in chosen.unit:
            options = {"paths": chosen.paths, "clock": chosen.clock, "seed": chosen.seed}
            found = measure(unit, preset(chosen.preset), **options)
            lines = found.pop("paths", ())
            print(json.dumps(found), *lines, sep="\n", flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
