"""ROWS: scales, normalizes and quantizes rows, and takes their softmax."""

from .unit import RowsUnit

__all__ = ["RowsUnit"]
