"""The same random bytes on the Verilated card and on the functional simulator."""

import numpy as np
import pytest

from deepseek.rtl.config import preset
from deepseek.rtl.isa import COMMAND_BYTES, Completion, Csr, Opcode, Status, Unit
from deepseek.sim.functional.assemble import command
from deepseek.sim.functional.card import FunctionalCard
from deepseek.sim.functional.decode import unpack
from deepseek.sim.functional.faults import KINDS, inject
from deepseek.sim.functional.random_jobs import RandomJobs
from deepseek.sim.verilated.library import VerilatedCard

RECORDS, RECORD_SLOTS, RINGS = 0x10000, 64, 0x20000
DATA, DATA_BYTES, LOW_BYTES = 0x100000, 0x600000, 0x800000
FAULTY, FAULTY_BYTES = 0x700000, 0x100000
TOP_BYTES = 0x600000
LIMIT = 5_000_000
WATCHDOG = 20_000
ALL_ENGINES = 0xFF
ENGINE_CYCLES = (
    *(Csr.MAC_ACTIVE, Csr.STALL_STREAM, Csr.STALL_FILL, Csr.STALL_DRAIN),
    *(Csr.IDLE_IMBALANCE, Csr.IDLE_MEMORY, Csr.IDLE_OTHER),
)


class Host:
    """Feeds one card's ring, and collects completion records."""

    def __init__(self, card):
        self.card = card

    def begin(self, *, ring, size, ideal, watchdog=WATCHDOG):
        """Reset the card and set it up."""
        self.ring, self.size, self.waiting, self.jobs = ring, size, [], 0
        self.card.csr_write(Csr.CONTROL, 1)
        self.card.csr_write(Csr.MEMORY_MODE, int(ideal))
        self.card.csr_write(Csr.WATCHDOG, watchdog)
        self.card.csr_write(Csr.RING_BASE, ring)
        self.card.csr_write(Csr.RING_SIZE, size)
        self.tail = self.card.csr_read(Csr.RING_TAIL)
        assert self.tail == self.card.csr_read(Csr.RING_HEAD) == 0
        self.card.write_memory(RECORDS, bytes(16 * RECORD_SLOTS))

    def submit(self, job):
        """Write a job's data; its commands follow as the ring has room."""
        for address, data in job.writes:
            self.card.write_memory(address, data)
        self.waiting += job.commands
        self.jobs += 1

    def feed(self, rng):
        """Write commands to the ring and ring the doorbell, perhaps in the middle of a job."""
        room = self.size - (self.tail - self.card.csr_read(Csr.RING_HEAD))
        count = min(room, len(self.waiting))
        if rng.random() < 0.5:
            count = int(rng.integers(0, count + 1))
        for raw in self.waiting[:count]:
            place = self.ring + self.tail % self.size * COMMAND_BYTES
            self.card.write_memory(place, raw)
            self.tail += 1
        del self.waiting[:count]
        self.card.csr_write(Csr.RING_TAIL, self.tail)

    def finish(self, rng):
        """Run until all jobs have ended."""
        start = self.card.cycles
        while True:
            completed = self.card.csr_read(Csr.COMPLETED)
            self.card.csr_write(Csr.ACK, completed)
            if completed == self.jobs:
                return
            spent = self.card.cycles - start
            assert spent < LIMIT, (
                f"{completed} of {self.jobs} jobs ended within {spent} cycles; "
                f"state {self.card.csr_read(Csr.STATE):#x}, "
                f"{len(self.waiting)} commands wait for room"
            )
            if self.waiting:
                self.feed(rng)
            self.card.run(int(rng.integers(1, 400)) if self.waiting else LIMIT)

    def records(self):
        """Return the jobs' completion records without their cycles, which memory loses too."""
        return [self.record(slot) for slot in range(self.jobs)]

    def ended_at(self, slot):
        """Return the cycles in a job's record, before `records` forgets them."""
        return int.from_bytes(bytes(self.card.read_memory(RECORDS + 16 * slot + 12, 4)), "little")

    def record(self, slot):
        """Return one of `records`."""
        place = RECORDS + 16 * slot
        raw = bytes(self.card.read_memory(place, 12)) + bytes(4)
        self.card.write_memory(place, raw)
        return unpack(Completion, raw)

    def registers(self):
        names = (Csr.COMPLETED, Csr.ERROR, Csr.ERROR_COMMAND, Csr.RING_HEAD, Csr.STATE)
        return {name.name: self.card.csr_read(name) for name in names}

    def counters(self):
        names = (Csr.MAC_ACTIVE, Csr.BYTES_READ, Csr.BYTES_WRITTEN)
        return {
            name.name: self.card.csr_read(name) | self.card.csr_read(name + 4) << 32
            for name in names
        }

    def engine_cycles(self):
        """Return what the causes of engine-cycles add up to, and CYCLES."""
        values = [
            self.card.csr_read(name) | self.card.csr_read(name + 4) << 32
            for name in (*ENGINE_CYCLES, Csr.CYCLES)
        ]
        return sum(values[:-1]), values[-1]

    def memory(self, ranges):
        return [np.frombuffer(self.card.read_memory(*place), np.uint8) for place in ranges]


