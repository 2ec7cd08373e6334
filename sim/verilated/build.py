"""Verilog to a program or shared library, without make or perl, kept by content."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ...files import cache_dir, locked, prune
from .toolchain import (
    BuildError,
    Compiler,
    ccache,
    cpu_id,
    find_compiler,
    package_version,
    verilator_binary,
    verilator_root,
)

__all__ = ["Built", "Progress", "Recipe", "build"]

Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done, 0 to 1."""

JOBS = 2
"""Compilers that run at a time."""

UNIT_BYTES = 200_000
"""Size up to which the C++ files that Verilator writes are compiled together."""

HEADER_BYTES = 50_000
"""What reading the headers costs, in bytes of ordinary code; for the progress report."""

KEEP_DAYS = 30
"""Days after which a build that nobody used is removed."""

RUN_S = 2 * 3600.0
"""The longest time in which Verilator, or one compiler, does its work."""

WARNINGS = (
    # What yosys writes causes these, and none of them is a fault. UNOPTFLAT is left on: it means a
    # combinational loop. Verilator stops on any warning that is not listed.
    "CASEINCOMPLETE",
    "CASEOVERLAP",
    "WIDTHEXPAND",
    "WIDTHTRUNC",
    "UNSIGNED",
    "CMPCONST",
    "ASCRANGE",
    "ALWNEVER",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the bytes of a build, other than the tools.

    Parameters
    ----------
    kind : str
        Folder in the cache.
    top : str
        Name of the top module.
    verilog : str
        The design.
    verilator_args : tuple[str, ...]
        Further options of Verilator. The C++ class is called ``Vtop``.
    sources : tuple[tuple[str, str], ...]
        Further C++ files: name and text.
    runtime : tuple[str, ...]
        Files of Verilator's runtime, without ``.cpp``.
    defines : tuple[str, ...]
        Macros of the C++ preprocessor: ``NAME=value``.
    vector_sources : tuple[tuple[str, str], ...]
        Further C++ files that work on vectors.
    fast, slow, vector : tuple[str, ...]
        C++ options for code that runs every cycle, for code that runs once, and for
        ``vector_sources``.
    link_args : tuple[str, ...]
        Further options of the linker.
    output : str
        Name of the result. One that ends in ``.so`` is linked as a shared library.
    """

    kind: str
    top: str
    verilog: str
    verilator_args: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    runtime: tuple[str, ...] = ("verilated", "verilated_threads")
    defines: tuple[str, ...] = ()
    vector_sources: tuple[tuple[str, str], ...] = ()
    fast: tuple[str, ...] = ("-O2",)
    slow: tuple[str, ...] = ("-O0",)
    vector: tuple[str, ...] = ()
    link_args: tuple[str, ...] = ()
    output: str = "model.so"


@dataclasses.dataclass(frozen=True)
class Built:
    """Result of `build`: the file, and whether this call made it."""

    path: Path
    fresh: bool


def _ignore(phase: str, fraction: float) -> None:
    pass


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _run(command: Sequence[str], cwd: Path, what: str, **env: str) -> None:
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=RUN_S,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(
            f"{what} in {cwd} did not end within {RUN_S:g} s and was stopped; next: try again "
            "on a computer with less to do, or with another compiler (CXX)"
        ) from None
    if result.returncode:
        text = result.stdout.strip()
        marks = ("%Error", "%Warning", "error:", "undefined")
        lines = [line for line in text.splitlines() if any(mark in line for mark in marks)]
        cause = (lines or text.splitlines() or [f"exit code {result.returncode}"])[0]
        raise BuildError(f"{what} failed in {cwd}: {cause.strip()}", text)


class _Cxx:
    """Compiles and links with one compiler and one set of options."""

    def __init__(self, recipe: Recipe, compiler: Compiler) -> None:
        self.recipe = recipe
        self.compiler = compiler
        # NDEBUG: the runtime's own asserts make clang want libatomic.
        self.common = ["-std=c++20", "-fPIC", "-w", "-DNDEBUG"]
        self.common += [f"-D{define}" for define in recipe.defines]
        if recipe.output.endswith(".so"):
            self.common.append("-fvisibility=hidden")
        if compiler.is_zig:
            self.common.append("-fno-sanitize=all")
        cache = ccache()
        self.prefix = [cache] if cache and not compiler.is_zig else []

    def identity(self, flags: Sequence[str]) -> list[str]:
        cpu = cpu_id() if "-march=native" in flags or self.compiler.is_zig else ""
        return [self.compiler.identifier, cpu, package_version("verilator"), *self.common]

    def compile(self, source: str, target: Path, flags: Sequence[str], cwd: Path) -> None:
        include = verilator_root() / "include"
        command = [*self.prefix, *self.compiler.command, *self.common, *flags, "-I."]
        command += [f"-I{include}", f"-I{include / 'vltstd'}", "-c", source, "-o", str(target)]
        _run(command, cwd, f"compiling {Path(source).name}")

    def link(self, objects: Sequence[Path], cwd: Path) -> None:
        shared = ["-shared"] if self.recipe.output.endswith(".so") else []
        if self.compiler.is_zig:
            shared.append("-fno-sanitize=all")
        command = [*self.compiler.command, *shared, "-o", self.recipe.output]
        command += [*map(str, objects), *self.recipe.link_args, "-lpthread"]
        _run(command, cwd, "linking")

    def runtime(self) -> list[tuple[str, Path]]:
        """Return source and shared object file of each part of Verilator's runtime."""
        folder = cache_dir() / "runtime" / _key(self.identity(self.recipe.fast))[:16]
        result = []
        for name in self.recipe.runtime:
            source = verilator_root() / "include" / f"{name}.cpp"
            key = _key(name, self.recipe.fast)[:8]
            result.append((str(source), folder / f"{name}-{key}.o"))
        return result


def _verilate(recipe: Recipe, folder: Path) -> None:
    (folder / "design.v").write_text(recipe.verilog)
    command = [str(verilator_binary()), "--cc", "--Mdir", ".", "--prefix", "Vtop"]
    command += ["--top-module", recipe.top, *(f"-Wno-{name}" for name in WARNINGS)]
    command += [*recipe.verilator_args, "design.v"]
    _run(command, folder, "Verilator", VERILATOR_ROOT=str(verilator_root()))
    for name, text in (*recipe.sources, *recipe.vector_sources):
        (folder / name).write_text(text)


def _group(folder: Path, vector: Collection[str]) -> dict[str, list[Path]]:
    """Share out the C++ files to units of compilation, named by their kind of options.

    Each file reads the same long headers, so small files are compiled together.
    """
    groups: dict[str, list[Path]] = {}
    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.cpp")):
        once = "__Slow" in path.name or "__Syms" in path.name
        kind = "vector" if path.name in vector else "slow" if once else "fast"
        size = path.stat().st_size
        number = 0
        while sizes.get(name := f"{kind}{number}", 0) and sizes[name] + size > UNIT_BYTES:
            number += 1
        sizes[name] = sizes.get(name, 0) + size
        groups.setdefault(name, []).append(path)
    return groups


def _compile(cxx: _Cxx, folder: Path, progress: Progress) -> None:
    recipe = cxx.recipe
    jobs: list[tuple[int, str, Path, Sequence[str]]] = []
    objects: list[Path] = []
    vector = {name for name, _ in recipe.vector_sources}
    flags_of = {"fast": recipe.fast, "slow": recipe.slow, "vector": recipe.vector}
    for name, paths in _group(folder, vector).items():
        unit = folder / f"unit_{name}.cc"
        unit.write_text("".join(f'#include "{path.name}"\n' for path in paths))
        target = folder / f"{name}.o"
        size = HEADER_BYTES + sum(path.stat().st_size for path in paths)
        jobs.append((size, unit.name, target, flags_of[name.rstrip("0123456789")]))
        objects.append(target)
    for source, target in cxx.runtime():
        objects.append(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(target.parent)  # it is in use: `prune`
        if not target.exists():
            # Another build may make the same object: each writes its own and renames it.
            partial = target.with_name(f"{target.name}.{os.getpid()}.o")
            jobs.append((Path(source).stat().st_size, source, partial, recipe.fast))
    total = sum(job[0] for job in jobs)
    done = 0

    def work(job: tuple[int, str, Path, Sequence[str]]) -> int:
        size, source, target, flags = job
        cxx.compile(source, target, flags, folder)
        if target.parent != folder:
            target.replace(target.with_name(target.name.split(".o.")[0] + ".o"))
        return size

    progress("compile", 0.0)
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        # The longest first, so that the two finish together.
        futures = [pool.submit(work, job) for job in sorted(jobs, key=lambda job: -job[0])]
        try:
            for future in concurrent.futures.as_completed(futures):
                done += future.result()
                progress("compile", done / total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    progress("link", 0.0)
    cxx.link(objects, folder)
    progress("link", 1.0)
    for target in objects:
        if target.parent == folder:
            target.unlink()


def build(recipe: Recipe, *, progress: Progress | None = None) -> Built:
    """Build ``recipe``, or return the result of an earlier build of the same.

    Builds of the same recipe in several processes wait for each other. A folder counts as built
    only with its stamp, which is written last.

    Raises
    ------
    ToolError
        If a tool is missing (`CompilerMissingError`) or refuses its input (`BuildError`).
    """
    progress = progress or _ignore
    cxx = _Cxx(recipe, find_compiler())
    key = _key(
        dataclasses.asdict(recipe),
        WARNINGS,
        cxx.identity((*recipe.fast, *recipe.slow, *recipe.vector)),
    )
    folder = cache_dir() / recipe.kind / f"{recipe.top}-{key[:16]}"
    result = folder / recipe.output
    stamp = folder / "stamp"
    if stamp.exists():
        os.utime(stamp)
        return Built(result, False)
    with locked(folder.with_suffix(".lock"), progress):
        if stamp.exists():
            return Built(result, False)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        progress("verilate", 0.0)
        _verilate(recipe, folder)
        progress("verilate", 1.0)
        _compile(cxx, folder, progress)
        stamp.touch()
    prune(folder.parent, KEEP_DAYS, stamp="stamp")
    prune(cache_dir() / "runtime", KEEP_DAYS)
    return Built(result, True)
