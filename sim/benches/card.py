"""The whole card: random jobs through the host port, compared with the functional simulator.

The bench is the host and the bytes of card memory. What it offers in cycles in which nothing may
be looked at is noise.
"""

import collections
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt

from ...rtl.hostport.csr import ALL_ENGINES, HOST_READ_LATENCY
from ...rtl.isa import COMMAND_BYTES, Completion, Csr, Opcode, Status, Unit
from ...rtl.memory.bus import STORAGE_LATENCY
from ..functional.assemble import command
from ..functional.card import FunctionalCard
from ..functional.random_jobs import RandomJob, RandomJobs
from .lib import bench_config, rng, sample, start, tick, unpack

RECORDS, RINGS, DATA, DATA_BYTES, STOPPED = 0x1000, 0x8000, 0x20000, 0x60000, 0x80000
SLOTS = 64
LARGEST = 320
RECORD_CYCLES = 1000
IDENTITY = 0x4B535044
CONSTANT = (
    *(Csr.ID, Csr.ABI, Csr.GEOMETRY, Csr.SCRATCHPAD_BYTES, Csr.OPERAND_DEPTH),
    Csr.PARTS,
)
ENGINE_CYCLES = (
    *(Csr.MAC_ACTIVE, Csr.STALL_STREAM, Csr.STALL_FILL, Csr.STALL_DRAIN),
    *(Csr.IDLE_IMBALANCE, Csr.IDLE_MEMORY, Csr.IDLE_OTHER),
)
RESET, ABORT = 1, 2


