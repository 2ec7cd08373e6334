"""One command queue: its commands' loops, addresses, waits and signals."""

import dataclasses

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import COMMAND_BYTES, Command, Operand
from ..tech.select import select as tech_select
from .command_rows import CommandRows
from .ports import UnitPort
from .select import select
from .semaphore import WAITS, SemaphorePort
from .signals import SIGNALS, SignalQueue

__all__ = [
    "SERIALS",
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

SERIALS = 8
"""Serial numbers of a queue's commands; no more are alive at a time."""

_OUTSTANDING = 2
_HEADER_BITS = Operand.as_shape().size
_BODY_BIT = 4 * COMMAND_BYTES


def command_beats(config: CardConfig) -> int:
    """Return the bus beats of a command."""
    return COMMAND_BYTES // config.bus_bytes


class QueueWrite(wiring.Signature):
    """How the dispatcher fills a queue, seen from the dispatcher.

    Members
    -------
    valid, beat, data : ``Out``
        Writes bus beat ``beat`` of the command that is being dispatched, in order. Only while the
        queue has room.
    commit : ``Out(1)``
        The command is whole, and may run. Without it nothing more is written until a reset.
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
    and no signal is to be given; else `STALL_NONE`. ``serial``: number, modulo `SERIALS`, of the
    command whose iteration is the oldest one outstanding, or of the one whose iterations are next.
    """

    busy: unsigned(1)
    stall: unsigned(2)
    serial: range(SERIALS)


class CommandQueue(wiring.Component):
    """Holds commands of one `Queue` and runs their loops on one unit.

    An iteration starts when the credits of all its waits are there at the same time; they are
    taken together. At most two iterations are outstanding.

    A command that finds the queue empty is read while it is written, and starts 2 cycles after its
    ``commit``, or 3 with a bus of 64 bytes. One that waits starts up to 3 cycles after the
    last iteration of the one before has ended, or where commands overlap up to 5 cycles after it
    was started. Addresses are made one after the other, so that an iteration starts no earlier
    than 4 to 8 cycles after the one before. It starts 1 cycle after its credits are there, or at
    once if it has no waits. The signals of an iteration are given one a cycle from ``done`` on,
    after those of the iterations before it.

    Parameters
    ----------
    config : CardConfig
    overlap : bool
        A command starts while iterations of the one before it are outstanding; `UnitPort` says
        what that means for the unit.
    operands, body_bits : int
        What the unit uses of a command: its first operands, and the first bits of its body. The
        others are not kept.

    Members
    -------
    write : ``In(QueueWrite)``
    unit : ``Out(UnitPort)``
    semaphore : ``Out(SemaphorePort)``
    state : ``Out(QueueState)``
    """

    def __init__(
        self,
        config: CardConfig,
        *,
        overlap: bool = False,
        operands: int = 3,
        body_bits: int = _BODY_BIT,
    ) -> None:
        if not 2 <= operands <= 3:
            raise ValueError(f"operands must be 2 or 3, not {operands!r}")
        if not 1 <= body_bits <= _BODY_BIT:
            raise ValueError(f"body_bits must be from 1 to {_BODY_BIT}, not {body_bits!r}")
        self.config = config
        self._overlap = overlap
        self._operands = operands
        self._body_bits = body_bits
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
        self._accept = Signal()
        self._outstanding = Signal(range(_OUTSTANDING + 1))
        self._armed = Signal()  # the header is here, and iterations are to be staged or started
        self._arming = Signal()  # addresses may be made
        self._active = Signal()  # the body is here
        self._fresh = Signal(init=1)  # no iteration of the command has been started
        self._staged = Signal()  # the port's payload holds the next iteration
        self._staging = Signal()  # the payload is complete from the next cycle on
        self._last = Signal()  # it is the last one of its command
        self._may_load = Signal()  # a body may take the place of the last one
        self._activated = Signal()  # the last part of a body is being taken
        self._elaborate_store(m)
        self._elaborate_load(m)
        self._elaborate_stage(m, platform)
        self._elaborate_issue(m)
        self._elaborate_oldest(m)
        return m

    def _elaborate_store(self, m: Module) -> None:
        """The waiting commands, in two memories: operands, and the rest in the order of its use.

        Both are read while they are written: a row is there when its last beat has been written.
        A command's operands are read again for each iteration, so the memories hold one command
        more than may wait. With a bus of a row and more the header comes with the operands.
        """
        beat_bits = 8 * self.config.bus_bytes
        self._wide = wide = beat_bits > _HEADER_BITS
        commands = self.config.queue_depth + 1
        row_bits = 2 * _HEADER_BITS if self._body_bits > 2 * _HEADER_BITS else _HEADER_BITS
        operand_bits = beat_bits if wide else _HEADER_BITS
        row_bits = beat_bits if wide else row_bits
        body_rows = -(-self._body_bits // row_bits)
        self._rows = body_rows + (not wide)  # of a command in the second memory
        self._operand_row = CommandRows(
            m,
            self.write.data,
            "operand_rows",
            operand_bits,
            commands * (1 if wide else self._operands),
        )
        self._row = CommandRows(m, self.write.data, "other_rows", row_bits, commands * self._rows)

        level = Signal(range(commands))  # commands that wait for their body to be taken
        self._waiting = level != 0
        m.d.comb += self.write.room.eq(level != self.config.queue_depth)
        m.d.sync += level.eq(level + self.write.commit - self._activated)

        def place(first: int, bits: int, rows: CommandRows) -> None:
            """Write the ``bits`` from bit ``first`` of a command on into rows of their own."""
            lanes = rows.bits // beat_bits
            beats = -(-bits // beat_bits)
            for n in range(beats):
                with m.Case(first // beat_bits + n):
                    rows.write(m, n % lanes, end=n % lanes == lanes - 1 or n == beats - 1)

        with m.If(self.write.valid), m.Switch(self.write.beat):
            if wide:
                place(0, _BODY_BIT, self._operand_row)
            else:
                place(0, _HEADER_BITS, self._row)
                for n in range(self._operands):
                    place((n + 1) * _HEADER_BITS, _HEADER_BITS, self._operand_row)
            place(_BODY_BIT, self._body_bits, self._row)

    def _elaborate_load(self, m: Module) -> None:
        """From the store to the registers of the issuing side."""
        rows, wide = self._row, self._wide
        header = Signal(_HEADER_BITS, reset_less=True)
        self._command = data.View(Command, Cat(header, Const(0, 8 * COMMAND_BYTES - len(header))))
        body = Signal(self._body_bits, reset_less=True)
        part = Signal(range(self._rows))  # the next row's place in its command
        take_header, take_row = Signal(), Signal()
        source = self._operand_row if wide else rows
        m.d.comb += [
            self.unit.start.payload.body.eq(body),
            take_header.eq(
                ~self._armed & source.there & ~self.semaphore.taking & (wide | (part == 0))
            ),
            take_row.eq(
                self._armed & ~self._active & self._may_load & rows.there & (wide | (part != 0))
            ),
        ]
        # The first addresses need no header.
        m.d.comb += self._arming.eq(self._armed | take_header)
        last = part == self._rows - 1
        whole = (self._staged | self._staging) & self._waiting
        with m.If(take_header):
            m.d.sync += [header.eq(source.data), self._armed.eq(1)]
        if not wide:
            with m.If(take_header):
                rows.take(m)
                m.d.sync += part.eq(1)
        with m.If(take_row & (~last | whole)):
            rows.take(m)
            m.d.sync += part.eq(Mux(last, 0, part + 1))
            m.d.comb += self._activated.eq(last)
            m.d.sync += self._active.eq(last)
            for n in range(self._rows - (not wide)):
                with m.If(part == n + (not wide)):
                    piece = body[n * rows.bits : (n + 1) * rows.bits]
                    m.d.sync += piece.eq(rows.data)
        with m.If(self._accept & self._last):
            m.d.sync += [self._armed.eq(0), self._active.eq(0)]

    def _elaborate_stage(self, m: Module, platform: object) -> None:
        """The addresses of the next iteration, one operand after the other."""
        command, fresh, rows = self._command, self._fresh, self._operand_row
        payload = self.unit.start.payload
        inner, outer = Signal(16, init=1), Signal(16, init=1)  # counted from 1
        parity = Signal()
        self._move = move = Signal()  # it is the first one of an outer iteration, but not of all
        self._last_inner = last_inner = Signal()
        last_outer = Signal()
        m.d.sync += [
            last_inner.eq(inner == command.inner),
            last_outer.eq(outer == command.outer),
        ]
        m.d.comb += self._last.eq(last_inner & last_outer)
        with m.If(self._accept):
            m.d.sync += [
                inner.eq(inner + 1),
                parity.eq(~parity),
                move.eq(last_inner),
                fresh.eq(0),
            ]
            with m.If(last_inner):
                m.d.sync += [inner.eq(1), outer.eq(outer + 1)]
            with m.If(self._last):
                m.d.sync += [outer.eq(1), parity.eq(0), move.eq(0), fresh.eq(1)]

        # First what is to be added to an operand's address, then the sum.
        turn = Signal(range(self._operands))
        second = Signal()  # the ping-pong offset is to be added
        sent = Signal()  # everything has been chosen
        step, ping, end = Signal(), Signal(), Signal()
        word = rows.data
        if self._wide:  # the header and three operands
            word = select(turn, [word.word_select(n + 1, _HEADER_BITS) for n in range(3)])
        operand = data.View(Operand, word)
        last = turn == self._operands - 1
        kind = Signal(2)
        m.d.comb += [
            step.eq(self._arming & ~sent & (~fresh | rows.there | self._wide)),
            ping.eq(
                Mux(select(turn, list(command.pong_outer[: self._operands])), ~outer[0], parity)
            ),
            end.eq(step & (second | ~ping)),
            kind.eq(Cat((move & ~fresh) | second, fresh | second)),
        ]
        m.d.sync += second.eq(step & ~end)
        with m.If(end):
            m.d.sync += turn.eq(Mux(last, 0, turn + 1))
        with m.If(end & last):
            m.d.sync += sent.eq(1)
        with m.Elif(self._accept):
            m.d.sync += sent.eq(0)

        offset = Signal(32, reset_less=True)
        sum_turn = Signal.like(turn)
        sum_step, sum_second, sum_end = Signal(), Signal(), Signal()
        old = Signal()  # it is added to the address of the outer iteration before
        offsets = [operand.inner.as_unsigned(), operand.outer.as_unsigned()]
        offsets += [operand.base, operand.pong]
        m.d.sync += [
            offset.eq(tech_select(m, platform, kind, offsets, name="offset_choice")),
            sum_turn.eq(turn),
            sum_step.eq(step),
            sum_second.eq(second),
            sum_end.eq(end & last),
            old.eq(move & ~second),
        ]
        row, column = (
            self._addresses(m, sum_turn, name) for name in ("row_addresses", "column_addresses")
        )
        address, total = Signal(32), Signal(32)
        m.d.comb += [
            address.eq(Mux(fresh, 0, Mux(old, row.read.data, column.read.data))),
            total.eq(address + offset),
            row.write.data.eq(total),
            row.write.en.eq(sum_step & ~sum_second & (fresh | move)),
            column.write.data.eq(total),
            column.write.en.eq(sum_step & ~sum_second),
            self._staging.eq(sum_end),
        ]
        with m.If(sum_step), m.Switch(sum_turn):
            for n in range(self._operands):
                with m.Case(n):
                    m.d.sync += payload.operand[n].eq(total)
        with m.If(self._staging):
            m.d.sync += self._staged.eq(1)
        with m.Elif(self._accept):
            m.d.sync += self._staged.eq(0)
        m.d.comb += [payload.first.eq(fresh), payload.opcode.eq(command.opcode)]
        if self._wide:
            with m.If(self._accept & self._last):
                rows.take(m)
        else:
            first = Signal.like(rows.out)  # where the command's operands begin
            with m.If(end):
                rows.take(m)
            with m.If(self._accept):
                with m.If(self._last):
                    m.d.sync += first.eq(rows.out)
                with m.Else():
                    m.d.sync += rows.out.eq(first)

    def _addresses(self, m: Module, turn: Signal, name: str) -> "_Addresses":
        """Return a memory of an address for each operand."""
        m.submodules[name] = addresses = memory.Memory(
            shape=unsigned(32), depth=4, init=[], attrs={"ram_style": "distributed"}
        )
        ports = _Addresses(addresses.write_port(), addresses.read_port(domain="comb"))
        m.d.comb += [ports.write.addr.eq(turn), ports.read.addr.eq(turn)]
        return ports

    def _elaborate_issue(self, m: Module) -> None:
        """Waits, starts and signals."""
        unit, semaphore, command = self.unit, self.semaphore, self._command
        outstanding = self._outstanding
        m.submodules.signals = signals = SignalQueue()
        granted, waits, eligible = Signal(), Signal(), Signal()
        with m.If(self._accept):
            m.d.sync += granted.eq(0)
        with m.Elif(semaphore.grant):
            m.d.sync += granted.eq(1)
        for n in range(WAITS):
            wait = command.wait[n]
            m.d.comb += semaphore.want[n].eq(wait.enable & (~wait.outer | self._fresh | self._move))
        for n in range(SIGNALS):
            signal = command.signal[n]
            m.d.comb += [
                signals.signals.index[n].eq(signal.index),
                signals.signals.pending[n].eq(signal.enable & (~signal.outer | self._last_inner)),
            ]
        m.d.comb += [
            semaphore.index.eq(Cat(command.wait[n].index for n in range(WAITS))),
            waits.eq(semaphore.want.any()),
            eligible.eq(self._staged & self._active & (outstanding != _OUTSTANDING) & signals.room),
            semaphore.request.eq(eligible & waits & ~granted),
            unit.start.valid.eq(eligible & (granted | ~waits)),
            self._accept.eq(unit.start.valid & unit.start.ready),
            signals.accept.eq(self._accept),
            signals.done.eq(unit.done),
            signals.added.eq(semaphore.added),
            semaphore.add.eq(signals.add),
            semaphore.add_index.eq(signals.add_index),
            self.state.busy.eq(self._waiting | self._active | (outstanding != 0) | signals.busy),
        ]
        m.d.sync += outstanding.eq(outstanding + self._accept - unit.done)
        lacking = semaphore.request & (semaphore.short & semaphore.want).any()
        with m.If((outstanding != 0) | (unit.start.valid & ~unit.start.ready)):
            m.d.comb += self.state.stall.eq(STALL_UNIT)
        with m.Elif(lacking & ~signals.busy):
            m.d.comb += self.state.stall.eq(STALL_SEMAPHORE)

    def _elaborate_oldest(self, m: Module) -> None:
        """Which command is the oldest one outstanding, and whether a further body may be loaded."""
        done, outstanding = self.unit.done, self._outstanding
        newest = Signal(range(SERIALS), init=SERIALS - 1)  # the command whose body is loaded
        following = Signal(range(SERIALS))
        # Whether the oldest and the newest outstanding iteration is the last of its command.
        oldest_last, newest_last = Signal(), Signal()
        several = outstanding == _OUTSTANDING
        with m.If(self._accept):
            m.d.sync += newest_last.eq(self._last)
        with m.If(self._accept & ((outstanding == 0) | done)):
            m.d.sync += oldest_last.eq(self._last)
        with m.Elif(done):
            m.d.sync += oldest_last.eq(newest_last)

        # Of three commands none is loaded, so that the newest one follows the oldest.
        may_load: Value = outstanding == 0
        if self._overlap:
            may_load = ~(several & oldest_last)
        m.d.comb += [self._may_load.eq(may_load), following.eq(newest + 1)]
        with m.If(self._activated):
            m.d.sync += newest.eq(following)
        with m.If(self._activated & (outstanding == done)):
            m.d.sync += self.state.serial.eq(following)
        with m.Elif(done & oldest_last & (self._active | several)):
            m.d.sync += self.state.serial.eq(newest)


@dataclasses.dataclass
class _Addresses:
    """Ports of a memory of addresses."""

    write: data.View
    read: data.View
