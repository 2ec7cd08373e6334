"""One command queue: its commands' loops, addresses, waits and signals."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import COMMAND_BYTES, SEMAPHORES, Command
from .ports import UnitPort
from .semaphore import MAX_WAITS, SemaphorePort
from .signals import SIGNALS, SignalQueue, signals_layout

__all__ = [
    "STALL_NONE",
    "STALL_SEMAPHORE",
    "STALL_UNIT",
    "CommandQueue",
    "QueueState",
    "QueueWrite",
    "command_beats",
]

STALL_NONE, STALL_SEMAPHORE, STALL_UNIT = range(3)
"""What a queue waits for, as `Csr.STALL` reports it."""

_WORD_BITS = 256
_WAITS = 4
_OUTSTANDING = 2


def command_beats(config: CardConfig) -> int:
    """Return the bus beats of a command."""
    return COMMAND_BYTES // config.bus_bytes


class QueueWrite(wiring.Signature):
    """How the dispatcher fills a queue, seen from the dispatcher.

    Members
    -------
    valid, beat, data : ``Out``
        Writes bus beat ``beat`` of the command that is being dispatched. Only while the queue
        has room.
    commit : ``Out(1)``
        The command is whole. Without it the next command overwrites the beats.
    index : ``Out(32)``
        With ``commit``: the command's index within its job.
    room : ``In(1)``
        There is room for a command. Once high it stays high until ``commit``.
    """

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        super().__init__(
            {
                "valid": Out(1),
                "beat": Out(range(command_beats(config))),
                "data": Out(8 * config.bus_bytes),
                "commit": Out(1),
                "index": Out(32),
                "room": In(1),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueueWrite) and self.config == other.config


class QueueState(data.Struct):
    """What a queue is doing.

    ``busy``: it holds a command, or has a signal to give. ``stall``: `STALL_UNIT` while the unit
    has an iteration or does not take one; else `STALL_SEMAPHORE` while an iteration lacks credits
    of the semaphores in ``missing``; else `STALL_NONE`. ``command``: index within the job of the
    command whose iteration is the oldest one outstanding, or of the one whose iterations are next.
    """

    busy: unsigned(1)
    stall: unsigned(2)
    missing: unsigned(SEMAPHORES)
    command: unsigned(32)


class CommandQueue(wiring.Component):
    """Holds commands of one `Queue` and runs their loops on one unit.

    An iteration starts when the credits of all its waits are there at the same time; they are
    taken together. At most two iterations are outstanding. The header and the addresses of the
    next command are loaded while the last iterations of the current one still run, its body when
    they have ended, or where commands overlap when the last one was accepted.

    A command that finds the queue empty starts 6 cycles after its ``commit``, or 4 with a bus of
    64 bytes; an iteration starts 1 cycle after its credits are there, or at once if it has no
    waits. Where commands overlap, one starts up to 4 cycles (2 with a bus of 64 bytes) after the
    last start of the one before. The signals of an iteration are given one a cycle from the cycle
    after ``done``, after those of the iterations before it.

    Parameters
    ----------
    config : CardConfig
    overlap : bool
        A command starts while iterations of the one before it are outstanding; `UnitPort` says
        what that means for the unit.

    Members
    -------
    write : ``In(QueueWrite)``
    unit : ``Out(UnitPort)``
    semaphore : ``Out(SemaphorePort)``
    state : ``Out(QueueState)``
    """

    def __init__(self, config: CardConfig, *, overlap: bool = False) -> None:
        self.config = config
        self._overlap = overlap
        super().__init__(
            {
                "write": In(QueueWrite(config)),
                "unit": Out(UnitPort()),
                "semaphore": Out(SemaphorePort()),
                "state": Out(QueueState),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._elaborate_store(m)
        self._elaborate_load(m)
        self._elaborate_issue(m)
        self._elaborate_retire(m)
        return m

    def _elaborate_store(self, m: Module) -> None:
        """The waiting commands: a memory of wide words, read one word ahead of its use."""
        depth = self.config.queue_depth
        beat_bits = 8 * self.config.bus_bytes
        word_bits = max(_WORD_BITS, beat_bits)
        self._words = 8 * COMMAND_BYTES // word_bits
        beats = command_beats(self.config)
        slices = word_bits // beat_bits

        m.submodules.store = store = memory.Memory(
            shape=unsigned(word_bits), depth=depth * self._words, init=[]
        )
        store_write = store.write_port(granularity=beat_bits)
        store_read = store.read_port()
        m.submodules.indices = indices = memory.Memory(shape=unsigned(32), depth=depth, init=[])
        index_write = indices.write_port()
        index_read = indices.read_port()

        write_slot, read_slot = Signal(range(depth)), Signal(range(depth))
        read_word = Signal(range(self._words))
        level = Signal(range(depth + 1))  # commands that hold a slot
        unread = Signal(range(depth + 1))  # commands with words still to be read

        def following(slot: Signal) -> Mux:
            return Mux(slot == depth - 1, 0, slot + 1)

        beat, word_beat = self.write.beat, beats // self._words
        m.d.comb += [
            self.write.room.eq(level != depth),
            store_write.addr.eq(write_slot * self._words + beat // word_beat),
            store_write.data.eq(self.write.data.replicate(slices)),
            store_write.en.eq(Mux(self.write.valid, 1 << (beat % word_beat), 0)),
            index_write.addr.eq(write_slot),
            index_write.data.eq(self.write.index),
            index_write.en.eq(self.write.commit),
        ]

        self._take = Signal()
        self._word_valid = Signal()
        self._word = Signal(range(self._words))
        self._word_data = store_read.data
        self._word_index = index_read.data
        self._occupied = Signal()
        read = Signal()
        read_last, freed = Signal(), Signal()
        m.d.comb += [
            read.eq((unread != 0) & (~self._word_valid | self._take)),
            read_last.eq(read & (read_word == self._words - 1)),
            freed.eq(self._take & (self._word == self._words - 1)),
            store_read.en.eq(read),
            store_read.addr.eq(read_slot * self._words + read_word),
            index_read.en.eq(read),
            index_read.addr.eq(read_slot),
            self._occupied.eq(level != 0),
        ]
        m.d.sync += [
            level.eq(level + self.write.commit - freed),
            unread.eq(unread + self.write.commit - read_last),
        ]
        with m.If(self.write.commit):
            m.d.sync += write_slot.eq(following(write_slot))
        with m.If(read):
            m.d.sync += [
                self._word_valid.eq(1),
                self._word.eq(read_word),
                read_word.eq(Mux(read_last, 0, read_word + 1)),
            ]
            with m.If(read_last):
                m.d.sync += read_slot.eq(following(read_slot))
        with m.Elif(self._take):
            m.d.sync += self._word_valid.eq(0)

    def _elaborate_load(self, m: Module) -> None:
        """From the store to the registers of the issuing side."""
        half = self._words // 2
        self._armed = Signal()  # header and operands are here, and iterations are to be staged
        self._active = Signal()  # the body is here, and iterations are to be started
        self._may_load = Signal()  # a body may take the place of the last one
        raw = [
            Signal(8 * COMMAND_BYTES // self._words, name=f"word_{n}", reset_less=True)
            for n in range(self._words)
        ]
        self._command = data.View(Command, Cat(raw))
        self._loaded = Signal()  # the last word of the first half is being taken
        self._activated = Signal()  # the last word is being taken
        m.d.comb += [
            self._take.eq(
                self._word_valid
                & Mux(self._word < half, ~self._armed, ~self._active & self._may_load)
            ),
            self._loaded.eq(self._take & (self._word == half - 1)),
            self._activated.eq(self._take & (self._word == self._words - 1)),
        ]
        with m.If(self._take):
            with m.Switch(self._word):
                for n in range(self._words):
                    with m.Case(n):
                        m.d.sync += raw[n].eq(self._word_data)
        with m.If(self._activated):
            m.d.sync += self._active.eq(1)

    def _elaborate_issue(self, m: Module) -> None:
        """Waits and starts. The next iteration is staged in the port's payload ahead of time."""
        unit, semaphore, command = self.unit, self.semaphore, self._command
        self._accept = accept = Signal()
        self._outstanding = outstanding = Signal(range(_OUTSTANDING + 1))
        self._room = Signal()  # for the signals of a further iteration
        m.d.comb += accept.eq(unit.start.valid & unit.start.ready)
        m.d.sync += outstanding.eq(outstanding + accept - unit.done)

        fresh = Signal()  # nothing of the armed command has been staged
        inner, outer = Signal(16), Signal(16)  # of the next iteration to stage, if not fresh
        parity, parity_now = Signal(), Signal()
        stage, staged = Signal(), Signal()
        self._staged_last = staged_last = Signal()
        self._staged_signals = Signal(signals_layout(), reset_less=True)
        first_inner, last_inner, last_outer = Signal(), Signal(), Signal()
        inner_now, outer_now = Signal(16), Signal(16)
        m.d.comb += [
            stage.eq(self._armed & (~staged | accept)),
            inner_now.eq(Mux(fresh, 0, inner)),
            outer_now.eq(Mux(fresh, 0, outer)),
            parity_now.eq(~fresh & parity),
            first_inner.eq(inner_now == 0),
            last_inner.eq(inner_now + 1 == command.inner),
            last_outer.eq(outer_now + 1 == command.outer),
        ]
        with m.If(stage):
            m.d.sync += [
                fresh.eq(0),
                inner.eq(Mux(last_inner, 0, inner_now + 1)),
                outer.eq(outer_now + last_inner),
                parity.eq(~parity_now),
                staged.eq(1),
                staged_last.eq(last_inner & last_outer),
                unit.start.payload.opcode.eq(command.opcode),
                unit.start.payload.first.eq(fresh),
                *(
                    self._staged_signals.pending[n].eq(
                        command.signal[n].enable & (~command.signal[n].outer | last_inner)
                    )
                    for n in range(SIGNALS)
                ),
                *(
                    self._staged_signals.index[n].eq(command.signal[n].index)
                    for n in range(SIGNALS)
                ),
            ]
            with m.If(last_inner & last_outer):
                m.d.sync += self._armed.eq(0)
        with m.Elif(accept):
            m.d.sync += staged.eq(0)
        with m.If(accept & staged_last):
            m.d.sync += self._active.eq(0)
        with m.If(self._loaded):
            m.d.sync += [self._armed.eq(1), fresh.eq(1)]

        for n in range(3):
            operand = command.operand[n]
            row, column = Signal(32, name=f"row_{n}"), Signal(32, name=f"column_{n}")
            row_now, column_now = Signal(32, name=f"row_now_{n}"), Signal(32, name=f"now_{n}")
            ping = Mux(command.pong_outer[n], outer_now[0], parity_now)
            m.d.comb += [
                row_now.eq(Mux(fresh, operand.base, row)),
                column_now.eq(Mux(fresh, operand.base, column)),
            ]
            with m.If(stage):
                m.d.sync += unit.start.payload.operand[n].eq(
                    column_now + Mux(ping, operand.pong, 0)
                )
                with m.If(last_inner):
                    m.d.sync += [
                        row.eq(row_now + operand.outer),
                        column.eq(row_now + operand.outer),
                    ]
                with m.Else():
                    m.d.sync += [row.eq(row_now), column.eq(column_now + operand.inner)]
        m.d.comb += unit.start.payload.body.eq(command.body)

        # Credits of one iteration. A semaphore that is named twice must hold two.
        levels = [Const(0, SEMAPHORES)] * MAX_WAITS
        for n in range(_WAITS):
            wait = command.wait[n]
            wanted = wait.enable & (~wait.outer | first_inner)
            bit = Mux(wanted, Const(1, SEMAPHORES) << wait.index, 0)[:SEMAPHORES]
            below = [Const((1 << SEMAPHORES) - 1), *levels]
            levels = [level | (bit & below[k]) for k, level in enumerate(levels)]
        granted, waits = Signal(), Signal()
        needed = Cat(levels)
        with m.If(stage):
            m.d.sync += [
                semaphore.need.eq(needed),
                waits.eq(
                    Cat(
                        command.wait[n].enable & (~command.wait[n].outer | first_inner)
                        for n in range(_WAITS)
                    ).any()
                ),
                granted.eq(0),
            ]
        with m.Elif(semaphore.grant):
            m.d.sync += granted.eq(1)

        eligible = Signal()
        m.d.comb += [
            eligible.eq(staged & self._active & (outstanding != _OUTSTANDING) & self._room),
            semaphore.request.eq(eligible & waits & ~granted),
            unit.start.valid.eq(eligible & (granted | ~waits)),
            self.state.missing.eq(Mux(semaphore.request, semaphore.missing, 0)),
        ]
        with m.If((outstanding != 0) | (unit.start.valid & ~unit.start.ready)):
            m.d.comb += self.state.stall.eq(STALL_UNIT)
        with m.Elif(self.state.missing.any()):
            m.d.comb += self.state.stall.eq(STALL_SEMAPHORE)

    def _elaborate_retire(self, m: Module) -> None:
        """Signals of the iterations that have ended, in order, one a cycle."""
        unit, semaphore, outstanding = self.unit, self.semaphore, self._outstanding
        self._elaborate_oldest(m)

        m.submodules.signals = signals = SignalQueue()
        m.d.comb += [
            signals.accept.eq(self._accept),
            signals.signals.eq(self._staged_signals),
            signals.done.eq(unit.done),
            self._room.eq(signals.room),
            semaphore.add.eq(signals.add),
            semaphore.add_index.eq(signals.add_index),
        ]
        working = (outstanding != 0) | signals.busy
        m.d.comb += self.state.busy.eq(self._occupied | self._active | working)

    def _elaborate_oldest(self, m: Module) -> None:
        """Which command is the oldest one outstanding, and whether a further body may be loaded."""
        done, outstanding = self.unit.done, self._outstanding
        newest = Signal(32, reset_less=True)  # index of the command whose body is loaded
        # Whether the oldest and the newest outstanding iteration is the last of its command.
        oldest_last, newest_last = Signal(), Signal()
        several = outstanding == _OUTSTANDING
        with m.If(self._accept):
            m.d.sync += newest_last.eq(self._staged_last)
        with m.If(self._accept & ((outstanding == 0) | done)):
            m.d.sync += oldest_last.eq(self._staged_last)
        with m.Elif(done):
            m.d.sync += oldest_last.eq(newest_last)

        # Of three commands none is loaded, so that the newest one follows the oldest.
        may_load: Value = outstanding == 0
        if self._overlap:
            may_load = ~(several & oldest_last)
        m.d.comb += self._may_load.eq(may_load)
        with m.If(self._activated):
            m.d.sync += newest.eq(self._word_index)
        with m.If(self._activated & (outstanding == done)):
            m.d.sync += self.state.command.eq(self._word_index)
        with m.Elif(done & oldest_last & (self._active | several)):
            m.d.sync += self.state.command.eq(newest)
