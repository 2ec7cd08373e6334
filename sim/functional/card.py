"""The card as the driver sees it, executed command by command."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import (
    ABI_VERSION,
    COMMAND_BYTES,
    Command,
    Completion,
    Csr,
    EndBody,
    Opcode,
    Queue,
    Status,
    Unit,
)
from .checks import Fault, check_command
from .decode import pack, unpack
from .job import Job, Running
from .units import execute

__all__ = ["FunctionalCard"]

ID = 0x4B535044
WATCHDOG_RESET = 100_000
WORD = 0xFFFFFFFF
ADDRESS_MASK = 0xFC
STALL_SEMAPHORE = 1
ALL_ENGINES = 0xFF

COUNTERS = (
    Csr.CYCLES,
    Csr.MAC_ACTIVE,
    Csr.STALL_STREAM,
    Csr.STALL_FILL,
    Csr.STALL_DRAIN,
    Csr.IDLE_IMBALANCE,
    Csr.BYTES_READ,
    Csr.BYTES_WRITTEN,
    Csr.HBM_ROW_HITS,
    Csr.HBM_ACTIVATES,
    Csr.HBM_REFRESHES,
    Csr.IDLE_MEMORY,
    Csr.IDLE_OTHER,
)


@dataclasses.dataclass
class _Pending:
    """The command that is next to be dispatched; ``fault`` if the sequencer refuses it.

    Without a ``command`` it lies outside card memory.
    """

    index: int
    command: Mapping[str, Any] | None = None
    opcode: Opcode | None = None
    body: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fault: Status | None = None

    @property
    def ends(self) -> bool:
        """Whether it ends the job; its opcode says so even where the rest is refused."""
        return self.command is not None and self.command["opcode"] == Opcode.END.value


class FunctionalCard:
    """The whole card at the speed of NumPy.

    It executes the same ring of commands as the RTL, and leaves the same bytes in card memory and
    the same statuses. `checks` says what is refused. Rules beyond those of ``rtl/isa/``:

    - An iteration starts when the credits of all its waits are there, and takes them together.
      A semaphore stays at 255.
    - A queue holds `CardConfig.queue_depth` commands besides the one that its unit works on; a
      command that finds its queue full waits, and all later ones with it.
    - The first error of a job, or an abort, ends all its queues. Its remaining commands are skipped
      without checks up to the next one with the opcode END, whose completion record, if it has a
      place in card memory, carries status, unit and index of the first error.
    - The watchdog fires when commands are in queues and none of them can go on: the unit is that
      of the first queue that is blocked. A job that only lacks commands is not stuck.
    - A command outside card memory, or a second abort, ends the job without a record; what the
      doorbell had released is dropped.

    Counters: MAC_ACTIVE (stream entries issued, by the engines that COUNT_ENGINE says), BYTES_READ
    and BYTES_WRITTEN (whole beats that commands, transfers and the completion record move) are
    counted, CYCLES is modelled, and the others read 0.

    Parameters
    ----------
    config : CardConfig

    Attributes
    ----------
    cycles : int
        Modelled cycles so far.
    build_hash : int
        0: no RTL is in it.
    """

    modelled = True
    """`cycles` and `Csr.CYCLES` come from a model, not from the RTL."""

    def __init__(self, config: CardConfig) -> None:
        self.config = config
        self.cycles = 0
        self.build_hash = 0
        self._memory = np.zeros(config.memory_bytes, np.uint8)
        self._scratchpad = np.zeros(config.scratchpad_bytes, np.uint8)
        self._reset()

    def _reset(self) -> None:
        self._registers = dict.fromkeys(Csr, 0)
        self._registers[Csr.WATCHDOG] = WATCHDOG_RESET
        self._registers[Csr.COUNT_ENGINE] = ALL_ENGINES
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._job: Job | None = None
        self._pending: _Pending | None = None
        self._dealt = 0

    def close(self) -> None:
        """Release the card's memory; the card is of no use afterwards."""
        self._memory = np.zeros(0, np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_memory(self, addr: int, data: bytes | bytearray | memoryview | np.ndarray) -> None:
        """Write bytes to card memory; raise `ValueError` if they do not fit."""
        raw = np.frombuffer(data, np.uint8)
        self._check_range(addr, raw.size)
        self._memory[addr : addr + raw.size] = raw

    def read_memory(self, addr: int, n: int) -> bytes:
        """Return ``n`` bytes of card memory; raise `ValueError` if they are not all in it."""
        self._check_range(addr, n)
        return self._memory[addr : addr + n].tobytes()

    def _check_range(self, addr: int, n: int) -> None:
        if addr < 0 or n < 0 or addr + n > self._memory.size:
            raise ValueError(f"bytes must be inside card memory, not {n!r} at {addr!r}")

    def csr_read(self, addr: int) -> int:
        """Return a control or status register; 0 where there is none."""
        addr &= ADDRESS_MASK
        config, job = self.config, self._job
        fixed = {
            Csr.ID: ID,
            Csr.ABI: ABI_VERSION,
            Csr.BUILD_LOW: self.build_hash & WORD,
            Csr.BUILD_HIGH: self.build_hash >> 32,
            Csr.GEOMETRY: config.rows
            | config.cols << 8
            | config.bus_bytes << 16
            | config.hbm_channels << 24,
            Csr.SCRATCHPAD_BYTES: config.scratchpad_bytes,
            Csr.MEMORY_BYTES: config.memory_bytes & WORD,
            Csr.OPERAND_DEPTH: config.operand_depth,
            Csr.PARTS: config.parts_mask,
            Csr.STATE: self._state(),
        }
        if addr in fixed:
            return fixed[Csr(addr)]
        if job is not None:
            self._counters[Csr.CYCLES] = self.cycles - job.started
        for counter, value in self._counters.items():
            if addr in (counter, counter + 4):
                return value >> 8 * (addr - counter) & WORD
        return self._registers[Csr(addr)] if addr in iter(Csr) else 0

    def csr_write(self, addr: int, value: int) -> None:
        """Write a control register; others keep their values."""
        if not 0 <= value <= WORD:
            raise ValueError(f"a register takes 32 bits, not {value!r}")
        addr &= ADDRESS_MASK
        if addr == Csr.CONTROL:
            if value & 1:
                self._reset()
            elif value & 2:
                # A doorbell starts a job at once, even if nothing has run since.
                if self._job is None:
                    self._fetch()
                if self._job is not None:
                    self._abort(self._job)
        elif addr == Csr.RING_BASE:
            self._registers[Csr.RING_BASE] = value & -COMMAND_BYTES
        elif addr == Csr.MEMORY_MODE:
            if self._job is None:
                self._registers[Csr.MEMORY_MODE] = value & 1
        elif addr == Csr.COUNT_ENGINE:
            self._registers[Csr.COUNT_ENGINE] = value & ALL_ENGINES
        elif addr in (Csr.RING_SIZE, Csr.RING_TAIL, Csr.ACK, Csr.WATCHDOG):
            self._registers[Csr(addr)] = value

    def _state(self) -> int:
        if self._job is None:
            return 0
        units = sum(1 << queue for queue, commands in self._job.queues.items() if commands)
        return 1 | (units | 1 << Unit.SEQUENCER) << 8

    def _abort(self, job: Job) -> None:
        if job.failure is not None:
            self._end_without_record()
        else:
            job.fail(Status.ABORTED, Unit.SEQUENCER, job.taken)

    def run(self, max_cycles: int) -> int:
        """Execute until the interrupt line is high, at most ``max_cycles`` of the model.

        That is while `Csr.COMPLETED` differs from `Csr.ACK`: the line may be high already. Returns
        early where nothing can go on without the host.

        Returns
        -------
        int
            Modelled cycles that passed.
        """
        begin, deadline = self.cycles, self.cycles + max_cycles
        registers = self._registers
        while registers[Csr.COMPLETED] == registers[Csr.ACK] and self.cycles < deadline:
            if self._pending is None:
                self._fetch()
            if self._job is None or not (self._step(deadline) or self._watch(deadline)):
                break
        return self.cycles - begin

    def _fetch(self) -> None:
        """Fetch the next command, if there is one; the first one starts a job."""
        registers = self._registers
        head = registers[Csr.RING_HEAD]
        if head == registers[Csr.RING_TAIL]:
            return
        if self._job is None:
            ideal = bool(registers[Csr.MEMORY_MODE])
            self._job = Job(self.config, self.cycles, ideal=ideal)
            self._counters = dict.fromkeys(COUNTERS, 0)
        index = head & (registers[Csr.RING_SIZE] - 1) & WORD
        address = registers[Csr.RING_BASE] + index * COMMAND_BYTES
        if address + COMMAND_BYTES > self.config.memory_bytes:
            self._pending = _Pending(self._job.taken, fault=Status.BAD_ADDRESS)
            return
        raw = self.read_memory(address, COMMAND_BYTES)
        self._counters[Csr.BYTES_READ] += COMMAND_BYTES
        command = unpack(Command, raw)
        self._pending = pending = _Pending(self._job.taken, command)
        try:
            bits = int.from_bytes(raw, "little")
            pending.opcode, pending.body = check_command(bits, command, self.config)
        except Fault as fault:
            pending.fault = fault.status

    def _step(self, deadline: int) -> bool:
        """Do what comes first in the model; return whether there was anything to do."""
        job = self._job
        assert job is not None
        ready = [(cycle, queue) for queue in Queue if (cycle := job.start(queue)) is not None]
        dispatch = self._dispatch_cycle(job, stuck=not ready)
        cycles = [cycle for cycle, _ in ready] + ([] if dispatch is None else [dispatch])
        if not cycles:
            return False
        cycle = min(cycles)
        if cycle > deadline:
            self.cycles = deadline
            return True
        self.cycles = max(self.cycles, cycle)
        if cycle == dispatch:
            self._dispatch(job, cycle)
        else:
            self._execute(job, min(ready)[1], cycle)
        return True

    def _dispatch_cycle(self, job: Job, *, stuck: bool) -> int | None:
        """Return when the pending command can be dispatched, if it can.

        ``stuck``: no queue can go on without another command.
        """
        pending = self._pending
        if pending is None:
            return None
        if job.failure is not None or pending.opcode is Opcode.SEMAPHORE:
            return job.dispatcher
        if pending.fault is not None:
            return job.quiet if stuck else None
        if pending.opcode in (Opcode.BARRIER, Opcode.END):
            return job.quiet if job.idle else None
        assert pending.command is not None
        return job.room(Queue(pending.command["queue"]))

    def _dispatch(self, job: Job, cycle: int) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None
        if pending.fault is not None:
            job.fail(pending.fault, Unit.SEQUENCER, pending.index)
        command, opcode = pending.command, pending.opcode
        if command is None:
            self._end_without_record()
            return
        self._registers[Csr.RING_HEAD] = (self._registers[Csr.RING_HEAD] + 1) & WORD
        job.dispatched(cycle)
        if pending.ends:
            self._write_record(job, pending.index, unpack(EndBody, command["body"]))
            self._end(job)
        elif job.failure is not None or opcode is None:
            return
        elif opcode is Opcode.SEMAPHORE:
            job.add(pending.body["index"], pending.body["value"], cycle)
        elif opcode is Opcode.BARRIER:
            job.clear()
        else:
            running = Running(pending.index, opcode, command, pending.body, cycle)
            job.put(Queue(command["queue"]), running)

    def _execute(self, job: Job, queue: Queue, cycle: int) -> None:
        running = job.queues[queue][0]
        job.take(queue)
        try:
            work = execute(
                running.opcode,
                running.body,
                running.operands(),
                memory=self._memory,
                scratchpad=self._scratchpad,
                config=self.config,
                dealt=self._dealt,
            )
        except Fault as fault:
            job.fail(fault.status, Unit(queue), running.index)
            return
        if work.dealt is not None:
            self._dealt = work.dealt
        engine = self._registers[Csr.COUNT_ENGINE]
        counted = work.issued if engine == ALL_ENGINES else work.issued[engine : engine + 1]
        self._counters[Csr.MAC_ACTIVE] += sum(counted)
        job.raised(work.flags, running.index)
        self._counters[Csr.BYTES_READ] += work.read
        self._counters[Csr.BYTES_WRITTEN] += work.written
        job.done(queue, cycle, work)

    def _watch(self, deadline: int) -> bool:
        """Let time pass for a job that cannot go on; return whether the watchdog fired."""
        job, watchdog = self._job, self._registers[Csr.WATCHDOG]
        assert job is not None
        if job.idle:
            return False
        cycle = job.quiet + watchdog
        if not watchdog or cycle > deadline:
            self.cycles = deadline
            return False
        self.cycles = max(self.cycles, cycle)
        stall = semaphores = 0
        for queue in Queue:
            missing = job.missing(queue)
            if missing:
                stall |= STALL_SEMAPHORE << 4 * queue
                semaphores |= missing[0] << 4 * queue
        self._registers[Csr.STALL] = stall
        self._registers[Csr.STALL_SEMAPHORE] = semaphores
        blocked = next(queue for queue in Queue if job.queues[queue])
        job.fail(Status.WATCHDOG, Unit(blocked), job.queues[blocked][0].index)
        return True

    def _write_record(self, job: Job, index: int, end: Mapping[str, Any]) -> None:
        """Write the completion record, if END gives it a place."""
        self.cycles = max(self.cycles, job.dispatcher)
        failure, place = job.failure, end["completion"]
        flagged = job.flagged if job.flags else index
        record = {
            "tag": end["tag"],
            "status": failure.status if failure else Status.OK,
            "unit": failure.unit if failure else 0,
            "flags": 0 if failure else job.flags,
            "valid": 1,
            "command": failure.command if failure else flagged,
            "cycles": (self.cycles - job.started) & WORD,
        }
        if place % GRANULE == 0 and place + GRANULE <= self.config.memory_bytes:
            self.write_memory(place, pack(Completion, record))
            self._counters[Csr.BYTES_WRITTEN] += max(GRANULE, self.config.bus_bytes)

    def _end_without_record(self) -> None:
        """End the job where its END cannot be found; drop what the doorbell released."""
        job = self._job
        assert job is not None
        self._registers[Csr.RING_HEAD] = self._registers[Csr.RING_TAIL]
        self._end(job)

    def _end(self, job: Job) -> None:
        self._job = self._pending = None
        self._counters[Csr.CYCLES] = self.cycles - job.started
        failure = job.failure
        if failure is not None:
            self._dealt = 0
            self._registers[Csr.ERROR] = failure.status.value | failure.unit << 8
            self._registers[Csr.ERROR_COMMAND] = failure.command
        self._registers[Csr.COMPLETED] = (self._registers[Csr.COMPLETED] + 1) & WORD
