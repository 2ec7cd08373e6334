"""Open a card, give out its memory, copy, submit jobs, wait for them.

>>> with Card.open("rtl", preset="ecp5") as card:
...     source = card.allocate(4096)
...     card.write(source, array)
...     result = card.submit(commands).wait()
...     result.counters.cycles
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..rtl.config import CardConfig
from ..rtl.config import preset as find_preset
from ..rtl.isa import COMMAND_BYTES, Csr
from .allocator import Allocator, Buffer
from .compiler.commands import end
from .compiler.tiling import MemorySpeed
from .counters import Counters
from .errors import CardError
from .identity import CardInfo, check_identity
from .job import Job, JobResult
from .ring import Ring, ring_bytes
from .step import Stepper
from .transport import LinkError, Progress, Transport, open_transport
from .waiting import COMPLETION_BYTES, Waiter

__all__ = ["Card", "CardInfo", "Job", "JobResult"]

RESET, ABORT = 1, 2
"""Of `Csr.CONTROL`."""

HBM_EFFICIENCY = 0.9
"""Of a channel's peak, in long transfers; measured on the RTL, as the next two."""

HBM_BURST_BYTES = 64
"""Shorter rows of a transfer take as long."""

HBM_TURN_CYCLES = 12.0
"""What a row that is written between reads takes from them, besides its own time."""

MEMORY_MODES = {"hbm": 0, "ideal": 1}


