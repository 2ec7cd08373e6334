"""Where a card address lies in HBM.

From the lowest bit, in columns of 32 bytes: bank group bit 0, column bits 0 and 1, the channel
(where there are two), bank group bit 1, column bits 2 to 4, bank, row. Then bank and bank group
are XORed with all of the row, folded to four bits, and the channel with row bit 4, so that no
power-of-two stride stays in one bank. A burst (at most an aligned block of 256 bytes) thus lies in
one row of the two banks of a pair that differ in bank group bit 0, and its columns alternate
between them.
"""

import functools
import operator

from amaranth.hdl import Cat, Const, Value, unsigned
from amaranth.lib import data

from ..config import CardConfig

__all__ = ["BANKS", "COLUMN_BYTES", "access_layout", "decode", "row_bits"]

BANKS = 16
"""Banks of a pseudo-channel. A bank number is ``bank * 4 + bank group``."""

COLUMN_BYTES = 32
"""Bytes that one column command moves."""


def row_bits(config: CardConfig) -> int:
    """Return the bits of a row number."""
    width = config.memory_addr_width - 14 - (config.hbm_channels - 1)
    least = 5 if config.hbm_channels == 2 else 1  # bit 4 chooses between two channels
    if width < least:
        raise ValueError(f"memory_bytes must leave {1 << least} rows, not {config.memory_bytes!r}")
    return width


def access_layout(row_bits: int) -> data.StructLayout:
    """Layout of a burst as its channel sees it.

    ``bank`` is the bank of even blocks of 32 bytes; odd ones lie in ``bank ^ 1``. ``first`` and
    ``last`` count blocks of 32 bytes inside the 256; ``high`` is column bits 2 to 4.
    """
    return data.StructLayout(
        {
            "row": unsigned(row_bits),
            "bank": unsigned(4),
            "high": unsigned(3),
            "first": unsigned(3),
            "last": unsigned(3),
            "write": unsigned(1),
        }
    )


def decode(config: CardConfig, address: Value, last_beat: Value) -> tuple[Value, dict[str, Value]]:
    """Return the channel of a burst, and the fields of its access except ``write``.

    ``address`` counts bytes and is a multiple of the bus width; ``last_beat`` is its beats - 1.
    """
    beat_bits = (config.bus_bytes - 1).bit_length()
    last = (address[beat_bits:8] + last_beat)[: 8 - beat_bits]
    if config.bus_bytes <= COLUMN_BYTES:
        last_column = last[5 - beat_bits :]
    else:
        last_column = Cat(Const(1, 1), last)
    base = 8 + config.hbm_channels - 1
    row = address[base + 6 :]
    channel = address[8] ^ row[4] if config.hbm_channels == 2 else Const(0, 1)
    folded = functools.reduce(operator.xor, (row[i : i + 4] for i in range(0, len(row), 4)))
    bank = Cat(Const(0, 1), address[base], address[base + 4 : base + 6]) ^ folded
    return channel, {
        "row": row,
        "bank": bank,
        "high": address[base + 1 : base + 4],
        "first": address[5:8],
        "last": last_column,
    }
