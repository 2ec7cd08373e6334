"""What starting, ending and following of MATMUL commands costs: cycles beside the multiplications.

All operands lie in the scratchpad before a job is measured, and every result of every job that is
measured is compared with the golden model. The figures come from the card's registers alone: its
completion records and the counters of row engine 0. What lies between two commands is the
difference of two jobs that differ only in how many equal commands they have; when the first weight
is issued shows in registers that are read in every cycle.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import Csr, Unit
from ..card import Card, JobResult
from ..compiler import commands
from ..compiler.commands import Operand
from ..compiler.formats import pack_rows, packed_bytes, unpack_rows
from ..compiler.streams import encode_blob
from ..counters import Counters
from .gemm import MismatchError, compare
from .golden import expected
from .job import GemmJob, command_line

__all__ = ["LATENCY_COLUMNS", "LATENCY_DTYPES", "TARGETS", "Latency", "latency"]

LATENCY_DTYPES = ("int8", "fp16")

VISITS, K = 4, 256
"""Rows of each engine, and products of each: a MATMUL multiplies for ``VISITS * K`` cycles."""

COMMANDS = (1, 2, 8)
"""Commands of the jobs that are compared."""

RUNS = {"ideal": 1, "hbm": 9}
"""How often a job is run; the one in the middle counts. Behind HBM the fetch of its commands and
the write of its record take longer if they meet a refresh or a closed row."""

TARGETS: dict[str, tuple[int, int, int]] = {"ecp5": (20, 85, 0), "sim": (20, 110, 0)}
"""By preset: cycles to the first MAC, an isolated job's overhead, and idle between commands."""

LATENCY_COLUMNS = (
    *("dtype", "m", "n", "k", "preset", "memory", "backend", "mac_cycles", "job_cycles"),
    *("first_mac", "first_mac_target", "overhead", "overhead_target", "empty_job"),
    *(f"idle_between_{count}" for count in COMMANDS if count > 1),
    *("idle_between_target", "stall_stream", "stall_fill", "stall_drain"),
    *("idle_imbalance", "idle_memory", "idle_other"),
    *("bit_exact", "cycles_modelled", "build", "command"),
)
"""Columns of the CSV file: cycles. ``stall_stream`` to ``idle_other`` are of engine 0 in the job
with one MATMUL."""

POLLS = 5000
"""Reads of a register until what they wait for is given up."""

COUNT_DELAY = 2
"""Cycles until what an engine does shows in a counter; `Csr.STATE` shows the queues at once."""