class Bench:
    """The card's surroundings, and the functional simulator beside it."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.config = bench_config()
        self.rng = rng()
        self.memory = np.zeros(self.config.memory_bytes, np.uint8)
        self.model = FunctionalCard(self.config)
        self.good, self.stopped = (
            RandomJobs(self.config, self.rng, base=base, nbytes=DATA_BYTES, largest=LARGEST)
            for base in (DATA, STOPPED)
        )
        self.cycle = self.count = self.tail = 0

    async def start(self) -> None:
        """Start clock and memory, and reset the card."""
        for name in ("host__address", "host__write", "host__write_data", "storage__read_data"):
            getattr(self.dut, name).value = 0
        await start(self.dut)
        cocotb.start_soon(self._serve())

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    async def _serve(self) -> None:
        """Answer the storage port."""
        dut, width = self.dut, self.config.bus_bytes
        beats = self.memory.reshape(-1, width)
        answers = collections.deque([bytes(width)] * (STORAGE_LATENCY - 1))
        while True:
            await sample(dut)
            self.cycle += 1
            answer = self.rng.bytes(width)
            if int(dut.storage__enable.value):
                beat = beats[int(dut.storage__address.value)]
                if int(dut.storage__write.value):
                    data = int(dut.storage__write_data.value).to_bytes(width, "little")
                    mask = int(dut.storage__write_mask.value)
                    chosen = [bool(mask >> n & 1) for n in range(width)]
                    beat[chosen] = np.frombuffer(data, np.uint8)[chosen]
                else:
                    answer = beat.tobytes()
            await tick(dut)
            answers.append(answer)
            dut.storage__read_data.value = int.from_bytes(answers.popleft(), "little")

    # The host port. Every access ends at a `tick`.

    async def read(self, address: int) -> int:
        """Read a register: what it was after the cycle in which it was named."""
        self.dut.host__address.value = address
        for _ in range(HOST_READ_LATENCY):
            await tick(self.dut)
            self._noise()
        await sample(self.dut)
        value = int(self.dut.host__read_data.value)
        await tick(self.dut)
        return value

    async def write(self, address: int, value: int) -> None:
        """Write a register."""
        self.dut.host__address.value = address
        self.dut.host__write_data.value = value
        self.dut.host__write.value = 1
        await tick(self.dut)
        self._noise()

    def _noise(self) -> None:
        self.dut.host__write.value = 0
        self.dut.host__address.value = int(self.rng.integers(256))
        self.dut.host__write_data.value = int(self.rng.integers(1 << 32))

    async def read_counter(self, register: Csr) -> int:
        """Read 64 bits."""
        return await self.read(register) | await self.read(register + 4) << 32

    async def disturb(self) -> None:
        """Do something with the host port that must change nothing."""
        choice = self.rng.integers(5)
        if choice == 0:
            await self.read(int(self.rng.integers(256)))
        elif choice == 1:
            expected = {name: self.model.csr_read(name) for name in CONSTANT}
            name = CONSTANT[self.rng.integers(len(CONSTANT))]
            assert await self.read(name) == expected[name], name.name
        elif choice == 2:
            # Registers that cannot be written, and addresses without one.
            name = int(self.rng.choice([Csr.STATE, Csr.RING_HEAD, Csr.COMPLETED, Csr.ERROR, 0x58]))
            await self.write(name, int(self.rng.integers(1 << 32)))
        elif choice == 3:
            first = await self.read_counter(Csr.CYCLES)
            second = await self.read_counter(Csr.CYCLES)
            # It begins anew with a job, and stands still between jobs.
            assert first <= second or second < 64, (first, second)
        else:
            await tick(self.dut, int(self.rng.integers(1, 40)))

    # Jobs.

    async def begin(self, *, ideal: bool, watchdog: int = 5000) -> None:
        """Reset the card through its register, and set it up like the model."""
        self.count = self.tail = 0
        self.ring = RINGS + COMMAND_BYTES * int(self.rng.integers(0, 64))
        self.size = int(self.rng.choice([4, 8, 32]))
        rows = self.config.rows
        engine = int(self.rng.choice([ALL_ENGINES, self.rng.integers(rows)]))
        self.counted = rows if engine == ALL_ENGINES else 1
        settings = {
            Csr.CONTROL: RESET,
            Csr.MEMORY_MODE: int(ideal),
            Csr.WATCHDOG: watchdog,
            Csr.RING_BASE: self.ring,
            Csr.RING_SIZE: self.size,
            Csr.COUNT_ENGINE: engine,
        }
        self._put(RECORDS, np.zeros(16 * SLOTS, np.uint8))
        for register, value in settings.items():
            await self.write(register, value)
            self.model.csr_write(register, value)
        assert await self.read(Csr.ID) == IDENTITY
        for register in (Csr.RING_HEAD, Csr.RING_TAIL, Csr.COMPLETED, Csr.ERROR):
            assert await self.read(register) == 0, register.name

    def _put(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self.memory[address : address + data.size] = data
        self.model.write_memory(address, data)

    def job(self, operations: int, *, stopped: bool = False) -> RandomJob:
        """Return a job, its END included, whose data are in both memories.

        One that will be ``stopped`` has a part of memory for itself, which nobody looks at.
        """
        job = (self.stopped if stopped else self.good).job(operations)
        body = {"completion": RECORDS + 16 * self.count, "tag": int(self.rng.integers(1 << 32))}
        job.commands.append(command(Opcode.END, body))
        self.count += 1
        for address, data in job.writes:
            self._put(address, data)
        return job

    async def submit(self, commands: list[bytes], *, disturb: float = 0.5) -> None:
        """Write commands to the ring as there is room, with pauses between doorbells."""
        waiting = list(commands)
        while waiting:
            room = self.size - (self.tail - await self.read(Csr.RING_HEAD))
            assert 0 <= room <= self.size
            count = int(self.rng.integers(0, min(room, len(waiting)) + 1))
            for raw in waiting[:count]:
                place = self.ring + self.tail % self.size * COMMAND_BYTES
                self.memory[place : place + COMMAND_BYTES] = np.frombuffer(raw, np.uint8)
                self.tail += 1
            del waiting[:count]
            await self.write(Csr.RING_TAIL, self.tail)
            if self._chance(disturb):
                await self.disturb()

    async def interrupt(self) -> None:
        """Wait for the next interrupt, with a busy host port; acknowledge it."""
        end = self.cycle + 100_000
        while not int(self.dut.irq.value):
            await self.disturb()
            await sample(self.dut)
            assert self.cycle < end, f"no job ended; state {await self.read(Csr.STATE):#x}"
        await tick(self.dut)
        completed = await self.read(Csr.COMPLETED)
        await self.write(Csr.ACK, completed)
        await tick(self.dut, 2)
        await sample(self.dut)
        if int(self.dut.irq.value):
            # Another job has ended since.
            await tick(self.dut)
            assert await self.read(Csr.COMPLETED) > completed
        await tick(self.dut)

    async def completed(self, count: int) -> None:
        """Wait until so many jobs have ended."""
        while await self.read(Csr.COMPLETED) != count:
            await self.interrupt()
        await self.write(Csr.ACK, count)

    def run_model(self, jobs: list[RandomJob]) -> None:
        """Run the jobs on the model."""
        model = self.model
        tail = model.csr_read(Csr.RING_TAIL)
        waiting = [raw for job in jobs for raw in job.commands]
        while waiting or model.csr_read(Csr.RING_HEAD) != tail or model.csr_read(Csr.STATE):
            room = self.size - (tail - model.csr_read(Csr.RING_HEAD))
            for raw in waiting[:room]:
                model.write_memory(self.ring + tail % self.size * COMMAND_BYTES, raw)
                tail += 1
            del waiting[:room]
            model.csr_write(Csr.RING_TAIL, tail)
            # Not for long: the watchdog must not see a job that lacks commands.
            model.run(100)
            model.csr_write(Csr.ACK, model.csr_read(Csr.COMPLETED))

    def record(self, slot: int) -> dict[str, int]:
        """Return a completion record of the card."""
        place = RECORDS + 16 * slot
        return dict(unpack(Completion, int.from_bytes(self.memory[place : place + 16], "little")))

    def compare(self) -> None:
        """Compare records, without their cycles, and memory."""
        for slot in range(self.count):
            self.compare_record(slot)
        self.compare_memory()

    def compare_record(self, slot: int) -> None:
        """Compare the record of a job that ended well, without its cycles."""
        got = self.record(slot)
        raw = self.model.read_memory(RECORDS + 16 * slot, 16)
        want = dict(unpack(Completion, int.from_bytes(raw, "little")))
        assert got.pop("cycles") > 0
        want.pop("cycles")
        assert got == want, f"record {slot}"
        assert got["status"] == Status.OK.value, got

    def compare_memory(self) -> None:
        """Compare what jobs left in memory."""
        want_bytes = np.frombuffer(self.model.read_memory(DATA, DATA_BYTES), np.uint8)
        wrong = np.flatnonzero(self.memory[DATA : DATA + DATA_BYTES] != want_bytes)
        assert not wrong.size, f"{wrong.size} bytes differ, the first at {DATA + wrong[0]:#x}"


@cocotb.test()
@cocotb.parametrize(ideal=[False, True])
async def jobs(dut: Any, ideal: bool) -> None:
    """Several jobs in one ring, while the host pauses, reads and writes."""
    bench = Bench(dut)
    await bench.start()
    for _ in range(2):
        await bench.begin(ideal=ideal)
        jobs = [bench.job(operations) for operations in (2, 1, 2)]
        await bench.submit([raw for job in jobs for raw in job.commands])
        await bench.completed(len(jobs))
        bench.run_model(jobs)
        bench.compare()
        assert await bench.read(Csr.ERROR) == 0
        # Not the bytes read: the job before may have fetched some of this one's commands.
        for counter in (Csr.MAC_ACTIVE, Csr.BYTES_WRITTEN):
            want = bench.model.csr_read(counter)
            assert await bench.read_counter(counter) == want, counter.name
        # Each cycle of each engine that is counted has one cause.
        causes = [await bench.read_counter(counter) for counter in ENGINE_CYCLES]
        assert sum(causes) == bench.counted * await bench.read_counter(Csr.CYCLES), causes
        # The record was made before it was written; the counter stopped after.
        written = await bench.read(Csr.CYCLES) - bench.record(len(jobs) - 1)["cycles"]
        assert 0 < written < RECORD_CYCLES


@cocotb.test()
async def memory_mode_keeps_while_a_job_runs(dut: Any) -> None:
    bench = Bench(dut)
    await bench.start()
    await bench.begin(ideal=True)
    job = bench.job(1)
    await bench.submit(job.commands[:1], disturb=0)
    while not await bench.read(Csr.STATE) & 1:
        pass
    await bench.write(Csr.MEMORY_MODE, 0)
    await bench.submit(job.commands[1:])
    await bench.completed(1)
    assert await bench.read(Csr.MEMORY_MODE) == 1
    bench.run_model([job])
    bench.compare()


@cocotb.test()
async def aborts(dut: Any) -> None:
    """A job is aborted at any time; the next one of the ring is whole."""
    bench = Bench(dut)
    await bench.start()
    for turn in range(6):
        await bench.begin(ideal=bool(turn % 2))
        job = bench.job(2, stopped=True)
        cut = int(bench.rng.integers(1, len(job.commands)))
        await bench.submit(job.commands[:cut], disturb=0.1)
        await tick(dut, int(bench.rng.integers(1, 300)))
        await bench.write(Csr.CONTROL, ABORT)
        await bench.submit(job.commands[cut:])
        await bench.completed(1)
        record = bench.record(0)
        assert record["status"] == Status.ABORTED.value
        assert record["unit"] == Unit.SEQUENCER
        assert record["command"] < len(job.commands)
        error = await bench.read(Csr.ERROR)
        assert error == Status.ABORTED.value | Unit.SEQUENCER << 8
        # The model gets only the good one.
        good = bench.job(1)
        await bench.submit(good.commands)
        await bench.completed(2)
        bench.run_model([good])
        bench.compare_record(1)
        bench.compare_memory()


@cocotb.test()
@cocotb.parametrize(by_register=[False, True])
async def resets(dut: Any, by_register: bool) -> None:
    """A reset in the middle of a job, by the register or by the pin."""
    bench = Bench(dut)
    await bench.start()
    for turn in range(6):
        await bench.begin(ideal=bool(turn % 2))
        job = bench.job(2, stopped=True)
        cut = int(bench.rng.integers(1, len(job.commands)))
        await bench.submit(job.commands[:cut], disturb=0.1)
        await tick(dut, int(bench.rng.integers(1, 300)))
        if not by_register:
            dut.rst.value = 1
            await tick(dut, int(bench.rng.integers(1, 3)))
            dut.rst.value = 0
        await bench.begin(ideal=bool(turn % 2))
        good = bench.job(1)
        await bench.submit(good.commands)
        await bench.completed(1)
        bench.run_model([good])
        bench.compare()
