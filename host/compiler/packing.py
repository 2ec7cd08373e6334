"""Pack and unpack the structures of `rtl.isa` without going through their layouts each time."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data

__all__ = ["Packer"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    offset: int
    width: int
    signed: bool


class Packer:
    """Packs one `amaranth.lib.data` layout.

    The layout is flattened once: a field is named by its path, ``wait[0].index``.

    Parameters
    ----------
    layout : `amaranth.lib.data.Struct` subclass or layout
    """

    def __init__(self, layout: Any) -> None:
        layout = data.Layout.cast(layout)
        self.size = layout.size
        self.fields: dict[str, _Field] = dict(_flatten(layout, "", 0))

    def pack(self, values: Mapping[str, int]) -> int:
        """Return the bits of the structure; fields that are not named are 0.

        Raises
        ------
        ValueError
            If a field is unknown, or a value does not fit: names the field and its range.
        """
        bits = 0
        for name, value in values.items():
            field = self.fields.get(name)
            if field is None:
                raise ValueError(f"no field {name!r} in this structure")
            low, high = (-1 << field.width - 1, (1 << field.width - 1) - 1)
            if not field.signed:
                low, high = (0, (1 << field.width) - 1)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {value!r}")
            bits |= (int(value) & ((1 << field.width) - 1)) << field.offset
        return bits

    def unpack(self, bits: int) -> dict[str, int]:
        """Return every field of the structure by its path."""
        values = {}
        for name, field in self.fields.items():
            value = bits >> field.offset & ((1 << field.width) - 1)
            if field.signed and value >> field.width - 1:
                value -= 1 << field.width
            values[name] = value
        return values


def _flatten(layout: data.Layout, path: str, offset: int) -> Iterator[tuple[str, _Field]]:
    for key, field in layout:
        if isinstance(key, int):
            name = f"{path}[{key}]"
        else:
            name = f"{path}.{key}" if path else key
        shape = field.shape
        if isinstance(shape, data.Layout) or (
            isinstance(shape, type) and issubclass(shape, data.Struct)
        ):
            yield from _flatten(data.Layout.cast(shape), name, offset + field.offset)
        else:
            shape = Shape.cast(shape)
            yield name, _Field(offset + field.offset, shape.width, shape.signed)
