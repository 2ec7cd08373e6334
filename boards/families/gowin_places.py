"""Where the block RAMs of a card lie on a GW5AST-138.

The analytic placer begins with cells as near to each other as the wires want them, and only pads
and cells with given places hold them apart. A card has next to no pads: it would all begin in one
point, and to find a legal place for each cell from there takes hours.

::

    y   9            .
       27          card memory
       45   lane   PEs of rows 0, 1   .   loads, link
       63          PEs of rows 2, 3   .   scratchpad
       81          scratchpad
       99            .

Streams enter the array from the left. Rows of block RAM are at these y, every third column.
"""

from collections.abc import Iterable

from .places import element, nearest, numbered

__all__ = ["places"]

_COLUMNS = range(1, 179, 3)
_CENTRE = (85, 88, 91, 94)
_ROWS = {
    9: (),
    27: (1, 4, *_CENTRE, 175, 178),
    45: (1, 178),
    63: (1, 178),
    81: (1, 4, *_CENTRE, 175, 178),
    99: (),
}
"""Rows of block RAM, and in which of the columns they have none."""

_ARRAY = (60, 45)
"""Where row 0 of the array begins."""

_NEAR = (
    (".scratchpad.", 84, 75),
    (".compute.lane_0.", 45, 45),
    (".load", 120, 45),
    (".storage.lane_", 90, 27),
)
_REST = ("", 120, 54)
"""A part of the names, and what is to be near. Later ones get what is left."""


def _sites() -> set[str]:
    return {f"X{x}Y{y}/BSRAM" for y, gaps in _ROWS.items() for x in _COLUMNS if x not in gaps}


def places(names: Iterable[str]) -> dict[str, str]:
    """Return the places of block RAMs, by their cells' names, as nextpnr calls them; nothing for
    what is not a card with an array."""
    ordered = sorted(names, key=numbered)
    wanted = {
        name: (_ARRAY[0] + 9 * at[1], _ARRAY[1] + 18 * (at[0] // 2))
        for name in ordered
        if (at := element(name)) is not None
    }
    if not wanted:
        return {}
    for part, x, y in (*_NEAR, _REST):
        wanted |= {name: (x, y) for name in ordered if part in name and name not in wanted}
    free, found = _sites(), {}
    for name, (x, y) in wanted.items():
        if free:
            found[name] = nearest(free, x, y)[0]
            free.remove(found[name])
    return found
