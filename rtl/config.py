"""Every size of the card in one frozen dataclass, and the named presets.

Nothing else in the project holds a size: the RTL, the simulators and the driver take a
`CardConfig`. A card reports its main sizes through its CSRs; ``partial_beats`` and
``engines_per_lane``, which limit and cost slices, software has from the preset or the manifest.
"""

import dataclasses

__all__ = [
    "GRANULE",
    "MAX_K",
    "PRESETS",
    "RELEASE_WORDS",
    "VECTOR_PARTS",
    "CardConfig",
    "preset",
]

GRANULE = 16
"""Bytes of a scratchpad word, of a stream word and of the alignment of every transfer."""

RELEASE_WORDS = 16
"""Operand words that a row engine hands back to the fill path at once."""

MAX_K = 32768
"""Longest dot product: no exact sum of so many products leaves its accumulator."""

VECTOR_PARTS = ("pool", "rows", "reformat")
"""Parts of the vector unit, in the order of the bits of `Csr.PARTS`."""


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
        16-bit words in a PE's operand memory, used as one ring. Also the longest slice of K where
        more than one row of an engine passes by the same operands.
    partial_beats : int
        Drain beats that an epilogue lane can keep as partial sums: ``2 * cols`` for each row of
        its engine.
    scratchpad_banks, scratchpad_bytes : int
        Banks of one granule width, and bytes over all banks. Powers of two.
    stream_ports : int
        Scratchpad read ports that feed the row engines; each serves ``rows / stream_ports`` rows.
    memory_bytes : int
        Bytes of card memory. A power of two.
    bus_bytes : int
        Width of the card memory bus: 8, 16 or 64.
    hbm_channels : int
        HBM pseudo-channels behind the bus: 0, 1 or 2. Without one card memory is always ideal.
    fill_bytes : int
        Bytes that the fill path reads of a column at once, 16 or 32. To fill every column with a
        word a cycle takes ``2 * cols``.
    queue_depth : int
        Commands that wait in each queue.
    vector_lanes : int
        Numbers that the vector unit requantizes in a cycle: 1, 2, 4, 8 or 16.
    row_lanes : int
        Numbers of a row that the vector unit takes, and finishes, in a cycle (ROWS): 1, 2, 4 or 8.
    vector_parts : tuple of str
        Parts that the vector unit has: "pool" (the command VECTOR) always, "rows" (ROWS) and
        "reformat" (REFORMAT) or not. Kept in the order of `VECTOR_PARTS`.
    engines_per_lane : int
        Row engines that share an epilogue lane: a power of two. Results are the same; visits are
        so many times as long at least.
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
    partial_beats: int = 512
    memory_bytes: int = 1 << 26
    fill_bytes: int = 16
    queue_depth: int = 4
    vector_lanes: int = 2
    row_lanes: int = 1
    vector_parts: tuple[str, ...] = VECTOR_PARTS
    engines_per_lane: int = 1

    def __post_init__(self) -> None:
        for field in (
            "scratchpad_banks",
            "scratchpad_bytes",
            "operand_depth",
            "partial_beats",
            "memory_bytes",
        ):
            value = getattr(self, field)
            if value < 2 or value & (value - 1):
                raise ValueError(f"{field} must be a power of two, not {value!r}")
        if self.bus_bytes not in (8, 16, 64):
            raise ValueError(f"bus_bytes must be 8, 16 or 64, not {self.bus_bytes!r}")
        if self.operand_depth < 4 * RELEASE_WORDS:
            raise ValueError(
                f"operand_depth must be at least {4 * RELEASE_WORDS}, not {self.operand_depth!r}"
            )
        if self.partial_beats < 2 * self.cols:
            raise ValueError(
                f"partial_beats must hold a row of {2 * self.cols}, not {self.partial_beats!r}"
            )
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
        if self.vector_lanes < 1 or GRANULE % self.vector_lanes:
            raise ValueError(
                f"vector_lanes must divide the {GRANULE} bytes of a granule, "
                f"not {self.vector_lanes!r}"
            )
        if self.row_lanes not in (1, 2, 4, 8):
            raise ValueError(f"row_lanes must be 1, 2, 4 or 8, not {self.row_lanes!r}")
        parts = [part for part in VECTOR_PARTS if part in self.vector_parts]
        if "pool" not in parts or sorted(parts) != sorted(self.vector_parts):
            raise ValueError(
                f"vector_parts must be pool, and what is wanted of rows and reformat, "
                f"not {self.vector_parts!r}"
            )
        object.__setattr__(self, "vector_parts", tuple(parts))  # a list, after a trip through JSON
        shared = self.engines_per_lane
        if shared < 1 or shared & (shared - 1) or self.rows % shared:
            raise ValueError(
                f"engines_per_lane must be a power of two that divides the {self.rows} rows, "
                f"not {shared!r}"
            )
        if self.partial_rows * shared > 256:
            raise ValueError(
                "an epilogue lane keeps partial sums of at most 256 rows, and partial_beats of "
                f"{self.partial_beats!r} are {self.partial_rows!r} for each of {shared!r} engines"
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
    def parts_mask(self) -> int:
        """Value of `Csr.PARTS`: a bit for each of `VECTOR_PARTS` that there is."""
        return sum(1 << i for i, part in enumerate(VECTOR_PARTS) if part in self.vector_parts)

    @property
    def min_visit(self) -> int:
        """Shortest distance in cycles between two visits' ends: the drain of one row, of each
        engine that shares the epilogue lane. A lane finishes one result a cycle, so INT4 visits
        are twice as far apart in the long run."""
        return 2 * self.cols * self.engines_per_lane

    @property
    def epilogue_lanes(self) -> int:
        """Epilogue lanes; each serves ``engines_per_lane`` row engines next to each other."""
        return self.rows // self.engines_per_lane

    @property
    def partial_rows(self) -> int:
        """Rows of each engine whose partial sums are kept while K is worked through in slices."""
        return self.partial_beats // (2 * self.cols)


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
            name="wide",
            rows=4,
            cols=8,
            scratchpad_banks=4,
            scratchpad_bytes=128 << 10,
            stream_ports=1,
            bus_bytes=16,
            hbm_channels=1,
            vector_lanes=1,
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
            vector_lanes=4,
            row_lanes=2,
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
            partial_beats=1024,
            vector_lanes=8,
            row_lanes=8,
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