class Pair:
    """Both cards."""

    def __init__(self, name):
        self.config = config = preset(name)
        self.rtl, self.functional = Host(VerilatedCard(config)), Host(FunctionalCard(config))
        self.hosts = (self.rtl, self.functional)
        self.everywhere = [(0, LOW_BYTES), (config.memory_bytes - TOP_BYTES, TOP_BYTES)]

    def begin(self, rng, **settings):
        size = int(rng.choice([4, 16, 64, 256]))
        ring = RINGS + COMMAND_BYTES * int(rng.integers(0, 512))
        for host in self.hosts:
            host.begin(ring=ring, size=size, **settings)

    def run(self, rng, *jobs):
        for host in self.hosts:
            for job in jobs:
                host.submit(job)
            host.finish(rng)

    def count(self, engine):
        """Let both count the cycles of one engine, or of all."""
        for host in self.hosts:
            host.card.csr_write(Csr.COUNT_ENGINE, engine)

    def check_engine_cycles(self, engine=ALL_ENGINES):
        """Every cycle of every engine that is counted has one cause."""
        total, cycles = self.rtl.engine_cycles()
        assert total == cycles * (self.config.rows if engine == ALL_ENGINES else 1)

    def compare_ends(self):
        """Compare records and registers; return the records."""
        records, wanted = (host.records() for host in self.hosts)
        assert records == wanted
        assert self.rtl.registers() == self.functional.registers()
        return records

    def compare_memory(self, ranges=None):
        ranges = ranges or self.everywhere
        memories = zip(*(host.memory(ranges) for host in self.hosts), strict=True)
        for (base, _), (got, want) in zip(ranges, memories, strict=True):
            wrong = np.flatnonzero(got != want)
            assert not wrong.size, (
                f"{wrong.size} bytes of card memory differ, the first at {base + wrong[0]:#x}: "
                f"{got[wrong[0]]:#04x}, not {want[wrong[0]]:#04x}"
            )

    def same_memory(self):
        """Copy what a failed job left in the RTL's memory to the other card."""
        for (base, _), content in zip(
            self.everywhere, self.rtl.memory(self.everywhere), strict=True
        ):
            self.functional.card.write_memory(base, content)


def ended(job, slot, rng):
    """Add END to a job; its record goes to a slot of its own."""
    body = {"completion": RECORDS + 16 * slot, "tag": int(rng.integers(1 << 32))}
    job.commands.append(command(Opcode.END, body))
    return job


@pytest.fixture(scope="module")
def pair(name):
    pair = Pair(name)
    yield pair
    for host in pair.hosts:
        host.card.close()


@pytest.mark.parametrize("memory", ["hbm", "ideal"])
@pytest.mark.parametrize("largest", [256, 1024, 4096, 12000])
def test_jobs_of_one_ring(pair, memory, largest, rng, times):
    """Jobs back to back, some of which go on with the scratchpad that the one before left."""
    for _ in range(times):
        pair.begin(rng, ideal=memory == "ideal")
        base = DATA
        if rng.random() < 0.3:
            base = pair.config.memory_bytes - TOP_BYTES
        nbytes = TOP_BYTES if base != DATA else DATA_BYTES
        source = RandomJobs(pair.config, rng, base=base, nbytes=nbytes, largest=largest)
        jobs, dump = [], -1
        for slot in range(3):
            chained = dump if rng.random() < 0.5 else -1
            job = source.job(int(rng.integers(1, 5)), whole=True, source=chained)
            jobs.append(ended(job, slot, rng))
            dump = job.dump
        pair.run(rng, *jobs)
        records = pair.compare_ends()
        assert all(record["valid"] and record["status"] == 0 for record in records), records
        pair.compare_memory()
        pair.check_engine_cycles()


def test_counters_that_both_count(pair, rng, times):
    for turn in range(10 * times):
        pair.begin(rng, ideal=bool(turn % 2))
        engine = ALL_ENGINES if turn % 3 == 0 else int(rng.integers(pair.config.rows))
        pair.count(engine)
        source = RandomJobs(pair.config, rng, base=DATA, nbytes=DATA_BYTES)
        pair.run(rng, ended(source.job(2), 0, rng))
        pair.compare_ends()
        assert pair.rtl.counters() == pair.functional.counters()
        pair.check_engine_cycles(engine)
        pair.compare_memory()


