"""Imports point one way: rtl <- sim <- host, and boards -> rtl.

Every import of every file is looked at, those inside functions too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TREES = ("rtl", "sim", "host", "boards")

# What each tree may import of the others, most specific folder first.
ALLOWED: dict[str, tuple[str, ...]] = {
    "rtl": (),
    "boards": ("rtl", "files"),
    "sim/golden": (),
    "sim": ("rtl", "files"),
    # A transport is where the driver meets a simulator, or a board.
    "host/transport": ("rtl.config", "rtl.isa", "sim", "boards.board", "boards.manifest"),
    # Figures are printed only of results that equal the golden model's.
    "host/bench": ("rtl.config", "rtl.isa", "sim.golden"),
    "host/workloads": ("rtl.config", "rtl.isa", "sim.golden"),
    # A bitstream comes with a file that says which card it is.
    "host/cli_build.py": ("rtl.config", "rtl.isa", "boards"),
    "host": ("rtl.config", "rtl.isa", "boards.manifest"),
}

# Packages that a folder must do without. Golden models are independent of the RTL's language, and
# the RTL computes nothing with arrays.
BARRED = {"rtl": ("numpy",), "sim/golden": ("amaranth",)}


def imports(path: Path, name: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of everything that a module imports.

    ``from a import b`` yields ``a.b``, since ``b`` may be a module.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def faults(root: Path) -> list[str]:
    """Return one line for each import under ``root`` that points the wrong way."""
    found = []
    for tree in TREES:
        for path in sorted((root / tree).rglob("*.py")):
            place = path.relative_to(root)
            module = place.with_suffix("").parts
            module = module[:-1] if module[-1] == "__init__" else module
            keys = [place.as_posix(), *(parent.as_posix() for parent in place.parents)]
            allowed = next(ALLOWED[key] for key in keys if key in ALLOWED)
            barred = tuple(name for key in keys for name in BARRED.get(key, ()))
            for line, name in imports(path, ".".join(["deepseek", *module])):
                top, _, rest = name.partition(".")
                if top in TREES:
                    found.append(f"{place}:{line}: {name} is called deepseek.{name}")
                elif top == "deepseek":
                    if not within(rest, (tree, *allowed)):
                        found.append(f"{place}:{line}: {tree} imports {rest}")
                    elif tree == "sim" and within(place.parts[1], ("golden",)):
                        if not within(rest, ("sim.golden",)):
                            found.append(f"{place}:{line}: a golden model imports {rest}")
                elif within(name, barred):
                    found.append(f"{place}:{line}: {name} is not for {keys[1]}")
    return found


def test_imports_point_one_way():
    assert faults(ROOT) == []


def test_benches_are_imported_by_nobody():
    """They need cocotb, which the base install lacks."""
    for tree in TREES:
        for path in (ROOT / tree).rglob("*.py"):
            place = path.relative_to(ROOT)
            if place.parts[:2] != ("sim", "benches"):
                module = ".".join(["deepseek", *place.with_suffix("").parts])
                names = [name for _, name in imports(path, module)]
                assert not [name for name in names if within(name, ("deepseek.sim.benches",))]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("rtl/array/pe.py", "from ...sim.golden import exact"),
        ("rtl/array/pe.py", "from ... import host"),
        ("rtl/config.py", "import numpy as np"),
        ("rtl/config.py", "from ..files import cache_dir"),
        ("rtl/config.py", "import rtl.isa"),
        ("sim/golden/exact.py", "from ...rtl.isa import Format"),
        ("sim/golden/exact.py", "from ..functional import card"),
        ("sim/golden/exact.py", "from ...files import cache_dir"),
        ("sim/golden/exact.py", "from amaranth.hdl import Shape"),
        ("sim/runner.py", "from ..host.card import Card"),
        ("host/card.py", "def f():\n    from ..sim.verilated import model"),
        ("host/card.py", "from ..sim.golden import exact"),
        ("host/bench/gemm.py", "from ...sim.functional import card"),
        ("host/card.py", "import deepseek.rtl.card"),
        ("host/transport/rtl.py", "from ...rtl.card import Card"),
        ("boards/ulx3s.py", "from ..host.card import Card"),
    ],
)
def test_wrong_way_is_found(tmp_path, place, line):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("rtl/array/pe.py", "from ..config import CardConfig"),
        ("rtl/array/__init__.py", "from .pe import PE"),
        ("sim/golden/exact.py", "import numpy as np\nfrom .formats import decode_fp16"),
        ("host/bench/golden.py", "from ...sim.golden import exact"),
        ("host/card.py", "from ..rtl import isa"),
        ("host/transport/rtl.py", "from ...sim.verilated.model import Model"),
        ("boards/ulx3s.py", "from ..rtl.card import Card"),
        ("boards/manifest.py", "from ..files import write_whole"),
    ],
)
def test_right_way_passes(tmp_path, place, line):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert faults(tmp_path) == []
