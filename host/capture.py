"""Waveforms from the capture on the chip: arm it, read it, write it as VCD.

>>> with Card.open("board", bitstream="card.bit") as card:
...     capture = Capture(card.transport)
...     capture.arm("compute.start=1,compute.ready=1", after=400)
...     run(card)
...     write_vcd(capture.read(), "card.vcd", capture.clock_hz)
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from amaranth.hdl import Shape
from amaranth.lib import data
from vcd import VCDWriter

from ..rtl.isa.link import CaptureControl, ShellCsr
from ..rtl.isa.probe import Probe
from .errors import CardError

__all__ = ["SIGNALS", "Capture", "Recording", "parse_trigger", "write_vcd"]

_PICOSECONDS = 10**12

_STATE = (
    *(ShellCsr.CAPTURE_CONTROL, ShellCsr.CAPTURE_COUNT),
    *(ShellCsr.CAPTURE_FIRST, ShellCsr.CAPTURE_TRIGGER),
)
_SAMPLE = (ShellCsr.CAPTURE_DATA, ShellCsr.CAPTURE_DATA_HIGH, ShellCsr.CAPTURE_AGE)


def _signals(layout: data.Layout, prefix: str = "", offset: int = 0) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for name, field in layout:
        at = offset + field.offset
        if isinstance(field.shape, type) and issubclass(field.shape, data.Struct):
            found |= _signals(data.Layout.cast(field.shape), f"{prefix}{name}.", at)
        else:
            found[prefix + str(name)] = (at, Shape.cast(field.shape).width)
    return found


SIGNALS = _signals(data.Layout.cast(Probe))
"""Signals of `Probe` by name: the lowest bit and the number of bits."""


class Registers(Protocol):
    """The part of a `transport.Transport` that a capture needs."""

    def csr_read_many(self, addresses: Sequence[int]) -> list[int]: ...

    def csr_write(self, address: int, value: int) -> None: ...


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was captured: cycles, counted from the first sample, and the probe from each on.

    Parameters
    ----------
    cycles, values : tuple of int
    trigger : int or None
        The cycle of the trigger; None if it was not seen, or is lost behind later samples.
    """

    cycles: tuple[int, ...]
    values: tuple[int, ...]
    trigger: int | None


def parse_trigger(text: str) -> tuple[int, int]:
    """Return mask and value of a trigger such as ``"compute.start=1,mac_active=4"``.

    An empty text triggers at once.

    Raises
    ------
    ValueError
        If there is no such signal, or it has no such value; names the limit.
    """
    mask = value = 0
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (word.strip() for word in part.partition("="))
        if name not in SIGNALS:
            raise ValueError(f"no signal {name!r} to trigger; choose of: {', '.join(SIGNALS)}")
        offset, width = SIGNALS[name]
        try:
            wanted = int(number, 0) if equals else 1
        except ValueError:
            raise ValueError(f"trigger {part!r} must be NAME=NUMBER") from None
        if not 0 <= wanted < 1 << width:
            raise ValueError(f"{name} must be from 0 to {(1 << width) - 1}, not {wanted!r}")
        mask |= ((1 << width) - 1) << offset
        value = value & ~(((1 << width) - 1) << offset) | wanted << offset
    return mask, value


class Capture:
    """The capture of a board.

    Parameters
    ----------
    registers
        The transport of a board's card.
    """

    def __init__(self, registers: Registers) -> None:
        self._read, self._write = registers.csr_read_many, registers.csr_write
        self.depth, self.clock_hz = self._read((ShellCsr.CAPTURE_DEPTH, ShellCsr.CLOCK_HZ))
        if not self.depth or not self.clock_hz:
            raise CardError("the board has no capture; build its bitstream anew")

    def arm(self, trigger: str = "", *, after: int | None = None) -> None:
        """Start a capture.

        Parameters
        ----------
        trigger : str
            See `parse_trigger`.
        after : int
            Samples to keep from behind the trigger, fewer than ``depth``; half of them if not
            given. The rest shows what was before it.
        """
        mask, value = parse_trigger(trigger)
        after = self.depth // 2 if after is None else after
        if not 0 <= after < self.depth:
            raise ValueError(f"after must be from 0 to {self.depth - 1}, not {after!r}")
        for register, number in (
            (ShellCsr.CAPTURE_CONTROL, CaptureControl.STOP),
            (ShellCsr.CAPTURE_AFTER, after),
            (ShellCsr.CAPTURE_MASK, mask & 0xFFFFFFFF),
            (ShellCsr.CAPTURE_MASK_HIGH, mask >> 32),
            (ShellCsr.CAPTURE_VALUE, value & 0xFFFFFFFF),
            (ShellCsr.CAPTURE_VALUE_HIGH, value >> 32),
            (ShellCsr.CAPTURE_CONTROL, CaptureControl.ARM),
        ):
            self._write(register, int(number))

    def read(self) -> Recording:
        """Stop the capture, if it still runs, and return what it has recorded."""
        self._write(ShellCsr.CAPTURE_CONTROL, int(CaptureControl.STOP))
        state, count, first, trigger = self._read(_STATE)
        position = (trigger - first) % self.depth
        cycles: list[int] = []
        values: list[int] = []
        for number in range(count):
            self._write(ShellCsr.CAPTURE_INDEX, (first + number) % self.depth)
            low, high, age = self._read(_SAMPLE)
            values.append(low | high << 32)
            cycles.append(cycles[-1] + age if cycles else 0)
        seen = state & 2 and position < count
        return Recording(tuple(cycles), tuple(values), cycles[position] if seen else None)


def write_vcd(recording: Recording, path: str | Path, clock_hz: int) -> None:
    """Write a recording as VCD, with a signal ``trigger`` that is high in the trigger's cycle."""
    with (
        Path(path).open("w", encoding="ascii") as file,
        VCDWriter(file, timescale="1 ps", version="deepseek-host") as writer,
    ):
        wires = {
            name: writer.register_var(*_place(name), "wire", size=width, init=0)
            for name, (_, width) in SIGNALS.items()
        }
        mark = writer.register_var("card", "trigger", "wire", size=1, init=0)
        events = dict(zip(recording.cycles, recording.values, strict=True))
        if recording.trigger is not None:
            events.setdefault(recording.trigger + 1, events[recording.trigger])
        for cycle, value in sorted(events.items()):
            time = cycle * _PICOSECONDS // clock_hz
            for name, (offset, width) in SIGNALS.items():
                writer.change(wires[name], time, value >> offset & ((1 << width) - 1))
            writer.change(mark, time, int(cycle == recording.trigger))


def _place(name: str) -> tuple[str, str]:
    scope, _, leaf = f"card.{name}".rpartition(".")
    return scope, leaf
