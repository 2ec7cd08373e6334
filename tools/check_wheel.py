"""Checks that a wheel holds exactly the package's files: ``check_wheel.py WHEEL``.

The tree is the reference: a package that setuptools did not find, a data file that is not listed
in ``pyproject.toml``, and a file left over from an earlier build all show.
"""

import os
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"


def tree_files() -> dict[str, Path]:
    """Return what belongs in the wheel, by its name there."""
    files = {}
    for folder, folders, names in os.walk(SOURCE / "deepseek", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        for name in names:
            path = Path(folder, name)
            files[path.relative_to(SOURCE).as_posix()] = path
    return files


def main() -> None:
    expected = tree_files()
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
        differing = {
            name
            for name in found & expected.keys()
            if wheel.read(name) != expected[name].read_bytes()
        }
    faults = [f"missing: {name}" for name in sorted(expected.keys() - found)]
    faults += [f"not in the tree: {name}" for name in sorted(found - expected.keys())]
    faults += [f"differs: {name}" for name in sorted(differing)]
    if faults:
        sys.exit("\n".join([f"{Path(sys.argv[1]).name} is not the tree", *faults]))
    print(f"{Path(sys.argv[1]).name}: {len(expected)} files, all as in the tree")


if __name__ == "__main__":
    main()
