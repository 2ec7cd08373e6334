"""Waveform capture on the chip: a logic analyser for `Probe`."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..isa.link import CaptureControl, ShellCsr
from ..isa.probe import Probe
from ..numerics.delay import delayed
from .csr import HOST_READ_LATENCY

__all__ = ["AGE_BITS", "Capture"]

AGE_BITS = 16
"""Bits of the cycles between two samples; a probe that stays longer is stored again."""


class _State(enum.Enum, shape=unsigned(2)):
    IDLE = 0
    BEFORE = 1
    AFTER = 2


class Capture(wiring.Component):
    """Records the probe's changes in block RAM, around a trigger.

    A sample is stored when the probe has changed, when it has not for ``2^AGE_BITS - 1`` cycles,
    when the capture is armed and when it triggers: the probe's value, and the cycles since the
    sample before. Old samples make room for new ones. The trigger is the first cycle after arming
    in which ``probe & CAPTURE_MASK`` equals ``CAPTURE_VALUE``, or one that the host forces. After
    `ShellCsr.CAPTURE_AFTER` further samples the capture ends and keeps what it has.

    Parameters
    ----------
    depth : int
        Samples kept: a power of two, up to 2^15.

    Members
    -------
    probe : ``In(Probe)``
    address, write, write_data, read_data
        As `HostPort`, with 12 bits of address; ``read_data`` is zero for what is no register of
        the capture.
    """

    def __init__(self, *, depth: int = 512) -> None:
        if depth < 2 or depth > 1 << 15 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two from 2 to 32768, not {depth!r}")
        self.depth = depth
        super().__init__(
            {
                "probe": In(Probe),
                "address": In(12),
                "write": In(1),
                "write_data": In(32),
                "read_data": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth, width = self.depth, len(self.probe.as_value())
        after = Signal(range(depth))
        mask, value = Signal(width), Signal(width)
        index = Signal(range(depth))
        control = self.write & (self.address == ShellCsr.CAPTURE_CONTROL)
        arm, stop = Signal(), Signal()
        forced, force = Signal(), Signal()  # as late as the probe of that cycle
        m.d.sync += [
            arm.eq(control & self.write_data[CaptureControl.ARM.bit_length() - 1]),
            stop.eq(control & self.write_data[CaptureControl.STOP.bit_length() - 1]),
            forced.eq(control & self.write_data[CaptureControl.TRIGGER.bit_length() - 1]),
            force.eq(forced),
        ]

        # Three cycles behind the probe: it is registered, compared, and stored.
        now = Signal(width, reset_less=True)
        then = Signal(width, reset_less=True)
        changed, hit = Signal(), Signal()
        m.d.sync += [
            now.eq(self.probe),
            then.eq(now),
            changed.eq(now != then),
            hit.eq((now & mask) == value),
        ]

        state = Signal(_State)
        triggered = Signal()
        age = Signal(AGE_BITS)
        put = Signal(range(depth))
        held = Signal(range(depth + 1))
        trigger = Signal(range(depth))
        left = Signal(range(depth))
        armed = Signal()
        fire = Signal()
        store = Signal()
        running = Signal()
        # Found a cycle ahead: that nothing was stored for long, and that one sample is left.
        long, final = Signal(), Signal()
        m.d.sync += armed.eq(arm)
        m.d.comb += [
            running.eq(state != _State.IDLE),
            fire.eq((state == _State.BEFORE) & (hit | force)),
            store.eq(running & (armed | changed | fire | long)),
        ]
        m.submodules.samples = samples = Memory(
            shape=data.StructLayout({"value": unsigned(width), "age": unsigned(AGE_BITS)}),
            depth=depth,
            init=[],
        )
        writer = samples.write_port()
        m.d.comb += [
            writer.en.eq(store),
            writer.addr.eq(put),
            writer.data.value.eq(then),
            writer.data.age.eq(age),
        ]
        m.d.sync += [age.eq(age + 1), long.eq((age == (1 << AGE_BITS) - 2) & ~store & ~arm)]
        with m.If(store):
            m.d.sync += [age.eq(1), put.eq(put + 1)]
            with m.If(held != depth):
                m.d.sync += held.eq(held + 1)
            with m.If(state == _State.AFTER):
                m.d.sync += [left.eq(left - 1), final.eq(left == 2)]
        with m.If(fire):
            m.d.sync += [trigger.eq(put), triggered.eq(1), state.eq(_State.AFTER)]
            m.d.sync += [left.eq(after), final.eq(after == 1)]
            with m.If(after == 0):
                m.d.sync += state.eq(_State.IDLE)
        with m.Elif(store & (state == _State.AFTER) & final):
            m.d.sync += state.eq(_State.IDLE)
        with m.If(stop):
            m.d.sync += state.eq(_State.IDLE)
        with m.If(arm):
            m.d.sync += [
                *(state.eq(_State.BEFORE), triggered.eq(0)),
                *(put.eq(0), held.eq(0), age.eq(0)),
            ]

        reader = samples.read_port()
        # Block RAM is slow to answer: nothing but a register follows it.
        sample = Signal(reader.data.shape(), reset_less=True)
        first = Signal(range(depth))
        m.d.comb += [reader.addr.eq(index), first.eq((put - held)[: len(first)])]
        m.d.sync += sample.eq(reader.data)
        writable = {
            ShellCsr.CAPTURE_AFTER: after,
            ShellCsr.CAPTURE_MASK: mask[:32],
            ShellCsr.CAPTURE_MASK_HIGH: mask[32:],
            ShellCsr.CAPTURE_VALUE: value[:32],
            ShellCsr.CAPTURE_VALUE_HIGH: value[32:],
            ShellCsr.CAPTURE_INDEX: index,
        }
        readable = {
            ShellCsr.CAPTURE_CONTROL: Cat(running, triggered),
            ShellCsr.CAPTURE_DEPTH: Const(depth, 32),
            ShellCsr.CAPTURE_COUNT: held,
            ShellCsr.CAPTURE_FIRST: first,
            ShellCsr.CAPTURE_TRIGGER: trigger,
            ShellCsr.CAPTURE_DATA: sample.value[:32],
            ShellCsr.CAPTURE_DATA_HIGH: sample.value[32:],
            ShellCsr.CAPTURE_AGE: sample.age,
            **writable,
        }
        # Which register it is is found a cycle before it is read, or written.
        asked = delayed(m, 1, self.address[2:], HOST_READ_LATENCY - 2, "asked")
        values = []
        for csr, signal in readable.items():
            named = Signal(name=f"{csr.name.lower()}_named", reset_less=True)
            m.d.sync += named.eq(asked == csr // 4)
            values.append(Mux(named, signal, 0))
        m.d.sync += self.read_data.eq(reduce(or_, values))
        written = Signal(32, reset_less=True)
        m.d.sync += written.eq(self.write_data)
        for csr, signal in writable.items():
            writes = Signal(name=f"{csr.name.lower()}_writes")
            m.d.sync += writes.eq(self.write & (self.address == csr))
            with m.If(writes):
                m.d.sync += signal.eq(written)
        return m