class Card:
    """One card: the driver's side of it.

    Parameters
    ----------
    transport : Transport
        The way to the card.
    memory : str
        ``"hbm"``, or ``"ideal"``: a memory with a fixed latency. A card without HBM channels has
        only this one.

    Raises
    ------
    CardMismatchError
        If the card is not what the transport's configuration says.
    """

    def __init__(self, transport: Transport, *, memory: str = "hbm") -> None:
        if memory not in MEMORY_MODES:
            raise ValueError(f"no memory {memory!r}; choose one of: {', '.join(MEMORY_MODES)}")
        self.transport = transport
        self.config: CardConfig = transport.config
        self.memory = memory if self.config.hbm_channels else "ideal"
        check_identity(transport)
        self._allocator = Allocator(0, self.config.memory_bytes)
        nbytes = ring_bytes(self.config.memory_bytes)
        self._ring = Ring(transport, self.allocate(nbytes, "the command ring"))
        self._waiter = Waiter(transport, self._ring, self.reset)
        self._tag = 0
        if transport.clock_hz is not None:
            # It has run before, and keeps what another host has left.
            transport.csr_write(Csr.CONTROL, RESET)
        self._stepper: Stepper | None = None
        self._watchdog = self._csr(Csr.WATCHDOG)
        self.reset()

    @classmethod
    def open(
        cls,
        backend: str = "rtl",
        *,
        preset: str | CardConfig = "ecp5",
        memory: str = "hbm",
        waves: str | Path | None = None,
        progress: Progress | None = None,
        bitstream: str | Path | None = None,
        board: str | None = None,
        port: str | None = None,
        load: bool = True,
        netlist: bool = False,
    ) -> "Card":
        """Open a card.

        Parameters
        ----------
        backend : str
            ``"rtl"``, ``"functional"``, or ``"board"``: a bitstream on an FPGA board.
        preset : str or CardConfig
            Name of a preset, or sizes of your own. A bitstream has its own.
        memory : str
            ``"hbm"`` or ``"ideal"``.
        waves : path
            Write waves there (rtl only).
        progress : callable
            Hears of the build of the Verilated card: phase and fraction.
        bitstream : path
            For a board: what is loaded, with its manifest beside it.
        board : str
            The bitstream's board, or ``"virtual"``: that board simulated.
        port : str
            The board's serial port, where more than one fits.
        load : bool
            False: the board runs the bitstream already.
        netlist : bool
            On the virtual board: simulate the netlist that lies beside the bitstream.

        Raises
        ------
        ValueError
            If a name is unknown; says which ones there are.
        SetupError
            If a tool, a board, or the card that the bitstream holds, is missing.
        LinkError
            If a board does not answer.
        """
        config = preset if isinstance(preset, CardConfig) else find_preset(preset)
        if memory not in MEMORY_MODES:
            raise ValueError(f"no memory {memory!r}; choose one of: {', '.join(MEMORY_MODES)}")
        path = Path(waves) if waves is not None else None
        transport = open_transport(
            backend,
            config,
            waves=path,
            progress=progress,
            bitstream=Path(bitstream) if bitstream is not None else None,
            board=board,
            port=port,
            load=load,
            netlist=netlist,
        )
        try:
            return cls(transport, memory=memory)
        except BaseException:
            transport.close()
            raise

    def __enter__(self) -> "Card":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the card."""
        self.transport.close()

    @property
    def memory_speed(self) -> MemorySpeed:
        """What card memory moves, for the choice of tiles."""
        width = float(self.config.bus_bytes)
        if self.memory == "ideal":
            return MemorySpeed(width)
        peak = 16 * self.config.hbm_channels
        return MemorySpeed(min(width, HBM_EFFICIENCY * peak), HBM_BURST_BYTES, HBM_TURN_CYCLES)

    def info(self) -> CardInfo:
        """Read what the card says of itself."""
        read = self._csr
        geometry = read(Csr.GEOMETRY)
        return CardInfo(
            backend=self.transport.backend,
            preset=self.config.name,
            abi=read(Csr.ABI),
            build=f"{read(Csr.BUILD_LOW) | read(Csr.BUILD_HIGH) << 32:016x}",
            rows=geometry & 0xFF,
            cols=geometry >> 8 & 0xFF,
            operand_depth=read(Csr.OPERAND_DEPTH),
            scratchpad_bytes=read(Csr.SCRATCHPAD_BYTES),
            memory_bytes=read(Csr.MEMORY_BYTES),
            bus_bytes=geometry >> 16 & 0xFF,
            hbm_channels=geometry >> 24 & 0xFF,
            memory=self.memory,
            free_bytes=self._allocator.free_bytes,
        )

    def allocate(self, nbytes: int, name: str = "") -> Buffer:
        """Allocate card memory (`Allocator.allocate`), aligned to 256 bytes."""
        return self._allocator.allocate(nbytes, name)

    def free(self, buffer: Buffer) -> None:
        """Give a buffer back."""
        self._allocator.free(buffer)

    def write(self, buffer: Buffer, array: npt.ArrayLike, *, offset: int = 0) -> None:
        """Copy an array's bytes to a buffer.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._inside(buffer, offset, data.size, "write")
        if data.size:
            self.transport.write_memory(buffer.address + offset, data)

    def read(
        self, buffer: Buffer, *, offset: int = 0, nbytes: int | None = None
    ) -> npt.NDArray[np.uint8]:
        """Copy a buffer's bytes (all of them if ``nbytes`` is not given) to the host."""
        count = buffer.nbytes - offset if nbytes is None else nbytes
        self._inside(buffer, offset, count, "read")
        return self.transport.read_memory(buffer.address + offset, count)

    def counters(self) -> Counters:
        """Read the counters of the newest job."""
        return Counters.read(self.transport.csr_read_many)

    def set_watchdog(self, cycles: int) -> None:
        """End jobs in which nothing moves for ``cycles`` cycles, fewer than 2^32; 0 is never."""
        if not 0 <= cycles < 1 << 32:
            raise ValueError(f"cycles must be from 0 to {(1 << 32) - 1}, not {cycles!r}")
        self._watchdog = cycles
        self.transport.csr_write(Csr.WATCHDOG, cycles)

    def set_stepper(self, stepper: Stepper | None) -> None:
        """Hold the commands of jobs that are submitted from now on until ``stepper`` lets them go;
        with None all go.

        Raises
        ------
        ValueError
            If the card runs whole jobs only.
        """
        if stepper is not None and self.transport.cycles_modelled:
            raise ValueError(
                f"the {self.transport.backend} backend runs whole jobs, and has no single steps; "
                "next: use --backend rtl, or a bitstream"
            )
        self._stepper = stepper
        self.transport.csr_write(Csr.STEP, 0)

    def submit(self, commands: Sequence[bytes], *, labels: Mapping[int, str] | None = None) -> Job:
        """Queue a job: ``commands``, and an END that the driver adds.

        Returns at once, or when the ring has room again.

        Parameters
        ----------
        commands : sequence of bytes
        labels : mapping
            Names of commands, by their index, such as that of the tensor that one makes. Errors
            and warnings then name it.

        Raises
        ------
        CardError
            If the ring is full and the card takes no command. After this, and whatever else cuts
            this short, the card is reset: all jobs that have not ended are lost.
        OutOfMemoryError, ValueError
        """
        for index, command in enumerate(commands):
            if len(command) != COMMAND_BYTES:
                raise ValueError(
                    f"command {index} must have {COMMAND_BYTES} bytes, not {len(command)!r}"
                )
        self._tag += 1
        record = self.allocate(COMPLETION_BYTES, "a completion record")
        try:
            self.write(record, np.zeros(COMPLETION_BYTES, np.uint8))
            whole = [*commands, end(record.address, self._tag)]
            job = Job(self, self._tag, whole, record, self._ring.tail, labels)
            if self._stepper is not None:
                self._stepper.begin(self, job)
            self._queue(job.commands)
        except BaseException:
            # Half a job, without its END, must not stay in the ring.
            with contextlib.suppress(LinkError):
                self.reset()
            self.free(record)
            raise
        return job

    def _queue(self, waiting: Sequence[bytes]) -> None:
        """Write commands to the ring, as it has room."""
        while waiting:
            room = self._ring.room()
            if room:
                self._ring.write(waiting[:room])
                waiting = waiting[room:]
            else:
                self._make_room()

    def abort(self) -> None:
        """Abort the running job; its `Job.wait` then raises."""
        self.transport.csr_write(Csr.CONTROL, ABORT)

    def reset(self) -> None:
        """Reset the card and set up its ring. Jobs that still run are lost; memory stays."""
        write = self.transport.csr_write
        write(Csr.CONTROL, RESET)
        if self._stepper is not None:
            self._stepper.forget()
        write(Csr.MEMORY_MODE, MEMORY_MODES[self.memory])
        write(Csr.WATCHDOG, self._watchdog)
        self._ring.reset()

    def _make_room(self) -> None:
        """Let the card fetch; the watchdog ends a job that blocks the ring."""
        if self._stepper is not None and self._stepper.active:
            self._stepper.run(self, self._ring.tail)
            return
        if not self._waiter.make_room():
            raise CardError(
                "the ring is full and the card takes no command, so it was reset and its jobs are "
                "lost; next: check that every wait has a signal, and set a watchdog, which names "
                "the one that has none"
            )

    def finish(self, job: Job, max_cycles: int | None, deadline_s: float | None) -> JobResult:
        """Run until a job has ended: what `Job.wait` does, once."""
        if self._stepper is not None and self._stepper.active:
            self._stepper.run(self, (job.first + len(job.commands)) % (1 << 32))
        return self._waiter.finish(job, max_cycles, deadline_s)

    def acknowledge(self) -> int:
        """Let the interrupt line fall; return how many jobs have ended (modulo 2^32)."""
        return self._waiter.acknowledge()

    def _inside(self, buffer: Buffer, offset: int, nbytes: int, what: str) -> None:
        if offset < 0 or nbytes < 0 or offset + nbytes > buffer.nbytes:
            raise ValueError(
                f"cannot {what} {nbytes} bytes at offset {offset} of a buffer of "
                f"{buffer.nbytes} bytes{f' ({buffer.name})' if buffer.name else ''}"
            )

    def _csr(self, address: Csr) -> int:
        return self.transport.csr_read(int(address))
