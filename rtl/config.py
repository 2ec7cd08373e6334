"""Every size of the card in one frozen dataclass, and the named presets.

Nothing else in the project holds a size: the RTL, the simulators and the driver take a
`CardConfig`. A card reports the sizes that software needs through its CSRs.
"""

import dataclasses

__all__ = ["GRANULE", "PRESETS", "CardConfig", "preset"]

GRANULE = 16
"""Bytes of a scratchpad word, of a stream word and of the alignment of every transfer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Sizes of one card.

    Parameters
    ----------
    name : str
        Name of the preset.
    rows, cols : int
        Row engines, and PEs in each row.
    operand_depth : int
        16-bit words in a PE's operand memory, used as one ring. Also the longest K of a command.
    scratchpad_banks, scratchpad_bytes : int
        Banks of one granule width, and bytes over all banks. Powers of two.
    stream_ports : int
        Scratchpad read ports that feed the row engines; each serves ``rows / stream_ports`` rows.
    memory_bytes : int
        Bytes of card memory. A power of two.
    bus_bytes : int
        Width of the card memory bus: 8, 16 or 64.
    hbm_channels : int
        HBM pseudo-channels behind the bus.
    fill_bytes : int
        Bytes that the fill path reads of a column at once, 16 or 32. To fill every column with a
        word a cycle takes ``2 * cols``.
    queue_depth : int
        Commands that wait in each queue.
    """

    name: str
    rows: int
    cols: int
    scratchpad_banks: int
    scratchpad_bytes: int
    stream_ports: int
    bus_bytes: int
    hbm_channels: int
    operand_depth: int = 1024
    memory_bytes: int = 1 << 26
    fill_bytes: int = 16
    queue_depth: int = 4

    def __post_init__(self) -> None:
        for field in ("scratchpad_banks", "scratchpad_bytes", "operand_depth", "memory_bytes"):
            value = getattr(self, field)
            if value < 2 or value & (value - 1):
                raise ValueError(f"{field} must be a power of two, not {value!r}")
        if self.bus_bytes not in (8, 16, 64):
            raise ValueError(f"bus_bytes must be 8, 16 or 64, not {self.bus_bytes!r}")
        if self.scratchpad_banks * GRANULE < 2 * self.bus_bytes:
            raise ValueError(
                "scratchpad_banks must span two beats of the bus, not "
                f"{self.scratchpad_banks!r} banks for {self.bus_bytes} bytes"
            )
        if self.fill_bytes not in (16, 32) or self.scratchpad_banks * GRANULE < 2 * self.fill_bytes:
            raise ValueError(
                f"fill_bytes must be 16 or 32, and two of them a row of banks, "
                f"not {self.fill_bytes!r}"
            )
        if self.rows % self.stream_ports:
            raise ValueError(
                f"stream_ports must divide the {self.rows} rows, not {self.stream_ports!r}"
            )
        for field in ("rows", "cols"):
            value = getattr(self, field)
            if not 2 <= value <= 32:
                raise ValueError(f"{field} must be from 2 to 32, not {value!r}")

    @property
    def bank_rows(self) -> int:
        """Granules in each scratchpad bank."""
        return self.scratchpad_bytes // GRANULE // self.scratchpad_banks

    @property
    def granule_addr_width(self) -> int:
        """Bits of a scratchpad address counted in granules."""
        return (self.scratchpad_bytes // GRANULE - 1).bit_length()

    @property
    def memory_addr_width(self) -> int:
        """Bits of a byte address in card memory."""
        return (self.memory_bytes - 1).bit_length()

    @property
    def min_visit(self) -> int:
        """Shortest distance in cycles between two visits' ends: the drain of one row."""
        return 2 * self.cols


PRESETS: dict[str, CardConfig] = {
    config.name: config
    for config in (
        CardConfig(
            name="tiny",
            rows=4,
            cols=4,
            scratchpad_banks=4,
            scratchpad_bytes=64 << 10,
            stream_ports=1,
            bus_bytes=8,
            hbm_channels=1,
        ),
        CardConfig(
            name="ecp5",
            rows=8,
            cols=8,
            scratchpad_banks=8,
            scratchpad_bytes=128 << 10,
            stream_ports=2,
            bus_bytes=16,
            hbm_channels=1,
        ),
        CardConfig(
            name="sim",
            rows=16,
            cols=16,
            scratchpad_banks=16,
            scratchpad_bytes=512 << 10,
            stream_ports=4,
            bus_bytes=64,
            hbm_channels=2,
            fill_bytes=32,
        ),
    )
}


def preset(name: str) -> CardConfig:
    """Return the preset called ``name``; raise `ValueError` that lists the known ones."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise ValueError(f"no preset {name!r}; choose one of: {known}") from None