_COMPUTE_BUSY = 1 << 8 + Unit.COMPUTE
_ALL_ENGINES = 0xFF


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """The cycles of commands beside their multiplications, in one format.

    Parameters
    ----------
    mac_cycles : int
        Cycles that a command's multiplications take if every PE multiplies in every cycle.
    first_mac : int or None
        From the first cycle in which the command is at the head of the compute queue, which is
        empty before it, to the one in which engine 0 issues its first weight. None where a register
        cannot be read every cycle.
    job_cycles : int
        Of a job with one MATMUL, by its completion record: from the first command fetch, two
        cycles after the doorbell, to the record.
    empty_job : int
        Of a job that has only its END: to fetch a command and write the record.
    lost : Counters
        Engine 0's cycles without a weight in the job with one MATMUL, by cause; and until the
        host sees the record.
    between : mapping
        Commands of a job, all equal, to the cycles that each of them but the first adds beyond its
        ``mac_cycles``: idle cycles between queued commands.
    build : str
        Of the card: a hash of its RTL.
    """

    job: GemmJob
    config: CardConfig
    backend: str
    memory: str
    mac_cycles: int
    first_mac: int | None
    job_cycles: int
    empty_job: int
    lost: Counters
    between: dict[int, float]
    build: str

    @property
    def overhead(self) -> int:
        """Cycles of the job with one MATMUL beyond its multiplications."""
        return self.job_cycles - self.mac_cycles

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield the lines of a table: what, its cycles, and the target or a dash."""
        first_mac, overhead, between = TARGETS.get(self.config.name, ("-",) * 3)
        shown = "not readable" if self.first_mac is None else f"{self.first_mac:,}"
        yield "command at the queue's head to first MAC", shown, f"{first_mac}"
        yield "job with one MATMUL", f"{self.job_cycles:,}", "-"
        yield "its multiplications", f"{self.mac_cycles:,}", "-"
        yield "overhead of the job", f"{self.overhead:,}", f"{overhead}"
        yield "job without a command", f"{self.empty_job:,}", "-"
        for cause, cycles in self.lost.stalls().items():
            yield f"engine 0, {cause.replace('_', ' ')}", f"{cycles:,}", "-"
        for count, idle in self.between.items():
            yield f"idle between {count} MATMULs, each", f"{idle:,.2f}", f"{between}"

    def command(self) -> str:
        """Return the command line that repeats this."""
        return command_line("latency", [], preset=self.config.name, memory=self.memory)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        first_mac, overhead, between = TARGETS.get(self.config.name, (None, None, None))
        return {
            "name": "latency",
            "preset": self.config.name,
            "backend": self.backend,
            "memory": self.memory,
            "dtype": self.job.dtype,
            "shape": {"m": self.job.m, "n": self.job.n, "k": self.job.k},
            "mac_cycles": self.mac_cycles,
            "first_mac": self.first_mac,
            "first_mac_target": first_mac,
            "job_cycles": self.job_cycles,
            "overhead": self.overhead,
            "overhead_target": overhead,
            "empty_job": self.empty_job,
            "lost": self.lost.stalls(),
            "idle_between": {str(count): round(idle, 2) for count, idle in self.between.items()},
            "idle_between_target": between,
            "bit_exact": True,
            "cycles_modelled": False,
            "build": self.build,
            "command": self.command(),
        }

    def fields(self) -> dict[str, Any]:
        """Return the row of the CSV file: `LATENCY_COLUMNS`."""
        values = self.as_json()
        values |= {**values["shape"], **values["lost"]}
        values |= {f"idle_between_{n}": idle for n, idle in values["idle_between"].items()}
        return {name: values[name] for name in LATENCY_COLUMNS}


def latency(card: Card, dtype: str) -> Latency:
    """Measure the cycles of commands beside their multiplications in a format.

    Parameters
    ----------
    card : Card
        One that counts cycles in hardware.
    dtype : str
        Of `LATENCY_DTYPES`.

    Raises
    ------
    MismatchError
        If a result differs from the golden model's, the multiplications that were counted are not
        those of the commands, or a register does not show the command.
    CardError, ValueError
    """
    if card.transport.cycles_modelled:
        raise ValueError(f"backend must be one that counts cycles, not {card.transport.backend!r}")
    bench = _Bench(card, dtype)
    card.transport.csr_write(Csr.COUNT_ENGINE, 0)
    try:
        return bench.measure()
    finally:
        card.transport.csr_write(Csr.COUNT_ENGINE, _ALL_ENGINES)
        bench.close()


class _Bench:
    """Operands in the scratchpad, and the jobs that use them."""

    def __init__(self, card: Card, dtype: str) -> None:
        self.card, config = card, card.config
        job = GemmJob(m=VISITS * config.rows, n=1, k=K, dtype=dtype)
        self.job = job = dataclasses.replace(job, n=config.cols * job.lanes)
        operands = job.operands()
        self.wanted = expected(job, operands)
        self.mac_cycles = VISITS * K
        self.row_bytes = packed_bytes(job.n, job.out_format)
        self.blob = encode_blob(
            config,
            operands.a,
            out_offset=np.arange(job.m) * self.row_bytes,
            scale=operands.scale,
        )
        x = pack_rows(operands.x, job.b_format, packed_bytes(K, job.b_format)).reshape(-1)
        # The scratchpad, from 0 on: streams, resident operand, results.
        self.out_bytes = -(-job.m * self.row_bytes // GRANULE) * GRANULE
        self.x_at = self.blob.data.size
        self.out_at = self.x_at + x.size
        end = self.out_at + max(COMMANDS) * self.out_bytes
        if end > config.scratchpad_bytes:
            raise ValueError(
                f"scratchpad_bytes must be at least {end} for this benchmark, "
                f"not {config.scratchpad_bytes!r}"
            )
        # Results of an earlier job must not pass for this one's.
        clear = np.full(max(COMMANDS) * self.out_bytes, 0xA5, np.uint8)
        image = np.concatenate([self.blob.data, x, clear])
        self.source = card.allocate(image.size, "operands of the scratchpad")
        self.result = card.allocate(clear.size, "results of the scratchpad")
        card.write(self.source, image)

    def close(self) -> None:
        self.card.free(self.source)
        self.card.free(self.result)

    def measure(self) -> Latency:
        jobs = {count: self._typical(count) for count in COMMANDS}
        single = jobs[1]
        return Latency(
            job=self.job,
            config=self.card.config,
            backend=self.card.transport.backend,
            memory=self.card.memory,
            mac_cycles=self.mac_cycles,
            first_mac=self._first_mac(),
            job_cycles=single.cycles,
            empty_job=self._typical(0).cycles,
            lost=single.counters,
            between={
                count: (jobs[count].cycles - single.cycles) / (count - 1) - self.mac_cycles
                for count in COMMANDS
                if count > 1
            },
            build=self.card.info().build,
        )

    def _typical(self, count: int) -> JobResult:
        """Return the typical run of a job of ``count`` MATMULs."""
        runs = [self._run(count) for _ in range(RUNS[self.card.memory])]
        return sorted(runs, key=lambda run: run.cycles)[len(runs) // 2]

    def _run(self, count: int) -> JobResult:
        """Run a job of ``count`` MATMULs, and check its results."""
        self._fill()
        ended = self.card.submit([self._matmul(number) for number in range(count)]).wait()
        self._check(ended, count)
        return ended

    def _first_mac(self) -> int | None:
        """Watch a MATMUL come to its queue and start."""
        transport = self.card.transport
        transport.csr_read(Csr.STATE)
        before = transport.cycles
        transport.csr_read(Csr.STATE)  # right behind another read of it
        if transport.cycles != before + 1:
            return None
        self._fill()
        job = self.card.submit([self._matmul(0)])
        seen = []
        for address, mask in ((Csr.STATE, _COMPUTE_BUSY), (Csr.MAC_ACTIVE, -1)):
            for _ in range(POLLS):
                if transport.csr_read(address) & mask:
                    break
            else:
                job.wait()
                raise MismatchError(
                    f"{address.name} showed nothing of the command in {POLLS} reads; no figure is "
                    "given"
                )
            seen.append(transport.cycles)
        self._check(job.wait(), 1)
        queued, counted = seen
        return counted - COUNT_DELAY - queued

    def _fill(self) -> None:
        """Bring the operands to the scratchpad, and overwrite earlier results there."""
        load = commands.load(Operand(self.source.address), Operand(0), x_bytes=self.source.nbytes)
        self.card.submit([load]).wait()

    def _check(self, ended: JobResult, count: int) -> None:
        """Compare what ``count`` MATMULs left in the scratchpad, and what was counted."""
        store = commands.store(
            Operand(self.result.address), Operand(self.out_at), x_bytes=self.result.nbytes
        )
        self.card.submit([store]).wait()
        counted = ended.counters.mac_active
        if counted != count * self.mac_cycles:
            raise MismatchError(
                f"the card counted {counted} cycles of multiplications in engine 0 instead of "
                f"{count * self.mac_cycles}; no figure is given"
            )
        results = self.card.read(self.result)
        for number in range(count):
            compare(self._unpack(results[number * self.out_bytes :]), self.wanted)

    def _matmul(self, number: int) -> bytes:
        """Return the command that writes the results of that number."""
        job = self.job
        return commands.matmul(
            Operand(0),
            Operand(self.x_at),
            Operand(self.out_at + number * self.out_bytes),
            k=job.k,
            n=job.n,
            entries=self.blob.entries,
            x_inner_stride=packed_bytes(job.k, job.b_format),
            stream_format=job.a_format,
            in_format=job.b_format,
            out_format=job.out_format,
        )

    def _unpack(self, image: npt.NDArray[np.uint8]) -> npt.NDArray:
        job = self.job
        rows = image[: job.m * self.row_bytes].reshape(job.m, self.row_bytes)
        return unpack_rows(rows, job.n, job.out_format)
