"""Timing of an SDRAM (single data rate), in nanoseconds and in cycles of a clock."""

import dataclasses
import math

__all__ = ["SdramCycles", "SdramTiming"]

_CLOCKS = (8_000_000, 133_000_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdramCycles:
    """The timing of an SDRAM in cycles; see `SdramTiming`."""

    cas: int
    rcd: int
    rp: int
    ras: int
    rfc: int
    mrd: int
    refresh: int
    power_up: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdramTiming:
    """Shape and timing of an SDRAM with four banks, 16 bits wide. Unless told otherwise, the
    slowest of each that the datasheets of IS42S16160G-7, W9825G6KH-6, AS4C16M16SA-7 and
    MT48LC16M16A2-75 give: chips of 32 MiB of which any may be on a board.

    Parameters
    ----------
    rows, columns : int
        Of each bank. Powers of two, at most 8192 and 1024.
    cas_2 : float
        Shortest clock period for a CAS latency of 2; below it, it is 3.
    rcd, rp, ras, rc, rfc : float
        Activate to column, precharge to activate, activate to precharge, activate to activate (of
        one bank), refresh to anything.
    wr : float
        Last written data to precharge, at most two cycles.
    mrd : int
        Mode register set to anything, in cycles.
    refresh : float
        Time in which all rows have to be refreshed.
    power_up : float
        From stable power to the first command.
    """

    rows: int = 8192
    columns: int = 512
    cas_2: float = 10.0
    rcd: float = 21.0
    rp: float = 21.0
    ras: float = 45.0
    rc: float = 67.5
    rfc: float = 70.0
    wr: float = 15.0
    mrd: int = 2
    refresh: float = 64e6
    power_up: float = 200e3

    def __post_init__(self) -> None:
        for name, most in (("rows", 8192), ("columns", 1024)):
            value = getattr(self, name)
            if not 16 <= value <= most or value & (value - 1):
                raise ValueError(f"{name} must be a power of two up to {most}, not {value!r}")
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(
                    f"{field.name} must be positive, not {getattr(self, field.name)!r}"
                )

    @property
    def bytes(self) -> int:
        """Size of the chip."""
        return 4 * self.rows * self.columns * 2

    def cycles(self, clock_hz: int) -> SdramCycles:
        """Return the timing in cycles of a clock.

        Raises
        ------
        ValueError
            If the clock is outside what the chip and its controller can do.
        """
        low, high = _CLOCKS
        if not low <= clock_hz <= high:
            raise ValueError(f"clock_hz must be from {low} to {high}, not {clock_hz!r}")

        def at_least(ns: float, least: int = 2) -> int:
            # Rounded down by a millionth of a cycle first: a product may be a little too large.
            return max(least, math.ceil(ns * clock_hz / 1e9 - 1e-6))

        if at_least(self.wr) > 2:
            raise ValueError(f"wr must be at most two cycles, not {self.wr!r} ns")
        rp = at_least(self.rp)
        return SdramCycles(
            cas=2 if 1e9 / clock_hz >= self.cas_2 else 3,
            rcd=at_least(self.rcd),
            rp=rp,
            # Where activate follows precharge at once, that is rc as well.
            ras=max(at_least(self.ras), at_least(self.rc) - rp),
            rfc=at_least(self.rfc),
            mrd=self.mrd,
            # A cycle less, which pays for what a refresh waits in the time of all rows.
            refresh=int(self.refresh / self.rows * clock_hz / 1e9) - 1,
            power_up=at_least(self.power_up),
        )
