"""Random jobs without races: what the RTL and the functional simulator must agree on.

Each operation of a job loads what it reads, works, and stores what it wrote; its loads, its unit
and its store run ahead of each other through loops, two buffers and semaphores.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ...rtl.config import GRANULE, CardConfig
from ...rtl.isa import SEMAPHORES, DirectoryEntry, Format, MatmulFlag, Opcode, Queue
from .assemble import command, operand, semaphore
from .checks import SIZES, steps_span
from .decode import dtype
from .random_operands import WORD, RandomOperands, aligned

__all__ = ["RandomJob", "RandomJobs"]

LOADS = (Queue.LOAD0, Queue.LOAD1)


@dataclasses.dataclass
class RandomJob:
    """A job: its commands without END, and the bytes that must be in card memory before it.

    ``blobs`` holds, for each MATMUL by its index, where its stream blob lies in memory, and which
    entries of its directory are not empty. ``dump`` is where the whole scratchpad is stored.
    """

    commands: list[bytes] = dataclasses.field(default_factory=list)
    writes: list[tuple[int, npt.NDArray[np.uint8]]] = dataclasses.field(default_factory=list)
    blobs: dict[int, tuple[int, npt.NDArray]] = dataclasses.field(default_factory=dict)
    dump: int = -1


class RandomJobs(RandomOperands):
    """Makes random jobs.

    Parameters
    ----------
    config : CardConfig
    rng : numpy.random.Generator
    base, nbytes : int
        The part of card memory that jobs may use. A job takes what it needs after the job before
        it, and begins again at ``base`` when that does not fit.
    largest : int
        About how many bytes a buffer of an operation has at most.
    """

    def __init__(
        self,
        config: CardConfig,
        rng: np.random.Generator,
        *,
        base: int,
        nbytes: int,
        largest: int = 4096,
    ) -> None:
        super().__init__(config, rng, largest)
        self.base, self.end = base, base + nbytes
        self._next = base
        self._job = RandomJob()
        self._phase()

    def job(self, operations: int, *, whole: bool = False, source: int = -1) -> RandomJob:
        """Return a job of so many operations.

        Parameters
        ----------
        operations : int
        whole : bool
            It also loads the whole scratchpad first and stores it at the end, so that writes to a
            wrong place do not get lost.
        source : int
            From where in memory ``whole`` loads: `RandomJob.dump` of the job before. Default: from
            noise of its own.
        """
        if self.end - self._next < (self.end - self.base) // 2:
            self._next = self.base
        self._job = job = RandomJob()
        self._phase()
        size = self.config.scratchpad_bytes
        body = {"x_bytes": size, "y": 1, "z": 1}
        if whole:
            source = self._noise(size) if source < 0 else source
            job.commands += [command(Opcode.LOAD, body, operands=[source, 0])]
            job.commands += [command(Opcode.BARRIER)]
        for _ in range(operations):
            if self._chance(0.2):
                self._barrier()
            kinds = (self._matmul, self._copy, self._relay, self._pool)
            kinds[self.rng.choice(4, p=[0.6, 0.15, 0.1, 0.15])]()
        if whole:
            job.commands += [command(Opcode.BARRIER)]
            job.dump = self._memory(size)
            job.commands += [command(Opcode.STORE, body, operands=[job.dump, 0])]
        return job

    # Memory, scratchpad and semaphores.

    def _memory(self, nbytes: int) -> int:
        """Return the address of memory that nothing else of the job uses."""
        address = self._next
        self._next = address + aligned(nbytes) + GRANULE * self._int(0, 20)
        if self._next > self.end:
            raise ValueError(f"nbytes must hold a job, not {self.end - self.base!r}")
        return address

    def _data(self, data: npt.NDArray) -> int:
        """Put data into memory, and return their address."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        address = self._memory(raw.size)
        self._job.writes.append((address, raw))
        return address

    def _noise(self, nbytes: int) -> int:
        return self._data(self.rng.integers(0, 256, nbytes, np.uint8))

    def _phase(self) -> None:
        self._low, self._high = 0, self.config.scratchpad_bytes
        self._semaphores = self.rng.permutation(SEMAPHORES).tolist()

    def _barrier(self) -> None:
        self._job.commands.append(command(Opcode.BARRIER))
        self._phase()

    def _room(self, nbytes: int, semaphores: int) -> int:
        """Return the place of ``nbytes`` in the scratchpad, after a barrier if there is no more.

        Also sees to it that so many semaphores are left. The place is filled with noise, and the
        operation's loads have to wait for the first of its semaphores.
        """
        nbytes = aligned(nbytes)
        if nbytes > self._high - self._low or semaphores > len(self._semaphores):
            self._barrier()
        gap = GRANULE * self._int(0, 9)
        gap = gap if nbytes + gap <= self._high - self._low else 0
        if self._chance(0.3):
            self._high -= nbytes + gap
            return self._high
        self._low += nbytes + gap
        return self._low - nbytes

    def _semaphore(self) -> int:
        return self._semaphores.pop()

    def _give(self, index: int, value: int) -> None:
        """Add to a semaphore, in one command or in several."""
        parts = [value] if self._chance(0.7) else [1] * value
        for part in parts:
            self._job.commands.append(command(Opcode.SEMAPHORE, {"index": index, "value": part}))

    def _blank(self, place: int, nbytes: int, readers: int) -> dict[str, int]:
        """Fill a place of the scratchpad with noise; return what its ``readers`` wait for."""
        done = self._semaphore()
        body = {"x_bytes": aligned(nbytes), "y": 1, "z": 1}
        source = self._noise(aligned(nbytes))
        signal = [semaphore(done)] * readers
        queue = LOADS[self._int(0, 1)]
        self._job.commands.append(
            command(Opcode.LOAD, body, queue=queue, operands=[source, place], signal=signal)
        )
        return semaphore(done, outer=True)

    def _shape(self, nbytes: int) -> tuple[dict[str, int], int, int]:
        """Return the body of a transfer of ``nbytes`` to or from one place in the scratchpad.

        And the bytes of memory it spans, and where in them it begins.
        """
        granules = nbytes // GRANULE
        x = int(self.rng.choice([d for d in range(1, granules + 1) if granules % d == 0]))
        rows = granules // x
        y = int(self.rng.choice([d for d in range(1, rows + 1) if rows % d == 0]))
        if max(y, rows // y) > 64:
            x, y, rows = granules, 1, 1
        z = rows // y
        y_stride = GRANULE * (x + self._int(0, 4))
        z_stride = y_stride * y + GRANULE * self._int(0, 4)
        y_stride *= -1 if self._chance(0.3) else 1
        z_stride *= -1 if self._chance(0.3) else 1
        low, high = steps_span((y, y_stride), (z, z_stride))
        body = {"x_bytes": GRANULE * x, "y": y, "z": z}
        body |= {"memory_y_stride": y_stride, "memory_z_stride": z_stride}
        body |= {"scratchpad_y_stride": GRANULE * x, "scratchpad_z_stride": GRANULE * x * y}
        return body, high - low + GRANULE * x, -low

    # Copies.

    def _copy(self) -> None:
        """Load rows, and store rows of another shape; rows may overlap."""
        commands = []
        length = aligned(self._int(1, self.largest // 2))
        scratchpad = self._room(length, 2)
        wait = self._blank(scratchpad, length, 1)
        done = self._semaphore()
        for opcode, queue, waits, signals in (
            (Opcode.LOAD, LOADS[self._int(0, 1)], [wait], [semaphore(done, outer=True)]),
            (Opcode.STORE, Queue.STORE, [semaphore(done, outer=True)], []),
        ):
            inner, outer = self._int(1, 3), 1
            sides = []
            x_bytes = GRANULE * self._int(1, max(1, length // GRANULE // 2))
            y, z = self._int(1, 5), self._int(1, 3)
            for space in (self.largest, length):
                # Offsets of rows and iterations that stay inside the space.
                left = (space - x_bytes) // GRANULE
                strides = []
                for count in (y, z, inner):
                    reach = left // max(1, count - 1) if count > 1 else left
                    stride = int(self.rng.integers(-reach, reach + 1)) if reach else 0
                    left -= abs(stride) * (count - 1)
                    strides.append(stride * GRANULE)
                low, _ = steps_span(*zip((y, z, inner), strides, strict=True))
                sides.append((strides, -low))
            (memory, start), (local, offset) = sides
            address = (self._noise if opcode is Opcode.LOAD else self._memory)(self.largest)
            body = {"x_bytes": x_bytes, "y": y, "z": z}
            body |= {"memory_y_stride": memory[0], "memory_z_stride": memory[1]}
            body |= {"scratchpad_y_stride": local[0], "scratchpad_z_stride": local[1]}
            operands = [
                operand(address + start, inner=memory[2]),
                operand(scratchpad + offset, inner=local[2]),
            ]
            commands.append(
                command(
                    opcode,
                    body,
                    queue=queue,
                    operands=operands,
                    inner=inner,
                    outer=outer,
                    wait=waits,
                    signal=signals,
                )
            )
        self._job.commands += commands

    def _relay(self) -> None:
        """Store, load again what was stored, and store it elsewhere, many times."""
        length, times = aligned(self._int(1, 512)), self._int(1, 5)
        place = self._room(2 * length * times, 4)
        wait = self._blank(place, 2 * length * times, 1)
        stored, loaded = self._semaphore(), self._semaphore()
        memory, body = self._memory(length * times), {"x_bytes": length, "y": 1, "z": 1}
        there = operand(memory, inner=length)
        back = operand(place + length * times, inner=length)
        here = operand(place, inner=length)
        self._job.commands += [
            command(
                Opcode.STORE,
                body,
                operands=[there, here],
                inner=times,
                wait=[wait],
                signal=[semaphore(stored)],
            ),
            command(
                Opcode.LOAD,
                body,
                queue=LOADS[self._int(0, 1)],
                operands=[there, back],
                inner=times,
                wait=[semaphore(stored)],
                signal=[semaphore(loaded)],
            ),
            command(
                Opcode.STORE,
                body,
                operands=[operand(self._memory(length * times), inner=length), back],
                inner=times,
                wait=[semaphore(loaded)],
            ),
        ]

    # Pooling.

    def _pool(self) -> None:
        granules, out_y, out_x = self._int(1, 3), self._int(1, 4), self._int(1, 5)
        kernel_y, kernel_x = self._int(1, 3), self._int(1, 3)
        counts = (out_y, out_x, kernel_y, kernel_x)
        strides = [GRANULE * int(self.rng.integers(-6, 9)) for _ in counts]
        low, high = steps_span(*zip(counts, strides, strict=True))
        in_bytes = high - low + GRANULE * granules
        box = self._box([out_y, out_x], GRANULE * granules, GRANULE)
        out_strides, out_start, out_bytes = box
        in_at = self._room(in_bytes + out_bytes, 3)
        out_at = in_at + in_bytes
        wait = self._blank(in_at, in_bytes + out_bytes, 1)
        done = self._semaphore()
        names = ("in_y_stride", "in_x_stride", "in_ky_stride", "in_kx_stride")
        body = dict(zip(names, strides, strict=True))
        body |= {"out_y_stride": out_strides[0], "out_x_stride": out_strides[1]}
        body |= {"granules": granules, "out_y": out_y, "out_x": out_x}
        body |= {"kernel_y": kernel_y, "kernel_x": kernel_x, "in_format": Format.INT8}
        self._job.commands += [
            command(
                Opcode.POOL,
                body,
                operands=[0, in_at - low, out_at + out_start],
                wait=[wait],
                signal=[semaphore(done)],
            ),
            self._store(out_at, out_bytes, 1, wait=[semaphore(done)]),
        ]

    def _store(self, place: int, nbytes: int, times: int, **header: Any) -> bytes:
        """Return the STORE of one or two buffers of ``nbytes``, ``times`` in all."""
        body, span, start = self._shape(nbytes)
        span = aligned(span)
        address = self._memory(span * times)
        source = operand(place, pong=nbytes if times > 1 else 0)
        return command(
            Opcode.STORE,
            body,
            operands=[operand(address + start, inner=span), source],
            inner=times,
            **header,
        )

    # Products.

    def _matmul(self) -> None:
        """Stream blobs past resident operands: loads, product and store of one tile or many."""
        rng, config = self.rng, self.config
        self.tame = self._chance(0.5)
        source = Format(int(rng.choice([Format.INT8.value, Format.FP16.value])))
        targets = [f for f in Format if source is Format.INT8 or f is not Format.INT32]
        target = Format.INT8 if self._chance(0.4) else targets[rng.integers(len(targets))]
        sparse, specials = self._chance(0.5), float(rng.choice([0, 0.01]))
        many = self._chance(0.5)
        inner, outer = (self._int(1, 3), self._int(1, 3)) if many else (1, 1)
        x_outer, blob_outer, out_outer = (self._chance(0.5) for _ in range(3))

        while True:
            fields, x_start, x_bytes = self._window(source)
            visits = self._int(1, 3)
            used = self._entries(visits)
            blobs = outer if blob_outer else 1
            raws = [self._blob(used, fields["k"], source, sparse, specials) for _ in range(blobs)]
            blob_bytes = max(len(raw) for raw in raws)
            counts = [int(used.sum()), min(fields["n_inner"], fields["n"])]
            counts.append(-(-fields["n"] // fields["n_inner"]))
            strides, out_start, tile_bytes = self._box(counts, SIZES[target], SIZES[target])
            out_bytes = tile_bytes * (inner if out_outer else 1)
            buffers = 2 * (x_bytes + blob_bytes + out_bytes)
            if max(tile_bytes, blob_bytes) <= self.largest and (
                buffers <= config.scratchpad_bytes // 2
            ):
                break
        for raw in raws:
            offsets = np.zeros(len(used), np.int64)
            offsets[used] = rng.permutation(counts[0]) * strides[0]
            directory = raw[: len(used) * GRANULE].view(dtype(DirectoryEntry))
            directory["out_offset"] = offsets & WORD
        clamp = sorted(rng.integers(-128, 128, 2).tolist())
        integers = target is Format.INT8
        fields |= {
            "visits": visits,
            "out_inner_stride": strides[1],
            "out_outer_stride": strides[2],
            "in_format": source,
            "out_format": target,
            "flags": MatmulFlag.SPARSE if sparse else 0,
            "function": int(rng.integers(2)),
            "zero_point": int(rng.integers(-128, 128)) if integers else 0,
            "clamp_low": clamp[0] if self._chance(0.5) else -128,
            "clamp_high": clamp[1] if self._chance(0.5) else 127,
        }
        body: dict[str, Any] = {**fields, "parameter": rng.integers(0, 1 << 32, 4).tolist()}

        place = self._room(buffers, 7)
        x_at, out_at = place + 2 * blob_bytes, place + 2 * (blob_bytes + x_bytes)
        ready = self._blank(place, buffers, 2)
        x_full, x_free, b_full, b_free, out_full, out_free = (self._semaphore() for _ in range(6))

        tiles = inner * outer
        loads = {
            "x": (x_at, x_bytes, outer if x_outer else tiles, x_full, x_free),
            "blob": (place, blob_bytes, blobs, b_full, b_free),
        }
        for index in (x_free, b_free, out_free):
            self._give(index, 2)
        # In one queue, a load that waits for a third buffer would block the other one.
        first = int(rng.integers(2))
        apart = max(times for _, _, times, _, _ in loads.values()) > 2
        for index, name in enumerate(rng.permutation(list(loads)).tolist()):
            queue = LOADS[first ^ index if apart else rng.integers(2)]
            at, nbytes, times, full, free = loads[name]
            shape, span, start = self._shape(nbytes)
            span = aligned(span)
            if name == "x":
                content = self._values(span * times // SIZES[source], source, specials)
                memory = self._data(content)
            else:
                shape = {"x_bytes": nbytes, "y": 1, "z": 1}
                span, start = nbytes, 0
                padded = [np.pad(raw, (0, nbytes - len(raw))) for raw in raws]
                memory = self._data(np.concatenate(padded))
                blob_memory = memory
            self._job.commands.append(
                command(
                    Opcode.LOAD,
                    shape,
                    queue=queue,
                    operands=[operand(memory + start, inner=span), operand(at, pong=nbytes)],
                    inner=times,
                    wait=[ready, semaphore(free)],
                    signal=[semaphore(full)] * (outer if name == "blob" and not blob_outer else 1),
                )
            )
        self._job.blobs[len(self._job.commands)] = (blob_memory, used)
        self._job.commands.append(
            command(
                Opcode.MATMUL,
                body,
                operands=[
                    operand(place, pong=blob_bytes if blob_outer else 0),
                    operand(x_at + x_start, pong=x_bytes),
                    operand(
                        out_at + out_start, inner=tile_bytes if out_outer else 0, pong=out_bytes
                    ),
                ],
                inner=inner,
                outer=outer,
                pong_outer=1 | x_outer << 1 | out_outer << 2,
                wait=self._shuffled(
                    semaphore(x_full, outer=x_outer),
                    semaphore(b_full, outer=True),
                    semaphore(out_free, outer=out_outer),
                ),
                signal=self._shuffled(
                    semaphore(x_free, outer=x_outer),
                    semaphore(out_full, outer=out_outer),
                    *([semaphore(b_free, outer=True)] if blob_outer else []),
                ),
            )
        )
        self._job.commands.append(
            self._store(
                out_at,
                out_bytes,
                outer if out_outer else tiles,
                wait=[semaphore(out_full)],
                signal=[semaphore(out_free)],
            )
        )

    def _shuffled(self, *references: dict[str, int]) -> list[dict[str, int]]:
        return [references[i] for i in self.rng.permutation(len(references)).tolist()]
