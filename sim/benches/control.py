"""What surrounds the `Sequencer` in its bench: a driver on the host port, a memory, five units.

Units and memory pause at random. Every iteration that starts is compared with the command that
was put into the ring, and every job's completion record and registers can be.
"""

import collections
import dataclasses
from typing import Any

from ...rtl.core.bank import UNITS
from ...rtl.core.ports import iteration_layout
from ...rtl.hostport.csr import HOST_READ_LATENCY
from ...rtl.isa import (
    ABI_VERSION,
    COMMAND_BYTES,
    BarrierBody,
    Command,
    Completion,
    Csr,
    EndBody,
    Opcode,
    Queue,
    SemaphoreBody,
    Status,
)
from ...rtl.memory.bus import request_layout, write_layout
from .lib import bench_config, pack, rng, sample, start, tick, unpack
from .queue_commands import Iteration, iterations, random_command, used

RING_BASE = 0x4000
RECORDS = 0x1000
OPCODES = {
    Queue.LOAD0: Opcode.LOAD,
    Queue.LOAD1: Opcode.LOAD,
    Queue.COMPUTE: Opcode.MATMUL,
    Queue.VECTOR: Opcode.VECTOR,
    Queue.STORE: Opcode.STORE,
}
TRANSFERS = (Queue.LOAD0, Queue.LOAD1, Queue.STORE)
NOTHING: list[dict[str, int]] = [{}] * 4


def image(opcode: int | Opcode, body: int = 0, **fields: Any) -> bytes:
    """Return a command's 128 bytes."""
    number = opcode.value if isinstance(opcode, Opcode) else opcode
    whole = {"version": ABI_VERSION, "inner": 1, "outer": 1} | fields
    return pack(Command, whole, opcode=number, body=body).to_bytes(COMMAND_BYTES, "little")


def end(record: int, tag: int, **fields: Any) -> bytes:
    """Return an END."""
    return image(Opcode.END, pack(EndBody, completion=record, tag=tag), **fields)


def add(semaphore: int, value: int) -> bytes:
    """Return a SEMAPHORE."""
    return image(Opcode.SEMAPHORE, pack(SemaphoreBody, index=semaphore, value=value))


BARRIER = image(Opcode.BARRIER, pack(BarrierBody))


@dataclasses.dataclass
class Running:
    """An iteration in a unit."""

    iteration: Iteration
    ends: int
    error: Any = None  # a `Status`


class Memory:
    """Card memory behind a bus of random patience.

    ``hung``: it answers nothing. ``shut``: it takes no requests.
    """

    def __init__(self, bench: "Bench") -> None:
        self.bench = bench
        self.bytes = bytearray(bench.config.bus_bytes * 8192)
        self.width = bench.config.bus_bytes
        self.hung = self.shut = False
        self.reset()

    def reset(self) -> None:
        """Forget what is under way."""
        self.reads: collections.deque[int] = collections.deque()  # beat addresses
        self.writes: collections.deque[tuple[int, int]] = collections.deque()  # address, beats
        self.data: collections.deque[int] = collections.deque()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self.reads or self.writes or self.data)

    def drive(self) -> None:
        """Set this cycle's inputs."""
        dut, go = self.bench.dut, self.bench.go
        halted = int(dut.halt.value)
        dut.memory_idle.value = int(self.idle)
        dut.bus__request__ready.value = int(go() and not halted and not self.shut)
        dut.bus__write__ready.value = int(go() and not self.hung)
        self.answering = bool(self.reads) and go() and not self.hung
        dut.bus__read__valid.value = int(self.answering)
        if self.answering:
            at = self.reads[0]
            dut.bus__read__payload.value = int.from_bytes(
                self.bytes[at : at + self.width], "little"
            )
        whole = bool(self.writes) and len(self.data) >= self.writes[0][1]
        self.acknowledging = whole and go() and not self.hung
        dut.bus__written.value = int(self.acknowledging)

    def sample(self) -> None:
        """Act on what the next edge moves."""
        dut = self.bench.dut
        if self.answering:
            self.reads.popleft()
        if self.acknowledging:
            address, beats = self.writes.popleft()
            for n in range(beats):
                beat = unpack(write_layout(self.bench.config), self.data.popleft())
                value = beat["data"].to_bytes(self.width, "little")
                for byte in range(self.width):
                    if beat["mask"] >> byte & 1:
                        self.bytes[address + n * self.width + byte] = value[byte]
        if int(dut.bus__request__valid.value) and int(dut.bus__request__ready.value):
            fields = unpack(request_layout(self.bench.config), int(dut.bus__request__payload.value))
            address, beats = fields["address"], fields["last_beat"] + 1
            assert address % self.width == 0
            assert address // 256 == (address + beats * self.width - 1) // 256
            if fields["write"]:
                self.writes.append((address, beats))
            else:
                self.reads.extend(address + n * self.width for n in range(beats))
        if int(dut.bus__write__valid.value) and int(dut.bus__write__ready.value):
            self.data.append(int(dut.bus__write__payload.value))


