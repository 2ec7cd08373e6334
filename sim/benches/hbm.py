"""Bench of an HBM channel: its commands against the rule table, its data against the bursts.

Tests of `Channel`, and one, `device_agrees`, of `Device`.
"""

import os

import cocotb

from ...rtl.memory.address import access_layout
from ...rtl.memory.device import (
    ColumnKind,
    RowKind,
    Rule,
    column_command_layout,
    row_command_layout,
)
from ..golden.hbm import TIMINGS, Command, check
from .lib import StreamSource, pack, rng, sample, start, tick, unpack

ROW_BITS = 12
"""Row bits of the design under test."""

KINDS = ("sequential", "random", "mixed", "conflict")
"""Patterns of `traffic`."""

_ROW_NAMES = {"ACTIVATE": "ACT", "PRECHARGE": "PRE", "PRECHARGE_ALL": "PREA", "REFRESH": "REF"}
_COLUMN_NAMES = {"READ": "RD", "WRITE": "WR"}


def timing() -> dict[str, int]:
    """Return the rule table's own timing of the design under test."""
    return TIMINGS[os.environ["HBM_TIMING"]]


def random_bursts(r, count: int, kind: str):
    """Yield accesses of a traffic pattern."""
    place = int(r.integers(1 << 18))
    for index in range(count):
        if kind == "sequential" or (kind == "mixed" and r.random() < 0.7):
            place += 1
        elif kind == "conflict":
            place = int(r.integers(1 << 18)) & ~0x3F
        else:
            place = int(r.integers(1 << 18))
        first = int(r.integers(8)) if kind != "sequential" else 0
        last = int(r.integers(first, 8)) if kind != "sequential" else 7
        row = place >> 6 & 0xFFF
        yield {
            "row": row,
            "bank": ((place >> 4 & 3) << 2 | (place & 1) << 1) ^ (row & 0xF),
            "high": place >> 1 & 7,
            "first": first,
            "last": last,
            "write": int(r.random() < 0.4) if kind != "sequential" else index // 64 % 2,
        }


class Watch:
    """Records the commands of a channel and checks that each burst's columns come in order."""

    def __init__(self, dut) -> None:
        self.dut = dut
        self.trace: list[Command] = []
        self.expected: list[tuple[str, int, int, int]] = []
        self.columns = 0
        self.done: list[int] = []
        self.events = {"activate": 0, "row_hit": 0, "refresh": 0}
        self.clock = 0

    def expect(self, access: dict) -> None:
        for block in range(access["first"], access["last"] + 1):
            self.expected.append(
                (
                    "WR" if access["write"] else "RD",
                    access["bank"] ^ (block & 1),
                    access["row"],
                    access["high"] << 2 | block >> 1,
                )
            )

    async def run(self) -> None:
        dut = self.dut
        while True:
            await sample(dut)
            assert not int(dut.illegal.value), f"illegal: {Rule(int(dut.rule.value))}"
            column = unpack(column_command_layout(ROW_BITS), int(dut.column.value))
            if column["kind"]:
                kind = _COLUMN_NAMES[ColumnKind(column["kind"]).name]
                bank = column["bank"]
                got = (kind, bank, column["row"], column["column"])
                assert got == self.expected[self.columns]
                self.columns += 1
                self.trace.append(
                    Command(self.clock, kind, bank & 3, bank >> 2, column["row"], column["column"])
                )
            row = unpack(row_command_layout(ROW_BITS), int(dut.row.value))
            if row["kind"]:
                kind = _ROW_NAMES[RowKind(row["kind"]).name]
                bank = row["bank"]
                self.trace.append(Command(self.clock, kind, bank & 3, bank >> 2, row["row"]))
            if int(dut.done.value):
                self.done.append(self.clock)
            for event in self.events:
                self.events[event] += int(getattr(dut, event).value)
            self.clock += 1
            await tick(dut)


