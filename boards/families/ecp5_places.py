"""Where the block RAMs and multipliers of a card lie on an LFE5U-85F.

Place and route puts them last, where it finds room, and then the logic around them: rows of the
array lie at all ends of the device, and wires over half of it take more of a cycle than all logic.
So they are given places here: PEs as the array is drawn, with what they exchange beside it.

::

    y  10            .
       22   card memory
       34            .   PEs of rows 2, 3   .
       46   card     .   their RAMs         .  loads   card memory
       58   memory   lane  PEs of rows 0, 1 .  vector unit
       70   memory   lane  scratchpad       .  arbiter card memory
       82   card mem.    scratchpad         .  link

Rows of block RAM are at y 22, 46, 70 and 82, of multipliers at 10, 34 and 58, in groups of four.
Streams enter the array from the left, activations from the scratchpad's side.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .places import element, nearest, numbered

__all__ = ["places"]

_GROUPS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
"""The first column of each group."""

_RAM_ROWS = (22, 46, 70, 82)
_ARRAY_RAM_ROW = 46
_SCRATCHPAD_ROWS = (70, 82)
_MULTIPLIER_ROWS = (10, 34, 58)
_ARRAY_ROWS = (58, 58, 34, 34)
"""The multipliers' row of each row of PEs: two share one."""

_RAM, _MULTIPLIER = "DP16KD", "MULT18X18D"

_NEAR = (
    (_RAM, ".lane_0.instance.partials.", 20, 70),
    (_RAM, ".link.", 105, 82),
    (_RAM, ".load", 78, 46),
    (_RAM, ".arbiter.", 78, 70),
    (_RAM, ".capture.", 122, 22),
    (_MULTIPLIER, r".\lane_0.instance.\multiply", 24, 58),
    (_MULTIPLIER, ".requantizer.", 78, 58),
)
"""What else has a place: the type, a part of the names, and what is to be near."""

_BLOCK = re.compile(r"\bscratchpad\.bank(\d+)\.block(\d+)$")
_CARD_MEMORY = ".storage.lane_"


def _ram(group: int, number: int, y: int) -> str:
    return f"X{_GROUPS[group] + 2 * number}/Y{y}/EBR{number}"


def _multiplier(group: int, number: int, y: int) -> str:
    offset = (0, 1, 4, 5)[number]
    return f"X{_GROUPS[group] + offset}/Y{y}/MULT18_{offset}"


def _sites(kind: str) -> Iterator[str]:
    """Yield all places, row by row, to the right and back by turns."""
    rows, site = (_RAM_ROWS, _ram) if kind == _RAM else (_MULTIPLIER_ROWS, _multiplier)
    for turn, y in enumerate(rows):
        row = [site(group, number, y) for group in range(len(_GROUPS)) for number in range(4)]
        yield from reversed(row) if turn % 2 else row


def places(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the places of cells, by their names.

    Parameters
    ----------
    cells : Mapping
        Of a linked netlist: with their ``type``.

    Returns
    -------
    dict[str, str]
        As nextpnr calls places; empty for what is not a card with an array that fits them: at
        most 4 rows and 13 columns.
    """
    kinds = {
        kind: sorted((name for name, cell in cells.items() if cell["type"] == kind), key=numbered)
        for kind in (_RAM, _MULTIPLIER)
    }
    elements = {
        name: at for names in kinds.values() for name in names if (at := element(name)) is not None
    }
    rows, cols = (max((at[axis] for at in elements.values()), default=-1) + 1 for axis in (0, 1))
    if not 0 < rows <= len(_ARRAY_ROWS) or cols > len(_GROUPS):
        return {}
    first = (len(_GROUPS) - cols) // 2
    found: dict[str, str] = {}
    taken: dict[tuple[int, int], int] = {}
    for name, (row, column) in elements.items():
        if cells[name]["type"] == _RAM:
            found[name] = _ram(first + column, row, _ARRAY_RAM_ROW)
        else:
            number = taken[row, column] = taken.get((row, column), -1) + 1
            found[name] = _multiplier(first + column, 2 * (row % 2) + number, _ARRAY_ROWS[row])
    blocks = (name for name in kinds[_RAM] if _BLOCK.search(name))
    beside = (
        _ram(group, number, y)
        for group in range(first, first + cols)
        for y in _SCRATCHPAD_ROWS
        for number in range(4)
    )
    found |= dict(zip(blocks, beside, strict=False))
    for kind, part, x, y in _NEAR:
        free = nearest(set(_sites(kind)) - set(found.values()), x, y)
        found |= dict(zip((name for name in kinds[kind] if part in name), free, strict=False))
    # Card memory takes what is left; so each of its lanes is in one piece.
    free = [site for site in _sites(_RAM) if site not in found.values()]
    lanes = (name for name in kinds[_RAM] if _CARD_MEMORY in name)
    return found | dict(zip(lanes, free, strict=False))
