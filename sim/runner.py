"""Runs cocotb testbenches on Verilated components, from ordinary pytest files."""

import dataclasses
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from amaranth.lib import wiring

from ..files import cache_dir, prune
from ..rtl.config import CardConfig
from .verilated.build import Recipe, build
from .verilated.convert import to_verilog
from .verilated.toolchain import ToolError

__all__ = ["DEFAULT_SEED", "build_bench", "run_bench"]

DEFAULT_SEED = 1

KEEP_DAYS = 3
"""Days for which the folders of failed runs, and waves, are kept."""


def build_bench(design: wiring.Component | str, name: str, *, waves: bool = False) -> Path:
    """Return the simulator program for ``design``, built unless it is in the cache: a component, or
    Verilog with the top module ``name``.

    Only the ports of the top are visible to a bench; waves show everything.
    """
    try:
        from cocotb_tools import config
    except ImportError:
        raise ToolError("cocotb is not installed: pip install 'deepseek-card[test]'") from None

    libs = config.libs_dir
    main = config.share_dir / "lib" / "verilator" / "verilator.cpp"
    trace = int(waves)
    args = [
        "--vpi",
        "--public-flat-rw",
        "--no-public-flat-rw",
        "--public-depth",
        "1",
        "--no-timing",
    ]
    args += ["-O3", "--x-assign", "fast", "--timescale", "1ns/1ps"]
    args += ["--trace-vcd"] if waves else []
    runtime = ["verilated", "verilated_threads", "verilated_vpi"]
    runtime += ["verilated_vcd_c"] if waves else []
    recipe = Recipe(
        kind="bench",
        top=name,
        verilog=design if isinstance(design, str) else to_verilog(design, name),
        verilator_args=tuple(args),
        sources=(("bench_main.cpp", main.read_text()),),
        runtime=tuple(runtime),
        defines=(
            *("VM_COVERAGE=0", "VM_SC=0", "VM_TIMING=0"),
            *(f"VM_TRACE={trace}", f"VM_TRACE_VCD={trace}", "VM_TRACE_FST=0", "VM_TRACE_SAIF=0"),
        ),
        fast=("-O1",),
        link_args=(f"-L{libs}", f"-Wl,-rpath,{libs}", "-lcocotbvpi_verilator", "-lgpi"),
        output="bench",
    )
    return build(recipe).path


def _repeat_command(module: str, seed: int) -> str:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    return f"SEED={seed} pytest {shlex.quote(test) if test else '-k ' + module.split('.')[-1]}"


def run_bench(
    design: wiring.Component | str,
    module: str,
    *,
    preset: str | CardConfig | None = None,
    seed: int | None = None,
    testcase: str | Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    name: str | None = None,
    waves: bool | None = None,
) -> int:
    """Build ``design``, run the tests of a bench on it, and fail unless all of them pass.

    Parameters
    ----------
    design : Component or str
        The top. Its ports are named as `to_verilog` says. Or Verilog, such as a netlist's, with
        ports of these names.
    module : str
        Import name of the bench, for example ``"deepseek.sim.benches.store"``.
    preset : str or CardConfig, optional
        What ``bench_config()`` returns inside the bench.
    seed : int, optional
        Seed of cocotb, from which each test's own follows. Default: ``$SEED``, or 1.
    testcase : str or list of str, optional
        Run only these tests.
    env : mapping, optional
        Further environment variables of the bench.
    name : str, optional
        Name of the top module; default is the name of the component's class. Verilog needs it.
    waves : bool, optional
        Keep a ``dump.vcd``; default is whether ``$WAVES`` is set to other than 0.

    Returns
    -------
    int
        How many tests passed.

    Raises
    ------
    AssertionError
        If a test fails, if there is none, or if the simulator ends early.
    ToolError
        If a tool is missing or refuses the design.
    """
    if isinstance(design, str) and name is None:
        raise ValueError("name must say which module of the Verilog is the top")
    name = name or type(design).__name__
    if waves is None:
        waves = os.environ.get("WAVES", "0") not in ("", "0")
    if seed is None:
        seed = int(os.environ.get("SEED", DEFAULT_SEED))
    program = build_bench(design, name, waves=waves)

    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    variables = dict(env or {})
    if isinstance(preset, CardConfig):
        variables["CARD_PRESET"] = json.dumps(dataclasses.asdict(preset))
    elif preset is not None:
        variables["CARD_PRESET"] = preset
    runs = cache_dir() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    prune(runs, KEEP_DAYS)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=runs))
    results = folder / "results.xml"
    repeat = _repeat_command(module, seed)
    print(f"repeat with: {repeat}", flush=True)
    try:
        get_runner("verilator").test(
            test_module=module,
            hdl_toplevel=name,
            hdl_toplevel_lang="verilog",
            testcase=testcase,
            seed=seed,
            extra_env=variables,
            waves=waves,
            build_dir=_program_as(program, folder, name),
            test_dir=folder,
            results_xml=str(results),
        )
    except (SystemExit, RuntimeError) as error:
        # The runner leaves in several ways; what counts is in the file of results.
        ending = f" (simulator: {error})" if str(error) else ""
    else:
        ending = ""
    if not results.is_file():
        raise AssertionError(f"{module} ended without results{ending}; {repeat}; see {folder}")
    tests, failed = get_results(results)
    if tests == 0:
        raise AssertionError(f"{module} ran no test{ending}; {repeat}; see {folder}")
    if failed or ending:
        names = ", ".join(_failed_tests(results))
        raise AssertionError(
            f"{module}: {failed} of {tests} tests failed ({names}){ending}; {repeat}; see {folder}"
        )
    if waves:
        print(f"waves: {folder / 'dump.vcd'}", flush=True)
    else:
        shutil.rmtree(folder)
    return tests


def _failed_tests(results: Path) -> list[str]:
    cases = ElementTree.parse(results).getroot().iter("testcase")
    bad = [case for case in cases if any(child.tag in ("failure", "error") for child in case)]
    return [case.get("name", "?") for case in bad]


def _program_as(program: Path, folder: Path, name: str) -> Path:
    """Give the program the name of the top, as cocotb's runner expects, in a folder of its own."""
    link = folder / "build" / name
    link.parent.mkdir()
    link.symlink_to(program)
    return link.parent