class Bench:
    """The card around the sequencer, and the driver."""

    def __init__(self, dut: Any, *, stall: float = 0.3, latency: int = 20) -> None:
        self.dut = dut
        self.config = bench_config()
        self.rng = rng()
        self.stall, self.latency = stall, latency
        self.cycle = 0
        self.memory = Memory(self)
        self.expected: list[collections.deque[Iteration]] = [collections.deque() for _ in UNITS]
        self.running: list[collections.deque[Running]] = [collections.deque() for _ in UNITS]
        self.hung: set[int] = set()
        self.fail_at: dict[int, tuple[int, Any]] = {}  # queue: command, status
        self.flags_of: dict[int, int] = {}  # of the results of a compute command, by its index
        self.resets = 0
        self.in_reset = False
        self.starts: list[int] = []
        self.transferring = 0  # cycles in which a load or store unit worked
        self.written, self.size, self.tags = 0, 8, 100
        self.completed = 0
        for name in UNITS:
            getattr(dut, f"{name}__start__ready").value = 0
            getattr(dut, f"{name}__done").value = 0
            getattr(dut, f"{name}__error").value = 0
        for name in ("host__write", "progress", "memory_illegal", "bus__written"):
            getattr(dut, name).value = 0
        dut.flags.value = 0
        for name in ("mac_active", "stall_stream", "stall_fill", "stall_drain", "working"):
            getattr(dut, f"events__{name}").value = 0
        for name in ("read_beat", "write_beat", "row_hit", "activate", "refresh"):
            getattr(dut, f"events__{name}").value = 0
        dut.bus__read__valid.value = 0

    def go(self) -> bool:
        """Draw whether a port goes on in this cycle."""
        return bool(self.rng.random() >= self.stall)

    async def step(self, cycles: int = 1) -> None:
        """Pass cycles: drive all ports but the host's, settle, act."""
        for _ in range(cycles):
            self.transferring += any(self.running[queue] for queue in TRANSFERS)
            self.memory.drive()
            for n, name in enumerate(UNITS):
                self._drive_unit(n, name)
            await sample(self.dut)
            if int(self.dut.core_reset.value):
                if not self.in_reset:
                    assert int(self.dut.halt.value), "core reset without a halt"
                    self.resets += 1
                self.in_reset = True
                self.memory.reset()
                for running in self.running:
                    running.clear()
                for expected in self.expected:
                    expected.clear()
            else:
                self.in_reset = False
                self.memory.sample()
                for n, name in enumerate(UNITS):
                    self._sample_unit(n, name)
            await tick(self.dut)
            self.cycle += 1

    def _drive_unit(self, n: int, name: str) -> None:
        dut, running = self.dut, self.running[n]
        due = bool(running) and running[0].ends <= self.cycle and n not in self.hung
        failed = running[0].error if due else None
        getattr(dut, f"{name}__start__ready").value = int(self.go())
        getattr(dut, f"{name}__done").value = int(due and failed is None)
        getattr(dut, f"{name}__error").value = int(failed is not None)
        getattr(dut, f"{name}__status").value = failed.value if failed else 0
        if n == Queue.COMPUTE:
            # With the last iteration's end at the latest, and not all of them in one cycle.
            flags = self.flags_of.get(running[0].iteration.command, 0) if running else 0
            final = due and running[0].iteration.last
            some = int(self.rng.integers(16)) if self.go() else 0
            dut.flags.value = flags if final else flags & some
        if due:
            running.popleft()

    def _sample_unit(self, n: int, name: str) -> None:
        dut = self.dut
        if int(dut.halt.value):
            return
        if not int(getattr(dut, f"{name}__start__valid").value):
            return
        if not int(getattr(dut, f"{name}__start__ready").value):
            return
        assert self.expected[n], f"{name} starts what was not asked for"
        wanted = self.expected[n].popleft()
        payload = int(getattr(dut, f"{name}__start__payload").value)
        got = unpack(iteration_layout(), payload)
        assert used(name, got["operand"], got["body"]) == used(name, wanted.operands, wanted.body)
        assert len(self.running[n]) < 2
        item = Running(wanted, self.cycle + 1 + int(self.rng.integers(self.latency)))
        if self.running[n]:
            item.ends = max(item.ends, self.running[n][-1].ends + 1)
        if n in self.fail_at and self.fail_at[n][0] == wanted.command and wanted.last:
            item.error = self.fail_at[n][1]
        self.running[n].append(item)
        self.starts.append(self.cycle)

    # The driver.

    async def write(self, address: int, value: int) -> None:
        """Write a register; one cycle."""
        dut = self.dut
        dut.host__address.value = address
        dut.host__write_data.value = value
        dut.host__write.value = 1
        await self.step()
        dut.host__write.value = 0

    async def read(self, address: int) -> int:
        """Read a register."""
        self.dut.host__address.value = address
        await self.step(HOST_READ_LATENCY + 1)
        return int(self.dut.host__read_data.value)

    async def set_up(self, *, base: int = RING_BASE, size: int = 8, watchdog: int = 3000) -> None:
        """Tell the card where the ring is."""
        self.size = size
        await self.write(Csr.RING_BASE, base)
        await self.write(Csr.RING_SIZE, size)
        await self.write(Csr.WATCHDOG, watchdog)

    async def send(self, commands: list[bytes], *, step: int = 3) -> None:
        """Put commands into the ring as it has room, and ring after every few of them."""
        for n, command in enumerate(commands):
            for _ in range(5000):
                if self.written - await self.read(Csr.RING_HEAD) < self.size:
                    break
            else:
                raise AssertionError("the ring does not drain")
            at = RING_BASE + self.written % self.size * COMMAND_BYTES
            self.memory.bytes[at : at + COMMAND_BYTES] = command
            self.written += 1
            if n % step == step - 1 or n == len(commands) - 1:
                await self.write(Csr.RING_TAIL, self.written & 0xFFFFFFFF)

    def queue_command(self, index: int, **fields: Any) -> bytes:
        """Return a random command for a queue, which the units expect from now on."""
        queue = Queue(int(self.rng.integers(len(Queue)))) if "on" not in fields else fields["on"]
        fields.pop("on", None)
        plain = random_command(self.rng, semaphores=1) | {"wait": NOTHING, "signal": NOTHING}
        # Bodies have no reserved bits in their first 12 bytes.
        plain |= {"body": int.from_bytes(self.rng.bytes(8), "little"), "pong_outer": 0} | fields
        self.expected[queue].extend(iterations(plain, index))
        return image(OPCODES[queue], queue=queue, **plain)

    def new_record(self) -> tuple[int, int]:
        """Return address and tag of a record, and clear its place."""
        self.tags += 1
        record = RECORDS + self.tags % 64 * 16
        self.memory.bytes[record : record + 16] = bytes(16)
        return record, self.tags

    async def finish(self, *, limit: int = 20_000) -> None:
        """Wait until one job more has completed."""
        self.completed += 1
        deadline = self.cycle + limit
        while await self.read(Csr.COMPLETED) != self.completed:
            assert self.cycle < deadline, "the job does not end"
        assert int(self.dut.irq.value), "no interrupt"
        await self.write(Csr.ACK, self.completed)
        await self.step(2)
        assert not int(self.dut.irq.value), "the interrupt stays"

    def record(self, at: int) -> dict[str, int]:
        """Return a completion record."""
        value = int.from_bytes(self.memory.bytes[at : at + 16], "little")
        fields: dict[str, int] = unpack(Completion, value)
        return fields

    def check_record(
        self,
        at: int,
        tag: int,
        command: int,
        status: Any = Status.OK,
        unit: int = 0,
        flags: int = 0,
    ) -> None:
        """Check a completion record."""
        got = self.record(at)
        cycles = got.pop("cycles")
        assert 0 < cycles < self.cycle
        assert got == {
            "tag": tag,
            "status": status.value,
            "unit": unit,
            "flags": flags,
            "valid": 1,
            "command": command,
        }, got

    async def check_error(self, status: Any, unit: int, command: int) -> None:
        """Check the registers of the newest error."""
        error = await self.read(Csr.ERROR)
        assert error == status.value | unit << 8, f"{error:#x}"
        assert await self.read(Csr.ERROR_COMMAND) == command

    async def good_job(self) -> None:
        """Run a short job, which must succeed and find all semaphores at zero."""
        at, tag = self.new_record()
        first = [self.queue_command(0, on=queue) for queue in range(len(UNITS))]
        await self.send([*first, BARRIER, self.queue_command(6), end(at, tag)])
        await self.finish()
        assert not any(self.expected), "commands were lost"
        self.check_record(at, tag, 7)
        assert await self.read(Csr.STATE) & 0x1FF == 0


async def begin(dut: Any, **options: Any) -> Bench:
    """Reset the design and return a bench whose ring is set up."""
    for name in ("host__write", "progress", "memory_illegal"):
        getattr(dut, name).value = 0
    await start(dut)
    bench = Bench(dut, **options)
    await bench.set_up()
    return bench
