"""Timing of the DRAM behind the bus, in command clocks; one command clock is one card clock."""

import dataclasses
import math

__all__ = ["HBM2_2000", "HBM3E_9200", "HBM3_6400", "TIMINGS", "Timing"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Timing of one pseudo-channel whose column access moves 32 bytes.

    Parameters
    ----------
    name : str
    tck_ps : int
        Real length of a command clock; not used by the card.
    bl : int
        Clocks of data of a column command.
    cl, cwl : int
        Column command to first data, read and write.
    rcdrd, rcdwr : int
        Activate to read, to write.
    rp, ras, rc : int
        Precharge to activate, activate to precharge, activate to activate, in one bank.
    ccds, ccdl, rrds, rrdl : int
        Column to column and activate to activate, in different bank groups and in the same.
    faw : int
        Window that holds at most four activates.
    wr, wtrs, wtrl : int
        End of write data to precharge, to read in another bank group, in the same.
    rtp, rtw : int
        Read to precharge, read to write.
    row_bus : int
        Row command to row command (an activate fills one and a half clocks).
    rfc, refi : int
        Length of an all-bank refresh, and mean interval between two.
    """

    name: str
    tck_ps: int
    bl: int
    cl: int
    cwl: int
    rcdrd: int
    rcdwr: int
    rp: int
    ras: int
    rc: int
    ccds: int
    ccdl: int
    rrds: int
    rrdl: int
    faw: int
    wr: int
    wtrs: int
    wtrl: int
    rtp: int
    rtw: int
    row_bus: int
    rfc: int
    refi: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "name" and getattr(self, field.name) < 1:
                raise ValueError(
                    f"{field.name} must be positive, not {getattr(self, field.name)!r}"
                )
        # The controller decides up to three clocks ahead.
        for name in ("faw", "rp", "ras", "rcdrd", "rcdwr"):
            if getattr(self, name) < 4:
                raise ValueError(f"{name} must be at least 4, not {getattr(self, name)!r}")
        # The controller remembers the bank group of the last command only.
        for short, long in (("ccds", "ccdl"), ("rrds", "rrdl")):
            low, high = getattr(self, short), getattr(self, long)
            if not low <= high <= 2 * low:
                raise ValueError(f"{long} must be from {low} to {2 * low}, not {high!r}")
        # After a refresh no older constraint is left.
        if self.rfc < max(self.rc, self.faw, self.precharge_after_write, self.read_after_write):
            raise ValueError(f"rfc must exceed every other constraint, not {self.rfc!r}")
        if not 2 * self.rfc < self.refi < 16384:
            raise ValueError(f"refi must be from 2 rfc to 16383, not {self.refi!r}")

    @property
    def precharge_after_write(self) -> int:
        """Write command to precharge of its bank."""
        return self.cwl + self.bl + self.wr

    @property
    def read_after_write(self) -> int:
        """Write command to a read in the same bank group."""
        return self.cwl + self.bl + self.wtrl

    def at_clock(self, name: str, tck_ps: int) -> "Timing":
        """Return the timing of a faster clock of ``tck_ps``: the nanoseconds kept, rounded up."""
        fixed = ("name", "tck_ps", "bl", "ccds", "ccdl", "row_bus")
        scaled = {
            field.name: math.ceil(getattr(self, field.name) * self.tck_ps / tck_ps)
            for field in dataclasses.fields(self)
            if field.name not in fixed
        }
        scaled["refi"] = self.refi * self.tck_ps // tck_ps
        return dataclasses.replace(self, name=name, tck_ps=tck_ps, **scaled)


HBM3_6400 = Timing(
    name="HBM3_6400", tck_ps=625, bl=2, cl=20, cwl=10, rcdrd=31, rcdwr=15, rp=26, ras=45, rc=72,
    ccds=2, ccdl=4, rrds=4, rrdl=5, faw=24, wr=33, wtrs=7, wtrl=10, rtp=9, rtw=20, row_bus=2,
    rfc=416, refi=6240,
)  # fmt: skip
"""HBM3 at 6.4 Gb/s with 4 Gb a channel, as Ramulator 2.1 encodes it."""

HBM2_2000 = Timing(
    name="HBM2_2000", tck_ps=1000, bl=2, cl=14, cwl=5, rcdrd=14, rcdwr=12, rp=14, ras=34, rc=48,
    ccds=2, ccdl=4, rrds=4, rrdl=6, faw=30, wr=16, wtrs=6, wtrl=8, rtp=5, rtw=13, row_bus=1,
    rfc=260, refi=3900,
)  # fmt: skip
"""HBM2 at 2 Gb/s: Ramulator's columns, DRAMsim3's activate and refresh figures."""

HBM3E_9200 = HBM3_6400.at_clock("HBM3E_9200", 435)
"""No public preset of HBM3E exists: HBM3's nanoseconds at the clock of 9.2 Gb/s."""

TIMINGS = {timing.name: timing for timing in (HBM2_2000, HBM3_6400, HBM3E_9200)}
