"""What plans of places have in common, whatever the device."""

import re
from collections.abc import Iterable

__all__ = ["element", "nearest", "numbered"]

_ELEMENT = re.compile(r"\bpe_(\d+)_(\d+)\b")


def element(name: str) -> tuple[int, int] | None:
    """Return row and column of the PE that a cell is part of, None for other cells."""
    match = _ELEMENT.search(name)
    return (int(match[1]), int(match[2])) if match else None


def numbered(name: str) -> list[int | str]:
    """Return a key that sorts names by the numbers in them: 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def nearest(sites: Iterable[str], x: int, y: int) -> list[str]:
    """Return places by their distance from a point. Names begin as in X10/Y22 or X10Y22."""

    def distance(site: str) -> tuple[int, str]:
        column, row = map(int, re.findall(r"[XY](\d+)", site)[:2])
        return abs(column - x) + abs(row - y), site

    return sorted(sites, key=distance)
