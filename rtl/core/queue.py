"""One command queue: its commands' loops, addresses, waits and signals."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import CardConfig
from ..isa import COMMAND_BYTES, SEMAPHORES, Command, Operand
from ..tech.gate import Gate
from .command_rows import CommandRows
from .loops import LoopWalk
from .ports import UnitPort
from .queue_write import CommandWrite, wide_bus
from .select import select
from .semaphore import WAITS, SemaphorePort
from .signals import SIGNALS, SignalQueue, signals_layout

__all__ = [
    "SERIALS",
    "STALL_NONE",
    "STALL_SEMAPHORE",
    "STALL_UNIT",
    "CommandQueue",
    "QueueState",
]

STALL_NONE, STALL_SEMAPHORE, STALL_UNIT = range(3)
"""What a queue waits for, as `Csr.STALL` reports it."""

SERIALS = 8
"""Serial numbers of a queue's commands; no more are alive at a time."""

_OUTSTANDING = 2
_HEADER_BITS = Operand.as_shape().size
_BODY_BIT = 4 * COMMAND_BYTES
_INDEX_BITS = (SEMAPHORES - 1).bit_length()


class QueueState(data.Struct):
    """What a queue is doing.

    ``busy``: it holds a command, from the cycle after its commit on, or has a signal to give. From
    a register. ``stall``: `STALL_UNIT` while the unit
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
    last iteration of the one before has ended, or where commands overlap up to 4 cycles after it
    was started. Addresses are made one after the other, the first of them ahead: an iteration
    starts no earlier than 3 to 7 cycles after the one before (a cycle more than it has operands,
    and one for each of them that adds its ping-pong). It starts 1 cycle after its credits are known
    to be there, or at once if it has no waits. The signals of an iteration are given one a cycle
    from ``done`` on, after those of the iterations before it.

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
    write : ``In(CommandWrite)``
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
                "write": In(CommandWrite(config)),
                "unit": Out(UnitPort()),
                "semaphore": Out(SemaphorePort()),
                "state": Out(QueueState),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._accept = Signal()
        self._outstanding, self._next_outstanding = (Signal(range(_OUTSTANDING + 1)) for _ in "ab")
        self._active = Signal()  # the body is here
        self._staged = Signal()  # the port's payload holds the next iteration
        self._last = Signal()  # it is the last one of its command
        self._may_load = Signal(init=1)  # a body may take the place of the last one
        self._arrived = Signal()  # the last part of a body is there
        self._activated = Signal()  # it is being taken
        self._readable = Signal()  # the next command's walk may begin
        m.submodules.walk = self._walk = LoopWalk(self._operands)
        self._elaborate_store(m, platform)
        self._elaborate_load(m)
        self._elaborate_stage(m)
        self._elaborate_issue(m)
        self._elaborate_oldest(m)
        return m

    def _elaborate_store(self, m: Module, platform: object) -> None:
        """The waiting commands, in two memories: operands, and the rest in the order of its use.

        Both are read while they are written: a row is there when its last beat has been written.
        A command's operands are read again for each iteration, so the memories hold one command
        more than may wait. With a bus of a row and more the header comes with the operands.
        """
        beat_bits = 8 * self.config.bus_bytes
        self._wide = wide = wide_bus(self.config)
        commands = self.config.queue_depth + 1
        row_bits = 2 * _HEADER_BITS if self._body_bits > 2 * _HEADER_BITS else _HEADER_BITS
        operand_bits = beat_bits if wide else _HEADER_BITS
        row_bits = beat_bits if wide else row_bits
        body_rows = -(-self._body_bits // row_bits)
        self._rows = body_rows + (not wide)  # of a command in the second memory
        self._operand_row = CommandRows(
            m,
            platform,
            self.write.data,
            "operand_rows",
            operand_bits,
            commands * (1 if wide else self._operands),
        )
        self._row = CommandRows(
            m,
            platform,
            self.write.data,
            "other_rows",
            row_bits,
            commands * self._rows,
            late=not wide,
            far=True,
        )

        level, some = Signal(range(commands)), Signal()  # that wait for their body to be taken
        self._waiting = some | self.write.commit
        commit, activated = self.write.commit, self._activated
        m.d.sync += [
            level.eq(level + commit - activated),
            some.eq((level > 1) | Mux(activated, some & commit, some | commit)),
            self.write.taken.eq(activated),
        ]

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
        """From the store to the registers of the walk, and of the unit's body."""
        rows, wide, walk = self._row, self._wide, self._walk
        header = Signal(_HEADER_BITS, reset_less=True)
        self._command = data.View(Command, Cat(header, Const(0, 8 * COMMAND_BYTES - len(header))))
        # The header is here, and the walk not over; or not: that has many loads.
        armed, unarmed = Signal(), Signal(init=1)
        body = Signal(self._body_bits, reset_less=True)
        part = Signal(self._rows, init=1)  # a bit for the next row's place in its command
        take_header = Signal()
        source = self._operand_row if wide else rows
        # Whether a row is taken if its place is the next one's.
        of_body = ~self._active & self._may_load & rows.there
        takes = [of_body] * (self._rows - 1) + [of_body & self._waiting & walk.complete]
        if not wide:
            takes[0] = ~armed & self._readable
        m.d.comb += [
            self.unit.start.payload.body.eq(body),
            take_header.eq(~armed & self._readable & (wide | part[0])),
            walk.run.eq(armed | take_header),
            walk.known.eq(armed),
        ]
        m.d.comb += [
            self._arrived.eq(part[-1] & of_body & self._waiting),
            self._activated.eq(part[-1] & takes[-1]),
        ]
        self._elaborate_readable(m, take_header)
        # What they are in the next cycle; the latter if no body is taken.
        following, stays = Signal.like(part), Signal()
        m.d.comb += [
            stays.eq(self._active & ~(self._accept & self._last)),
            following.eq(
                Cat((part[n - 1] & takes[n - 1]) | (part[n] & ~takes[n]) for n in range(self._rows))
            ),
        ]
        m.d.sync += [part.eq(following), self._active.eq(self._activated | stays)]
        with m.If((part & Cat(takes)).any()):
            rows.take(m)
        with m.If(take_header):
            m.d.sync += [armed.eq(1), unarmed.eq(0)]
        with m.If(unarmed):
            m.d.sync += header.eq(source.data)  # void until there is one
        with m.If(walk.over):
            m.d.sync += [armed.eq(0), unarmed.eq(1)]
        # A part comes again and again until it is taken: its many bits do not wait for that, but
        # only for the units that still work with the last body. So many are enabled by a register.
        free: Value = ~self._activated if wide else Const(1)  # else the header is next then
        if not self._overlap:
            free &= (self._outstanding == self.unit.done) & ~self._accept
        for n in range(self._rows - (not wide)):
            enabled = Signal(name=f"part{n}_enabled")
            m.d.sync += enabled.eq(free & ~stays & following[n + (not wide)])
            with m.If(enabled):
                piece = body[n * rows.bits : (n + 1) * rows.bits]
                m.d.sync += piece.eq(rows.data)

    def _elaborate_readable(self, m: Module, take_header: Signal) -> None:
        """Know whether the next command's header and operands are whole.

        The body comes after them, and takes longer than the walk's first iteration.
        """
        if self._wide:
            m.d.comb += self._readable.eq(self._operand_row.there)
            return
        whole = Signal()  # a command's last operand is
        level = Signal(range(self.config.queue_depth + 2))  # of the commands that are not taken
        end = (self._operands + 1) * _HEADER_BITS // (8 * self.config.bus_bytes) - 1
        m.d.comb += whole.eq(self.write.valid & (self.write.beat == end))
        m.d.sync += [
            level.eq(level + whole - take_header),
            self._readable.eq(whole | (level > 1) | (level.any() & ~take_header)),
        ]

    def _elaborate_stage(self, m: Module) -> None:
        """From the walk to the unit's port."""
        command, walk, rows = self._command, self._walk, self._operand_row
        unit = self.unit.start
        payload = unit.payload
        # ``ready`` is late, and comes from far.
        m.submodules.hold = hold = Gate(
            lambda whole, staged, valid, ready: whole or (staged and not (valid and ready))
        )
        word = rows.data
        if self._wide:  # the header and three operands
            word = select(walk.turn, [word.word_select(n + 1, _HEADER_BITS) for n in range(3)])
            with m.If(walk.over):
                rows.take(m)
        else:
            first = Signal.like(rows.out)  # where the command's operands begin
            with m.If(walk.take):
                rows.take(m)
            with m.If(walk.made):
                with m.If(walk.last):
                    m.d.sync += first.eq(rows.following)
                with m.Else():
                    m.d.sync += rows.out.eq(first)
        m.d.comb += [
            walk.inner.eq(command.inner),
            walk.outer.eq(command.outer),
            walk.pong_outer.eq(command.pong_outer),
            walk.operand.eq(word),
            hold.bits.eq(Cat(walk.whole, self._staged, unit.valid, unit.ready)),
            walk.hold.eq(hold.out),
        ]
        m.d.sync += self._staged.eq(walk.hold)
        for n in range(self._operands):
            with m.If(walk.gives[n]):
                m.d.sync += payload.operand[n].eq(walk.address)
        # The header may be another command's from now on. The semaphores are told first.
        wait, signals = Signal(WAITS), Signal(signals_layout())
        self._wait, self._signals = wait, signals
        begins, told = Signal(), Signal()
        self._seen = Signal()  # what is missing is known in the next cycle
        m.d.comb += begins.eq(walk.give & walk.begin)
        m.d.sync += [told.eq(begins), self._seen.eq((told | self._seen) & ~begins)]
        with m.If(begins):
            m.d.sync += [payload.first.eq(walk.first), payload.opcode.eq(command.opcode)]
            for n in range(WAITS):
                ref = command.wait[n]
                m.d.sync += [
                    self.semaphore.index[n * _INDEX_BITS : (n + 1) * _INDEX_BITS].eq(ref.index),
                    wait[n].eq(ref.enable & (~ref.outer | walk.turns)),
                ]
        with m.If(walk.whole):
            m.d.sync += self._last.eq(walk.last)
            for n in range(SIGNALS):
                ref = command.signal[n]
                m.d.sync += [
                    signals.index[n].eq(ref.index),
                    signals.pending[n].eq(ref.enable & (~ref.outer | walk.last_inner)),
                ]

    def _elaborate_issue(self, m: Module) -> None:
        """Waits, starts and signals."""
        unit, semaphore = self.unit, self.semaphore
        outstanding = self._outstanding
        m.submodules.signals = signals = SignalQueue()
        valid = unit.start.valid
        waits, room, loaded, eligible = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            semaphore.want.eq(self._wait),
            waits.eq(self._wait.any()),
            room.eq(((outstanding != _OUTSTANDING) | unit.done) & signals.room),
            loaded.eq(self._active | self._arrived),  # if staged, as is asked for in the next line
            eligible.eq(self._walk.complete & loaded & room),
            self._accept.eq(valid & unit.start.ready),
            self._next_outstanding.eq(outstanding + self._accept - unit.done),
            signals.accept.eq(self._accept),
            signals.signals.eq(self._signals),
            signals.done.eq(unit.done),
            signals.added.eq(semaphore.added),
            semaphore.add.eq(signals.add),
            semaphore.add_index.eq(signals.add_index),
        ]
        m.d.sync += [
            self.state.busy.eq(
                self._waiting | self._active | (outstanding != unit.done) | signals.stays
            ),
            outstanding.eq(self._next_outstanding),
            semaphore.request.eq(eligible & self._seen & waits & ~semaphore.grant & ~valid),
            valid.eq(Mux(valid, ~unit.start.ready, semaphore.grant | (eligible & ~waits))),
        ]
        refused = Signal()  # in the cycle before
        m.d.sync += refused.eq(valid & ~unit.start.ready)
        with m.If((outstanding != 0) | (valid & refused)):
            m.d.comb += self.state.stall.eq(STALL_UNIT)
        with m.Elif(semaphore.request & semaphore.short & ~signals.busy):
            m.d.comb += self.state.stall.eq(STALL_SEMAPHORE)

    def _elaborate_oldest(self, m: Module) -> None:
        """Which command is the oldest one outstanding, and whether a further body may be loaded."""
        done, outstanding = self.unit.done, self._outstanding
        newest = Signal(range(SERIALS), init=SERIALS - 1)  # the command whose body is loaded
        following = Signal(range(SERIALS))
        # Whether the oldest and the newest outstanding iteration is the last of its command.
        oldest_last, newest_last = Signal(), Signal()
        several = outstanding == _OUTSTANDING
        # Until an iteration is accepted, which comes late: meanwhile they are not looked at.
        with m.If(self.unit.start.valid):
            m.d.sync += newest_last.eq(self._last)
        with m.If(done & several):
            m.d.sync += oldest_last.eq(newest_last)
        with m.Elif(done | (outstanding == 0)):
            m.d.sync += oldest_last.eq(self._last)

        # Of three commands none is loaded, so that the newest one follows the oldest. What is the
        # oldest iteration of two in the next cycle is that in this one, too.
        may_load: Value = self._next_outstanding == 0
        if self._overlap:
            may_load = (self._next_outstanding != _OUTSTANDING) | ~oldest_last
        m.d.comb += following.eq(newest + 1)
        m.d.sync += self._may_load.eq(may_load)
        with m.If(self._activated):
            m.d.sync += newest.eq(following)
        # That a body was taken comes late, and is put in from registers.
        activated, ended, serial = Signal(), Signal(), Signal(range(SERIALS))
        m.d.comb += self.state.serial.eq(Mux(activated & ended, newest, serial))
        m.d.sync += [
            activated.eq(self._activated),
            ended.eq(outstanding == done),
            serial.eq(self.state.serial),
        ]
        with m.If(done & oldest_last & (self._active | several)):
            m.d.sync += serial.eq(newest)
