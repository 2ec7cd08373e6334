"""Driving a `Storage` port."""

from typing import Any

import numpy as np

__all__ = ["Access", "drive_storage", "number"]

Access = tuple[int, np.ndarray | None, np.ndarray]
"""Address, data to write or None, and the mask."""


def number(beat: np.ndarray | np.uint8) -> int:
    """Return bytes as a port has them."""
    return int.from_bytes(beat.tobytes(), "little")


def drive_storage(
    dut: Any, port: str, access: Access | None, r: np.random.Generator, width: int
) -> None:
    """Set a port's inputs; where nothing is asked for, to noise."""
    address, written, mask = access or (int(r.integers(1 << 8)), None, r.random(width) < 0.5)
    data = r.integers(256, size=width, dtype=np.uint8) if written is None else written
    values = {
        "enable": int(access is not None),
        "write": int(written is not None) if access else int(r.integers(2)),
        "address": address,
        "write_data": number(data),
        "write_mask": number(np.packbits(mask, bitorder="little")),
    }
    for name, value in values.items():
        getattr(dut, f"{port}__{name}").value = value
