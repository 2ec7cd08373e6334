"""REFORMAT: transposes, compresses and expands what the array takes as input."""

from .unit import ReformatUnit

__all__ = ["ReformatUnit"]
