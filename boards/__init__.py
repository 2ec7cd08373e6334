"""One file a board, and the flow from the card to a board's bitstream.

A new board is a file like ``ulx3s.py``, whose pins are those of a platform of amaranth-boards and
what it adds to them, and its name in the list below. ``tests/boards`` then wants to know where its
oscillator and its serial line are, from the board's schematics. A new family of devices is a file
in ``families/``.
"""

from . import ecpix5, orangecrab, tangmega, ulx3s, virtual
from .board import Board, BoardError

__all__ = ["BOARDS", "Board", "BoardError", "board"]

BOARDS: dict[str, Board] = {
    module.BOARD.name: module.BOARD for module in (ulx3s, ecpix5, orangecrab, tangmega, virtual)
}


def board(name: str) -> Board:
    """Return the board called ``name``; raise `BoardError` that lists the known ones."""
    try:
        return BOARDS[name]
    except KeyError:
        raise BoardError(f"no board {name!r}; choose one of: {', '.join(BOARDS)}") from None
