"""Families of devices: what of the flow differs between them, one file each."""

from .base import BoardError, ClockSetting, Device, Family, Resources
from .ecp5 import ECP5
from .gowin import GOWIN

__all__ = [
    "ECP5",
    "FAMILIES",
    "GOWIN",
    "BoardError",
    "ClockSetting",
    "Device",
    "Family",
    "Resources",
    "family_of",
]


FAMILIES = (ECP5, GOWIN)


def family_of(device: str) -> Family:
    """Return the family of a device; raise `BoardError` if it is none of those there are."""
    for family in FAMILIES:
        if device.startswith(family.prefix):
            return family
    raise BoardError(f"no family in boards/families has a device {device!r}")
