"""The tutorial: the code that it quotes is that of the PE, and what it makes of it elaborates."""

import re
from pathlib import Path

import pytest
from amaranth.back import rtlil

from deepseek.rtl.array import pe
from deepseek.rtl.config import preset
from deepseek.sim.verilated.convert import _ports

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL
)
STEPS = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
"""What each change replaces, and by what."""


def changed(steps: int) -> str:
    """Return the text of ``pe.py`` after so many changes."""
    text = Path(pe.__file__).read_text()
    for before, after in STEPS[:steps]:
        assert text.count(before) == 1, f"not once in pe.py, as the tutorial has it:\n{before}"
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize("steps", [1, 2], ids=["mistake", "correction"])
def test_changes(steps):
    assert len(STEPS) == 2
    names = {"__name__": pe.__name__, "__package__": pe.__package__}
    exec(compile(changed(steps), "pe.py", "exec"), names)
    element = names["PE"](preset("tiny"))
    assert rtlil.convert(element, ports=_ports(element))


def test_paths():
    """Files that the tutorial sends the reader to, and tests that it runs, are there."""
    text = (ROOT / "docs/tutorial.md").read_text()
    for path in re.findall(r"\b(?:tests|rtl|sim)/[\w/]+\.py", text):
        assert (ROOT / path).is_file(), path
    source = (ROOT / "tests/rtl/test_array.py").read_text()
    for test in re.findall(r"test_array\.py::(\w+)", text):
        assert f"def {test}(" in source, test