@pytest.mark.parametrize("kind", KINDS)
def test_faults(pair, kind, rng, times):
    """A job with one fault between two good ones."""
    done = 0
    while done < 3 * times:
        pair.begin(rng, ideal=bool(rng.integers(2)))
        good = RandomJobs(pair.config, rng, base=DATA, nbytes=DATA_BYTES, largest=1024)
        bad = RandomJobs(pair.config, rng, base=FAULTY, nbytes=FAULTY_BYTES, largest=1024)
        jobs = [good.job(1), bad.job(int(rng.integers(1, 4))), good.job(1)]
        for slot, job in enumerate(jobs):
            ended(job, slot, rng)
        fault = inject(jobs[1], kind, pair.config, rng)
        if fault is None:
            continue
        done += 1
        pair.run(rng, *jobs)
        records = pair.compare_ends()
        assert [records[n]["status"] for n in (0, 2)] == [0, 0]
        error = pair.rtl.card.csr_read(Csr.ERROR)
        found = Status(error & 0xFF), Unit(error >> 8), pair.rtl.card.csr_read(Csr.ERROR_COMMAND)
        assert found == fault
        # Where END itself is at fault, there may be no place for the record.
        assert records[1]["valid"] or kind == "completion"
        if records[1]["valid"]:
            assert [records[1][name] for name in ("status", "unit", "command")] == [
                fault.status.value,
                fault.unit,
                fault.command,
            ]
        pair.compare_memory([(DATA, DATA_BYTES)])
        pair.same_memory()


def test_watchdog(pair, rng, times):
    """Without one SEMAPHORE command most jobs stop for ever; both say where."""
    stalled = 0
    for _ in range(12 * times):
        pair.begin(rng, ideal=bool(rng.integers(2)), watchdog=1500)
        source = RandomJobs(pair.config, rng, base=FAULTY, nbytes=FAULTY_BYTES, largest=1024)
        job = source.job(3)
        gifts = [i for i, raw in enumerate(job.commands) if raw[0] == Opcode.SEMAPHORE.value]
        if not gifts:
            continue
        del job.commands[rng.choice(gifts)]
        good = RandomJobs(pair.config, rng, base=DATA, nbytes=DATA_BYTES, largest=1024)
        pair.run(rng, ended(job, 0, rng), ended(good.job(1), 1, rng))
        first, second = pair.compare_ends()
        assert first["status"] in (Status.OK.value, Status.WATCHDOG.value)
        assert second["status"] == Status.OK.value
        if first["status"]:
            stalled += 1
            for name in (Csr.STALL, Csr.STALL_SEMAPHORE):
                got, want = (host.card.csr_read(name) for host in pair.hosts)
                assert got == want, f"{name.name} is {got:#x}, not {want:#x}"
        pair.compare_memory([(DATA, DATA_BYTES)])
        pair.same_memory()
    assert stalled


@pytest.mark.parametrize("how", ["abort", "reset", "abort and reset"])
def test_stops_at_any_time(pair, how, rng, times):
    """A job is stopped anywhere; the next one is as good as any."""
    host, card = pair.rtl, pair.rtl.card
    for turn in range(12 * times):
        pair.begin(rng, ideal=bool(turn % 2))
        source = RandomJobs(pair.config, rng, base=FAULTY, nbytes=FAULTY_BYTES, largest=1024)
        host.submit(ended(source.job(3), 0, rng))
        until = int(rng.integers(0, len(host.waiting)))
        while len(host.waiting) > until:
            host.feed(rng)
            card.run(int(rng.integers(1, 50)))
        card.run(int(rng.integers(1, 4000)))
        now = card.csr_read(Csr.CYCLES)
        if "abort" in how:
            card.csr_write(Csr.CONTROL, 2)
        if how == "abort":
            # What is left of the job is skipped up to its END.
            host.finish(rng)
            # Once its record is made, though not yet in memory, a job has ended well.
            ended_before = host.ended_at(0) <= now
            (record,) = host.records()
            assert record["valid"]
            assert (record["status"] == Status.ABORTED.value) == (not ended_before), record
            if not ended_before:
                assert record["unit"] == Unit.SEQUENCER
            pair.functional.begin(ring=host.ring, size=host.size, ideal=bool(turn % 2))
        else:
            card.run(int(rng.integers(1, 100)))
            pair.begin(rng, ideal=bool(turn % 2))
        good = RandomJobs(pair.config, rng, base=DATA, nbytes=DATA_BYTES, largest=1024)
        pair.run(rng, ended(good.job(1), 9, rng))
        records = [host.record(9) for host in pair.hosts]
        assert records[0] == records[1]
        assert records[0]["valid"] and records[0]["status"] == 0
        pair.compare_memory([(DATA, DATA_BYTES)])
        pair.same_memory()
