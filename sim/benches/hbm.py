"""Bench of an HBM channel: its commands against the rule table, its data against the bursts.

`traffic` is a test of `Channel`, the others are of `Device`.
"""

import os
from collections.abc import Iterable

import cocotb

from ...rtl.memory.address import access_layout
from ...rtl.memory.device import (
    ColumnKind,
    RowKind,
    Rule,
    column_command_layout,
    row_command_layout,
)
from ..golden.hbm import RULES, TIMINGS, Command, check
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


class Commands:
    """Random commands, most of them just legal or just too early by one of the rules.

    Each command plans the next by a rule of the table that begins with its kind.
    """

    def __init__(self, r, t: dict[str, int]) -> None:
        self.rng, self.timing = r, t
        self.rows: dict[tuple[int, int], int] = {}
        self.resume = 0
        self.plan: list[tuple[str, tuple[int, int], int]] = []

    def _where(self, kind: str, groups: Iterable[int], avoid: tuple[int, int]) -> tuple[int, int]:
        """Choose a bank in one of the groups, one in the state that the command needs if any."""
        places = [(g, b) for g in groups for b in range(4) if (g, b) != avoid]
        good = [place for place in places if (place in self.rows) == (kind != "ACT")]
        choice = good or places
        return choice[int(self.rng.integers(len(choice)))]

    def _make(self, clock: int, kind: str, where: tuple[int, int]) -> Command:
        row = int(self.rng.integers(4))
        if kind in ("RD", "WR") and self.rng.random() < 0.97:
            row = self.rows.get(where, row)
        elif kind == "ACT":
            self.rows[where] = row
        elif kind == "PRE":
            self.rows.pop(where, None)
        elif kind == "PREA":
            self.rows.clear()
        return Command(clock, kind, *where, row)

    def _follow(self, clock: int, kind: str, where: tuple[int, int]) -> None:
        """Plan what comes after a command."""
        r, t = self.rng, self.timing
        draw = r.random()
        if kind == "ACT" and draw < 0.1:
            gaps = [t["rrds"], t["rrdl"], t["faw"] // 4, t["faw"] // 4 + 1]
            start = int(r.integers(16))
            places = [((start + 5 * i) % 4, (start + 5 * i) // 4 % 4) for i in range(4)]
            self.plan = [("ACT", place, int(r.choice(gaps))) for place in places]
        elif kind == "ACT" and draw < 0.2:
            late = int(r.integers(2))
            self.plan = [("PRE", where, t["ras"]), ("ACT", where, t["rc"] - t["ras"] - late)]
        elif draw < 0.92:
            rules = [rule for rule in RULES if rule.before == kind and rule.name != "COLBUS"]
            rule = rules[int(r.integers(len(rules)))]
            place = where
            if rule.scope != "bank":
                groups = range(4) if rule.scope == "channel" else [where[0]]
                place = self._where(rule.after, groups, where)
            if rule.after != "REF" or r.random() < 0.3:
                self.plan = [(rule.after, place, max(rule.gap(t) - int(r.integers(2)), 1))]
        if not self.plan:
            self.resume = clock + 1 + int(r.choice([0, 30, 60]))

    def at(self, clock: int) -> list[Command]:
        """Return the commands of a clock, that of the column bus first."""
        r = self.rng
        if clock < self.resume:
            return []
        if self.plan:
            kind, where, _ = self.plan.pop(0)
        else:
            kinds = ["RD", "WR", "ACT", "ACT", "PRE", "PREA" if self.rows else "REF"]
            kind = str(r.choice(kinds, p=[0.25, 0.25, 0.2, 0.1, 0.15, 0.05]))
            where = self._where(kind, range(4), (-1, -1))
        commands = [self._make(clock, kind, where)]
        if kind in ("RD", "WR") and r.random() < 0.05:
            # One on each bus at once.
            other = str(r.choice(["ACT", "PRE", "PREA"]))
            commands.append(self._make(clock, other, self._where(other, range(4), (-1, -1))))
        if not self.plan:
            self._follow(clock, kind, where)
        if self.plan:
            self.resume = clock + self.plan[0][2]
        return commands


@cocotb.test()
async def device_agrees(dut):
    """The device model and the rule table find fault with the same clocks of random commands."""
    t = timing()
    names = {
        **{name: (dut.row, row_command_layout, RowKind[key]) for key, name in _ROW_NAMES.items()},
        **{
            name: (dut.column, column_command_layout, ColumnKind[key])
            for key, name in _COLUMN_NAMES.items()
        },
    }
    await start(dut)
    commands = Commands(rng(), t)
    trace: list[Command] = []
    illegal: list[int] = []
    broken: dict[int, set[str]] = {}
    # Each rule must be the only one that a command broke. There is one column command a clock at
    # most, so that bus cannot collide.
    missed = all_rules = ({rule.name for rule in RULES} | {"STATE", "FAW"}) - {"COLBUS"}
    for clock in range(200_000):
        if clock % 12_000 == 0 and clock > 12_000:
            broken.clear()
            for violation in check(trace, t):
                if violation.rule != "REFI":
                    broken.setdefault(violation.clock, set()).add(violation.rule)
            missed = all_rules.difference(*(rules for rules in broken.values() if len(rules) == 1))
            if not missed:
                break
        dut.column.value = 0
        dut.row.value = 0
        for command in commands.at(clock):
            trace.append(command)
            port, layout, kind = names[command.kind]
            bank = command.bank << 2 | command.group
            port.value = pack(layout(ROW_BITS), kind=kind.value, bank=bank, row=command.row)
        await tick(dut)
        await sample(dut)
        if int(dut.illegal.value) and Rule(int(dut.rule.value)) != Rule.REFI:
            illegal.append(clock)

    assert not missed, f"never the only rule that was broken: {missed}"
    assert len({command.clock for command in trace} - set(broken)) > 100
    only_device = sorted(set(illegal) - set(broken))
    only_table = sorted((clock, *broken[clock]) for clock in set(broken) - set(illegal))
    assert illegal == sorted(broken), f"only the device: {only_device}, the table: {only_table}"
    dut._log.info("%d commands, %d illegal clocks", len(trace), len(illegal))


@cocotb.test()
async def device_needs_refresh(dut):
    """The device reports that two refresh intervals have passed, and not earlier."""
    dut.row.value = dut.column.value = 0
    await start(dut)
    await tick(dut, 2 * timing()["refi"] - 50)
    await sample(dut)
    assert not int(dut.illegal.value)
    await tick(dut, 100)
    await sample(dut)
    assert int(dut.illegal.value) and Rule(int(dut.rule.value)) == Rule.REFI