@cocotb.test()
@cocotb.parametrize(kind=KINDS)
async def traffic(dut, kind):
    """Every command is legal, every column is accessed once and in order, data end on time."""
    r = rng()
    t = timing()
    await start(dut)
    watch = Watch(dut)
    cocotb.start_soon(watch.run())
    source = StreamSource(dut, "request", rng=r)
    total = int(os.environ.get("HBM_CYCLES", "0")) or int(2.3 * t["refi"])
    while watch.clock < total:
        # Now at full rate, now with pauses, in which the queue runs empty.
        source.stall = float(r.choice([0.0, 0.0, 0.9, 0.99])) if kind != "sequential" else 0.0
        for access in random_bursts(r, 40, kind):
            watch.expect(access)
            source.put(pack(access_layout(ROW_BITS), access))
        await source.drain()
    await tick(dut, 2 * t["rfc"] + 2000)

    trace = watch.trace
    found = check(trace, t, end=watch.clock)
    assert not found, "\n".join(violation.text for violation in found[:20])
    assert watch.columns == len(watch.expected)
    latency = {"RD": t["cl"] + t["bl"], "WR": t["cwl"] + t["bl"]}
    columns = [command for command in trace if command.kind in latency]
    assert watch.done == [c.clock + latency[c.kind] for c in columns]
    kinds = [command.kind for command in trace]
    assert watch.events["activate"] == kinds.count("ACT")
    assert watch.events["refresh"] == kinds.count("REF") >= 2
    fresh: set[tuple[int, int]] = set()
    hits = 0
    for command in trace:
        where = (command.group, command.bank)
        if command.kind == "ACT":
            fresh.add(where)
        elif command.kind in latency:
            hits += where not in fresh
            fresh.discard(where)
    assert watch.events["row_hit"] == hits
    busy = [c.clock for c in columns]
    rate = len(busy) * t["bl"] / (busy[-1] - busy[0])
    dut._log.info("%s: %d commands, data bus %.1f %% busy", kind, len(trace), 100 * rate)
    if kind == "sequential":
        assert rate > 0.8


@cocotb.test()
async def device_agrees(dut):
    """The device model and the rule table find fault with the same clocks of random commands."""
    r = rng()
    t = timing()
    gaps = sorted({gap for name, gap in t.items() if name not in ("refi", "rfc")})
    names = {value: key for key, value in _ROW_NAMES.items()}
    column_names = {value: key for key, value in _COLUMN_NAMES.items()}
    await start(dut)
    trace: list[Command] = []
    illegal: list[int] = []
    rows: dict[tuple[int, int], int] = {}
    clock, pause = 0, 0
    while clock < int(os.environ.get("HBM_CYCLES", "14000")):
        column = row = None
        if not pause:
            # Few banks, and gaps near the limits, so that every rule is met from both sides.
            group, bank = int(r.integers(2)), int(r.integers(2))
            if r.random() < 0.6:
                kind = str(r.choice(["RD", "WR"]))
                wanted = rows.get((group, bank), 0) if r.random() < 0.95 else 1
                column = Command(clock, kind, group, bank, wanted)
            if r.random() < 0.3:
                group, bank = int(r.integers(2)), int(r.integers(2))
                kinds = ["PRE"] if (group, bank) in rows else ["ACT"]
                kinds += ["REF"] if not rows else []
                kind = str(r.choice(kinds))
                if r.random() < 0.03:
                    kind = str(r.choice(["ACT", "PRE", "PREA"]))
                row = Command(clock, kind, group, bank, int(r.integers(2)))
                if kind == "REF" and r.random() < 0.7:
                    pause = int(r.choice([t["rfc"] - 1, t["rfc"], t["rfc"] + 20]))
            if not pause:
                pause = int(r.choice(gaps)) + int(r.integers(-2, 2)) if r.random() < 0.7 else 0
                pause = max(pause, 0)
        else:
            pause -= 1
        dut.column.value = 0
        dut.row.value = 0
        if column:
            trace.append(column)
            dut.column.value = pack(
                column_command_layout(ROW_BITS),
                kind=ColumnKind[column_names[column.kind]].value,
                bank=column.bank << 2 | column.group,
                row=column.row,
            )
        if row:
            trace.append(row)
            if row.kind == "ACT":
                rows[row.group, row.bank] = row.row
            elif row.kind == "PRE":
                rows.pop((row.group, row.bank), None)
            elif row.kind == "PREA":
                rows.clear()
            dut.row.value = pack(
                row_command_layout(ROW_BITS),
                kind=RowKind[names[row.kind]].value,
                bank=row.bank << 2 | row.group,
                row=row.row,
            )
        await tick(dut)
        clock += 1
        await sample(dut)
        if int(dut.illegal.value) and Rule(int(dut.rule.value)) != Rule.REFI:
            illegal.append(clock - 1)

    found = check(trace, t)
    expected = sorted({v.clock for v in found if v.rule != "REFI"})
    rules = {v.rule for v in found}
    assert rules >= {"STATE", "RP", "RAS", "RC", "RRDS", "RCDRD", "CCDL", "RTP", "WR", "RFC"}
    assert len(expected) < 0.9 * len({command.clock for command in trace})
    assert illegal == expected, (
        f"only the device: {sorted(set(illegal) - set(expected))[:10]}, only the table: "
        + "; ".join(v.text for v in found if v.clock not in set(illegal))[:800]
    )
