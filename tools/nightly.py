"""Long campaigns, one after the other: ``make nightly``.

Every pair of FP16 numbers through the PE's multiplier, the testbenches and random jobs on whole
cards with many seeds, GEMMs of random shapes on every preset, format and encoding, and the
workloads on every preset, all on the Verilated RTL and all compared bit for bit; and a network on
a board's netlist after place and route. Goes on after a failure, repeats the failed commands at the
end, and then exits with 1.
"""

import argparse
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("tiny", "wide", "ecp5", "sim")
NETLIST = "build/nightly"
FORMATS = ("int4", "int8", "e4m3", "e5m2", "fp16", "bf16")
ENCODINGS = ("auto", "dense", "delta", "2:4", "1:4", "1:8")
DENSITIES = (1.0, 0.5, 0.1, 0.02)
LONGEST = {"tiny": 1500, "wide": 3000, "ecp5": 3000, "sim": 6000}
"""Dot products up to here fit the scratchpad in every format."""


def products() -> Iterator[tuple[dict[str, str], list[str]]]:
    """All 2^32 pairs of FP16 numbers, and of what else the multiplier takes."""
    yield {}, ["-m", "deepseek.sim.verilated.exhaustive"]


def benches(seeds: list[int]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Every testbench, and long random jobs on whole cards, once a seed."""
    for seed in seeds:
        for tests in (["tests/rtl"], ["tests/card", "--nightly"]):
            yield {"SEED": str(seed)}, ["-m", "pytest", "-q", "-n", "2", *tests]


def workloads() -> Iterator[tuple[dict[str, str], list[str]]]:
    """The whole test set on every preset and memory."""
    for preset in PRESETS:
        for memory in ("hbm", "ideal"):
            command = ["run", "digits", "--preset", preset, "--memory", memory, "--json"]
            yield {}, ["-m", "deepseek.host", *command]


def netlists() -> Iterator[tuple[dict[str, str], list[str]]]:
    """A board's placed and routed netlist behind its serial pins: a digit, through all of the card.

    The clock is low so that a bit takes few cycles to simulate; it changes a divider of the line.
    """
    build = ["build", "--board", "ulx3s", "--freq", "6.25", "--netlist", "--output", NETLIST]
    bitstream = f"{NETLIST}/ulx3s-tiny.bit"
    run = ["run", "digits", "--limit", "1", "--board", "virtual", "--netlist", "--json"]
    for command in (build, [*run, "--bitstream", bitstream]):
        yield {}, ["-m", "deepseek.host", *command]


def gemms(seeds: list[int], shapes: int) -> Iterator[tuple[dict[str, str], list[str]]]:
    """GEMMs of random shapes and formats: small odd ones, some of several tiles, some of long K."""
    for seed in seeds:
        chosen = random.Random(seed)
        for preset in PRESETS:
            for _ in range(shapes):
                yield {}, ["-m", "deepseek.host", *gemm(chosen, preset, seed)]


def gemm(chosen: random.Random, preset: str, seed: int) -> list[str]:
    """The command of one GEMM."""
    kind = chosen.choices(("small", "large", "long"), (70, 20, 10))[0]
    m, n = (chosen.randint(1, 300 if kind == "large" else 40) for _ in range(2))
    k = chosen.randint(1, {"small": 100, "large": 1024, "long": LONGEST[preset]}[kind])
    formats = [chosen.choice(FORMATS) for _ in range(2)] if chosen.random() < 0.3 else []
    if not formats or set(formats) == {"fp16", "bf16"}:
        formats = [chosen.choice(FORMATS)] * 2
    options: dict[str, object] = {"m": m, "n": n, "k": k, "seed": seed, "preset": preset}
    options |= {"dtype": formats[0], "resident-dtype": formats[1]}
    options |= {"out-dtype": chosen.choice((*FORMATS, "fp32"))}
    options |= {"memory": chosen.choice(("hbm", "ideal")), "backend": "rtl"}
    encoding = chosen.choice(ENCODINGS)
    if encoding != "auto":
        options["encoding"] = encoding
    if encoding in ("auto", "delta") and chosen.random() < 0.7:
        options["density"] = chosen.choice(DENSITIES)
    if encoding == "dense" and options["out-dtype"] != "int4":
        options["stream"] = chosen.choice(("a", "b", "auto"))
    if k > 32 and chosen.random() < 0.2:
        options["block-scale"] = 16 * chosen.randint(1, min(k // 16, 40))
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["bench", "gemm", "--json", *words]


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the long campaigns.")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--shapes", type=int, default=20, help="GEMMs a seed and preset")
    options = parser.parse_args()

    failed: list[str] = []
    begin = time.monotonic()
    campaign = [
        *products(),
        *workloads(),
        *netlists(),
        *gemms(options.seeds, options.shapes),
        *benches(options.seeds),
    ]
    for number, (variables, command) in enumerate(campaign, 1):
        shown = " ".join(f"{name}={value}" for name, value in variables.items())
        shown = f"{shown} {shlex.join([sys.executable, *command])}".strip()
        print(f"[{number}/{len(campaign)}] {shown}", flush=True)
        result = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, **variables}, check=False
        )
        if result.returncode:
            failed.append(shown)
    minutes = (time.monotonic() - begin) / 60
    print(f"{len(campaign) - len(failed)} of {len(campaign)} passed in {minutes:.0f} minutes")
    for shown in failed:
        print(f"failed: {shown}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
