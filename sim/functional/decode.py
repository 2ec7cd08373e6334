"""Bytes to fields and back, generated from the layouts of ``rtl/isa/``."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from amaranth.hdl import Shape, ShapeCastable
from amaranth.lib import data

__all__ = ["dtype", "pack", "reserved_mask", "unpack"]


def _resolve(shape: Any) -> data.Layout | Shape:
    while isinstance(shape, ShapeCastable) and not isinstance(shape, data.Layout):
        shape = shape.as_shape()
    return shape if isinstance(shape, data.Layout) else Shape.cast(shape)


@functools.cache
def _fields(layout: data.Layout) -> list[tuple[Any, int, data.Layout | Shape, int]]:
    """Return key, offset, shape and width in bits of each field."""
    fields = []
    for key, field in layout:
        shape = _resolve(field.shape)
        width = shape.size if isinstance(shape, data.Layout) else shape.width
        fields.append((key, field.offset, shape, width))
    return fields


def unpack(shape: Any, raw: bytes | int) -> Any:
    """Return the fields of ``raw``, little-endian.

    Structures become a `dict` by field name, arrays a `list`, enumerations and numbers an `int`.

    Parameters
    ----------
    shape : layout, structure or shape
    raw : bytes or int
    """
    bits = int.from_bytes(raw, "little") if isinstance(raw, bytes) else raw
    layout = _resolve(shape)
    if isinstance(layout, Shape):
        return bits - (1 << layout.width) if layout.signed and bits >> layout.width - 1 else bits
    values = {
        key: unpack(field, bits >> offset & (1 << width) - 1)
        for key, offset, field, width in _fields(layout)
    }
    return list(values.values()) if isinstance(layout, data.ArrayLayout) else values


def pack(shape: Any, values: Any) -> bytes:
    """Return the bytes of ``values``: the inverse of `unpack`; what is left out is zero.

    A part may also be given as its ``bytes``, as a command's body is.

    Raises
    ------
    ValueError
        If a field does not exist or a number does not fit.
    """
    layout = _resolve(shape)
    width = layout.size if isinstance(layout, data.Layout) else layout.width
    return _pack(layout, values).to_bytes((width + 7) // 8, "little")


def _pack(layout: data.Layout | Shape, values: Any) -> int:
    if isinstance(values, bytes):
        values = int.from_bytes(values, "little")
    if isinstance(layout, Shape):
        number = int(getattr(values, "value", values))
        low, high = _bounds(layout)
        if not low <= number < high:
            raise ValueError(f"a field of {layout!r} must hold its value, not {number!r}")
        return number & (1 << layout.width) - 1
    if isinstance(values, int):
        return values
    items = values if isinstance(values, Mapping) else dict(enumerate(values))
    fields = {key: (offset, shape) for key, offset, shape, _ in _fields(layout)}
    if not fields.keys() >= items.keys():
        raise ValueError(f"fields must be among {list(fields)!r}, not {list(items)!r}")
    bits = 0
    for key, value in items.items():
        offset, shape = fields[key]
        bits |= _pack(shape, value) << offset
    return bits


def _bounds(shape: Shape) -> tuple[int, int]:
    half = 1 << shape.width - 1
    return (-half, half) if shape.signed else (0, 2 * half)


@functools.cache
def reserved_mask(shape: Any) -> int:
    """Return a mask of the bits of all fields whose name begins with ``reserved``."""
    layout = _resolve(shape)
    mask = 0
    if isinstance(layout, data.Layout):
        for key, offset, field, width in _fields(layout):
            reserved = isinstance(key, str) and key.startswith("reserved")
            mask |= ((1 << width) - 1 if reserved else reserved_mask(field)) << offset
    return mask


@functools.cache
def dtype(shape: Any) -> np.dtype:
    """Return the NumPy structured type of a structure whose fields are numbers of whole bytes."""
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    layout = _resolve(shape)
    if not isinstance(layout, data.StructLayout):
        raise ValueError(f"shape must be a structure, not {shape!r}")
    for key, offset, field, width in _fields(layout):
        if not isinstance(field, Shape) or width not in (8, 16, 32, 64) or offset % 8:
            raise ValueError(f"field {key!r} must be a number of whole bytes, not {field!r}")
        names.append(str(key))
        formats.append(f"<{'i' if field.signed else 'u'}{width // 8}")
        offsets.append(offset // 8)
    return np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": layout.size // 8}
    )
