"""Captures: triggers in words, what is read of the registers, and the VCD."""

import numpy as np
import pytest
from vcd.reader import TokenKind, tokenize

from deepseek.host.capture import SIGNALS, Capture, parse_trigger, write_vcd
from deepseek.rtl.isa.link import CaptureControl, ShellCsr
from deepseek.sim.golden.capture import record

DEPTH = 16


class Board:
    """Registers of a capture, recorded by the golden model."""

    def __init__(self, trace):
        self.trace = np.asarray(trace, np.uint64)
        self.registers = {ShellCsr.CAPTURE_DEPTH: DEPTH, ShellCsr.CLOCK_HZ: 50_000_000}
        self.recording = None
        self.trips = 0

    def csr_write(self, address, value):
        self.registers[address] = value
        if address != ShellCsr.CAPTURE_CONTROL or value != CaptureControl.ARM:
            return
        both = [
            self.registers[low] | self.registers[high] << 32
            for low, high in (
                (ShellCsr.CAPTURE_MASK, ShellCsr.CAPTURE_MASK_HIGH),
                (ShellCsr.CAPTURE_VALUE, ShellCsr.CAPTURE_VALUE_HIGH),
            )
        ]
        self.recording = record(
            self.trace,
            mask=both[0],
            value=both[1],
            after=self.registers[ShellCsr.CAPTURE_AFTER],
            depth=DEPTH,
        )

    def csr_read(self, address):
        kept = self.recording
        if kept is None:
            return self.registers[address]
        index = self.registers.get(ShellCsr.CAPTURE_INDEX, 0)
        number = (index - 3) % DEPTH  # as if three were lost
        value = int(kept.values[number]) if number < len(kept.values) else 0
        return {
            ShellCsr.CAPTURE_CONTROL: 0 if kept.trigger is None else 2,
            ShellCsr.CAPTURE_COUNT: len(kept.values),
            ShellCsr.CAPTURE_FIRST: 3,
            ShellCsr.CAPTURE_TRIGGER: ((kept.trigger or 0) + 3) % DEPTH,
            ShellCsr.CAPTURE_DATA: value & 0xFFFFFFFF,
            ShellCsr.CAPTURE_DATA_HIGH: value >> 32,
            ShellCsr.CAPTURE_AGE: int(kept.ages[number]) if number < len(kept.ages) else 0,
            ShellCsr.CLOCK_HZ: self.registers[ShellCsr.CLOCK_HZ],
        }[address]

    def csr_read_many(self, addresses):
        self.trips += 1
        return [self.csr_read(address) for address in addresses]


def bit(name):
    return 1 << SIGNALS[name][0]


def test_triggers():
    assert parse_trigger("") == (0, 0)
    assert parse_trigger("compute.start") == (bit("compute.start"), bit("compute.start"))
    mask, value = parse_trigger("mac_active=0x12, irq=0")
    offset, width = SIGNALS["mac_active"]
    assert mask == ((1 << width) - 1) << offset | bit("irq")
    assert value == 0x12 << offset
    assert sum(width for _, width in SIGNALS.values()) == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compute", "no signal 'compute'"),
        ("irq=2", "irq must be from 0 to 1, not 2"),
        ("irq=yes", "must be NAME=NUMBER"),
    ],
)
def test_triggers_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_trigger(text)


def test_recording_and_vcd(tmp_path):
    irq, beat = bit("irq"), bit("read_beat")
    trace = [0, 0, beat, beat, 0, irq, irq, irq, irq | beat, 0, 0, beat]
    board = Board(trace)
    capture = Capture(board)
    capture.arm("irq=1", after=2)
    board.trips = 0
    recording = capture.read()
    assert board.trips == 1 + len(recording.values)
    assert recording.cycles == (0, 2, 4, 5, 8, 9)
    assert recording.values == (0, beat, 0, irq, irq | beat, 0)
    assert recording.trigger == 5

    path = tmp_path / "card.vcd"
    write_vcd(recording, path, capture.clock_hz)
    names, changes, time = {}, {}, 0
    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.VAR:
                names[token.data.id_code] = token.data.reference
            elif token.kind is TokenKind.CHANGE_TIME:
                time = token.data
            elif token.kind is TokenKind.CHANGE_SCALAR:
                changes.setdefault(names[token.data.id_code], []).append((time, token.data.value))
    assert changes["irq"] == [(0, "0"), (100_000, "1"), (180_000, "0")]
    assert changes["trigger"] == [(0, "0"), (100_000, "1"), (120_000, "0")]
    assert changes["read_beat"] == [
        (0, "0"),
        *[(40_000, "1"), (80_000, "0"), (160_000, "1"), (180_000, "0")],
    ]


def test_nothing_triggered():
    capture = Capture(Board([1, 2, 3]))
    capture.arm("irq=1,store.error=1")
    assert capture.read().trigger is None
    with pytest.raises(ValueError, match="after must be from 0 to 15, not 16"):
        capture.arm(after=16)
