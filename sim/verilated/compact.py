"""Shorter Verilog of the same meaning."""

import re

__all__ = ["compact"]

_CLEARED = re.compile(
    r"^( *)initial begin\n *(\S+) ?\[0\] = (\d+'h0+);\n(?: *\2 ?\[\d+\] = \3;\n)+ *end\n",
    re.MULTILINE,
)


def compact(text: str) -> str:
    """Clear memories in loops, where yosys writes one statement a word.

    Those statements are most of the text of a design with memories, and of what is compiled of it.
    """
    return _CLEARED.sub(_loop, text)


def _loop(match: re.Match[str]) -> str:
    indent, memory, zero = match.groups()
    depth = match.group().count("\n") - 2
    return (
        f"{indent}initial begin : clear_{memory.lstrip(chr(92))}\n"
        f"{indent}  integer i;\n"
        f"{indent}  for (i = 0; i < {depth}; i = i + 1) {memory} [i] = {zero};\n"
        f"{indent}end\n"
    )
