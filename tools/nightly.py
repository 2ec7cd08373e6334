"""Long campaigns, one after the other: ``make nightly``.

The testbenches and random jobs on whole cards with many seeds, GEMMs of random shapes on every
preset and format, and the workloads on every preset, all on the Verilated RTL and all compared bit
for bit. Goes on after a failure, repeats the failed commands at the end, and then exits with 1.
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
PRESETS = ("tiny", "ecp5", "sim")
DENSITIES = (None, 1.0, 0.5, 0.1, 0.02)


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


def gemms(seeds: list[int], shapes: int) -> Iterator[tuple[dict[str, str], list[str]]]:
    """GEMMs of random shapes: small odd ones, and some of several tiles."""
    for seed in seeds:
        chosen = random.Random(seed)
        for preset in PRESETS:
            for _ in range(shapes):
                large = chosen.random() < 0.25
                m, n = (chosen.randint(1, 300 if large else 40) for _ in range(2))
                k = chosen.randint(1, 1024 if large else 100)
                density = chosen.choice(DENSITIES)
                command = ["bench", "gemm", "--json", "--backend", "rtl", "--preset", preset]
                command += ["--m", str(m), "--n", str(n), "--k", str(k), "--seed", str(seed)]
                command += ["--dtype", chosen.choice(("int8", "fp16"))]
                command += ["--memory", chosen.choice(("hbm", "ideal"))]
                if density is not None:
                    command += ["--density", str(density)]
                yield {}, ["-m", "deepseek.host", *command]


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the long campaigns.")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--shapes", type=int, default=20, help="GEMMs a seed and preset")
    options = parser.parse_args()

    failed: list[str] = []
    begin = time.monotonic()
    campaign = [
        *workloads(),
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
