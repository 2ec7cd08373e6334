"""Rules of an HBM pseudo-channel, and where an address lies in it.

Written from the JEDEC names of the constraints, as a table of pairs: after a command of one kind,
how long a command of another must wait, and where (in the same bank, bank group or channel). A
trace of commands is checked against it from outside; nothing here knows how the controller works.
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

__all__ = ["RULES", "TIMINGS", "Command", "Location", "Pair", "Violation", "check", "decode"]

TIMINGS: dict[str, dict[str, int]] = {
    "HBM3_6400": {
        **{"bl": 2, "cl": 20, "cwl": 10, "rcdrd": 31, "rcdwr": 15, "rp": 26, "ras": 45, "rc": 72},
        **{"ccds": 2, "ccdl": 4, "rrds": 4, "rrdl": 5, "faw": 24, "wr": 33, "rtp": 9},
        **{"wtrs": 7, "wtrl": 10, "rtw": 20, "row_bus": 2, "rfc": 416, "refi": 6240},
    },
    "HBM2_2000": {
        **{"bl": 2, "cl": 14, "cwl": 5, "rcdrd": 14, "rcdwr": 12, "rp": 14, "ras": 34, "rc": 48},
        **{"ccds": 2, "ccdl": 4, "rrds": 4, "rrdl": 6, "faw": 30, "wr": 16, "rtp": 5},
        **{"wtrs": 6, "wtrl": 8, "rtw": 13, "row_bus": 1, "rfc": 260, "refi": 3900},
    },
}
"""Timings in command clocks."""

REFRESH_SLACK = 200
"""Clocks by which a refresh may be late: the open rows have to be closed before it."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a trace.

    Parameters
    ----------
    clock : int
    kind : str
        ACT, PRE, PREA, REF, RD or WR.
    group, bank : int
        Bank group, and bank in it, of the commands that have one.
    row, column : int
        Of ACT, and of RD and WR: the row and the column of 32 bytes that are meant.
    """

    clock: int
    kind: str
    group: int = 0
    bank: int = 0
    row: int = 0
    column: int = 0


Gap = Callable[[Mapping[str, int]], int]
"""Clocks, from the table of timings."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """After ``before``, ``after`` waits at least ``gap(timing)`` clocks in the same ``scope``."""

    name: str
    before: str
    after: str
    scope: str
    gap: Gap


@dataclasses.dataclass(frozen=True)
class Violation:
    """A command that came too early, in the wrong state, or (REFI) not at all."""

    clock: int
    rule: str
    text: str


def _pairs() -> Iterable[Pair]:
    def pair(name: str, before: str, after: str, scope: str, gap: Gap) -> Iterable[Pair]:
        for first in before.split():
            for second in after.split():
                yield Pair(name, first, second, scope, gap)

    def write_end(timing: Mapping[str, int]) -> int:
        return timing["cwl"] + timing["bl"]

    yield from pair("RC", "ACT", "ACT", "bank", lambda t: t["rc"])
    yield from pair("RC", "ACT", "REF", "channel", lambda t: t["rc"])
    yield from pair("RRDS", "ACT", "ACT", "channel", lambda t: t["rrds"])
    yield from pair("RRDL", "ACT", "ACT", "group", lambda t: t["rrdl"])
    yield from pair("RAS", "ACT", "PRE", "bank", lambda t: t["ras"])
    yield from pair("RAS", "ACT", "PREA", "channel", lambda t: t["ras"])
    yield from pair("RCDRD", "ACT", "RD", "bank", lambda t: t["rcdrd"])
    yield from pair("RCDWR", "ACT", "WR", "bank", lambda t: t["rcdwr"])
    yield from pair("RP", "PRE", "ACT", "bank", lambda t: t["rp"])
    yield from pair("RP", "PREA", "ACT", "channel", lambda t: t["rp"])
    yield from pair("RP", "PRE PREA", "REF", "channel", lambda t: t["rp"])
    yield from pair("RTP", "RD", "PRE", "bank", lambda t: t["rtp"])
    yield from pair("RTP", "RD", "PREA", "channel", lambda t: t["rtp"])
    yield from pair("WR", "WR", "PRE", "bank", lambda t: write_end(t) + t["wr"])
    yield from pair("WR", "WR", "PREA", "channel", lambda t: write_end(t) + t["wr"])
    for same in ("RD", "WR"):
        yield from pair("CCDS", same, same, "channel", lambda t: t["ccds"])
        yield from pair("CCDL", same, same, "group", lambda t: t["ccdl"])
    yield from pair("WTRS", "WR", "RD", "channel", lambda t: write_end(t) + t["wtrs"])
    yield from pair("WTRL", "WR", "RD", "group", lambda t: write_end(t) + t["wtrl"])
    yield from pair("RTW", "RD", "WR", "channel", lambda t: t["rtw"])
    yield from pair("RFC", "REF", "ACT PRE PREA REF", "channel", lambda t: t["rfc"])
    yield from pair(
        "ROWBUS", "ACT PRE PREA REF", "ACT PRE PREA REF", "channel", lambda t: t["row_bus"]
    )
    yield from pair("COLBUS", "RD WR", "RD WR", "channel", lambda t: 1)


RULES: tuple[Pair, ...] = tuple(_pairs())
"""The table."""


def _key(scope: str, command: Command) -> tuple[int, ...]:
    return {
        "channel": (),
        "group": (command.group,),
        "bank": (command.group, command.bank),
    }[scope]


def check(
    trace: Iterable[Command], timing: Mapping[str, int], *, end: int | None = None
) -> list[Violation]:
    """Return the violations in a trace that starts with every bank closed.

    Parameters
    ----------
    trace : iterable of Command
        By ascending clock; of one clock, the column command first.
    timing : mapping
        As in `TIMINGS`.
    end : int, optional
        Clock of the trace's end, up to which refreshes must have come; default the last command.
    """
    found: list[Violation] = []
    last: dict[tuple[str, str, tuple[int, ...]], int] = {}
    activates: deque[int] = deque(maxlen=4)
    rows: dict[tuple[int, int], int] = {}
    refreshed = clock = 0
    by_after: dict[str, list[Pair]] = {}
    for rule in RULES:
        by_after.setdefault(rule.after, []).append(rule)

    def report(rule: str, text: str) -> None:
        found.append(Violation(clock, rule, f"{clock}: {rule}: {text}"))

    for command in trace:
        kind, clock = command.kind, command.clock
        where = (command.group, command.bank)
        for rule in by_after[kind]:
            before = last.get((rule.before, rule.scope, _key(rule.scope, command)))
            gap = rule.gap(timing)
            if before is not None and clock - before < gap:
                report(rule.name, f"{kind} is {clock - before} after {rule.before}, not {gap}")
        for scope in ("channel", "group", "bank"):
            last[kind, scope, _key(scope, command)] = clock
        if kind == "ACT":
            if len(activates) == 4 and clock - activates[0] < timing["faw"]:
                report("FAW", f"a fifth ACT {clock - activates[0]} after the first")
            activates.append(clock)
            if where in rows:
                report("STATE", f"ACT of the open bank {where}")
            rows[where] = command.row
        elif kind == "PRE":
            rows.pop(where, None)
        elif kind == "PREA":
            rows.clear()
        elif kind == "REF":
            if rows:
                report("STATE", "REF with open banks")
            if clock - refreshed > timing["refi"] + REFRESH_SLACK:
                report("REFI", f"REF is {clock - refreshed} after the last")
            refreshed = clock
        elif rows.get(where) != command.row:
            report("STATE", f"{kind} of row {command.row}, open is {rows.get(where)}")
    clock = clock if end is None else end
    if clock - refreshed > timing["refi"] + REFRESH_SLACK:
        report("REFI", f"no REF since {refreshed}")
    return found


@dataclasses.dataclass(frozen=True)
class Location:
    """Place of a column of 32 bytes."""

    channel: int
    group: int
    bank: int
    row: int
    column: int


def decode(address: int, channels: int) -> Location:
    """Return where the byte ``address`` lies among 1 or 2 channels."""
    fields = Counter[str]()
    order = ["group", "column", "column", *["channel"] * (channels - 1), "group"]
    order += ["column"] * 3 + ["bank"] * 2
    rest = address // 32
    for name in order:
        rest, bit = divmod(rest, 2)
        place = fields[name + " bits"]
        fields[name] += bit << place
        fields[name + " bits"] += 1
    row, folded = rest, 0
    while rest:
        folded, rest = folded ^ rest & 15, rest >> 4
    return Location(
        channel=(fields["channel"] ^ row >> 4) & 1 if channels == 2 else 0,
        group=fields["group"] ^ folded & 3,
        bank=fields["bank"] ^ folded >> 2,
        row=row,
        column=fields["column"],
    )
